"""Convolutions as functions of arrays [N,*S,C], channels last.

Each is defined by XLA's operation. On CPU an equal form of `cpu_kernels` takes its place.
"""
import functools

import jax
from jax import lax
import jax.numpy as jnp

from spinejax.models import cpu_kernels
from spinejax.models import resizing

Array = jax.Array


def _layout(rank: int) -> tuple[str, str, str]:
  """Axes of the input, the kernel and the output of a convolution."""
  axes = 'DHW'[-rank:]
  return 'N' + axes + 'C', axes + 'IO', 'N' + axes + 'C'


def convolve(x: Array, kernel: Array, stride: int = 1, dilation: int = 1,
             padding: str = 'symmetric') -> Array:
  """Convolution of x [N,*S,C] with an odd kernel [*kernel_size,C,F], padded as in `Conv`."""
  if padding not in ('symmetric', 'same'):
    raise ValueError(f"padding must be 'symmetric' or 'same', not {padding!r}.")
  rank, pad = x.ndim - 2, dilation * (kernel.shape[0] - 1) // 2
  native = functools.partial(
      lax.conv_general_dilated, window_strides=(stride,) * rank,
      padding='SAME' if padding == 'same' else ((pad, pad),) * rank,
      rhs_dilation=(dilation,) * rank, dimension_numbers=_layout(rank))
  fast = functools.partial(cpu_kernels.convolve, native=native, stride=stride, dilation=dilation)
  return cpu_kernels.dispatch(cpu=fast, default=native)(x, kernel)


def convolve_depthwise(x: Array, kernel: Array) -> Array:
  """Convolution of each channel of x [N,*S,C] with its own kernel [*kernel_size,1,C] at stride 1.
  """
  rank, pad = x.ndim - 2, kernel.shape[0] // 2
  native = functools.partial(
      lax.conv_general_dilated, window_strides=(1,) * rank, padding=((pad, pad),) * rank,
      dimension_numbers=_layout(rank), feature_group_count=x.shape[-1])
  return cpu_kernels.dispatch(cpu=cpu_kernels.convolve_depthwise, default=native)(x, kernel)


def convolve_upsampled(x: Array, kernel: Array) -> Array:
  """3x3 convolution of x [N,H,W,C] after nearest doubling: [N,2H,2W,F]."""
  def native(x: Array, kernel: Array) -> Array:
    return convolve(resizing.upsample_nearest(x), kernel)

  return cpu_kernels.dispatch(cpu=cpu_kernels.convolve_upsampled, default=native)(x, kernel)


def convolve_transposed(x: Array, kernel: Array) -> Array:
  """Transposed convolution y_(2h+i) = k_i x_h of x [N,*S,C] with k [2,...,2,C,F]: [N,*2S,F]."""
  rank = x.ndim - 2

  def native(x: Array, kernel: Array) -> Array:
    return lax.conv_transpose(x, jnp.flip(kernel, range(rank)), (2,) * rank, 'VALID',
                              dimension_numbers=_layout(rank))

  return cpu_kernels.dispatch(cpu=cpu_kernels.convolve_transposed, default=native)(x, kernel)
