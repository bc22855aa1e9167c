"""Operations that change the size of an image [N,*S,C] with any number of spatial axes S."""
from collections.abc import Sequence
import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from spinejax.models import cpu_kernels

Array = jax.Array


@functools.partial(jax.jit, static_argnames=('kernel_size', 'stride', 'padding'))
def max_pool(x: Array, kernel_size: int = 2, stride: int = 2, padding: int | str = 0) -> Array:
  """Max-pooling [N,*S,C] -> [N,*S',C], padded with -inf.

  `padding` is the number of pixels on each side as in PyTorch, or 'same' as in `Conv`. Of equal
  values in a window the first one, in row-major order, gets the whole gradient.
  """
  rank = x.ndim - 2
  sizes, strides = (kernel_size,) * rank, (stride,) * rank
  if isinstance(padding, int):
    pads = [(padding, padding)] * rank
  else:
    pads = lax.padtype_to_pads(x.shape[1:-1], sizes, strides, padding.upper())
  fast = functools.partial(cpu_kernels.max_pool, kernel_size=kernel_size, stride=stride, pads=pads)
  native = functools.partial(nn.max_pool, window_shape=sizes, strides=strides, padding=pads)
  return cpu_kernels.dispatch(cpu=fast, default=native)(x)


def upsample_bilinear(x: Array, factor: int = 2) -> Array:
  """Bilinear upsampling with half-pixel centers: [N,*S,C] -> [N,*factor S,C]."""
  size = [factor * n for n in x.shape[1:-1]]
  native = functools.partial(resize_bilinear, size=size)
  fast = functools.partial(cpu_kernels.upsample_bilinear, factor=factor)
  return cpu_kernels.dispatch(cpu=fast, default=native)(x)


def upsample_nearest(x: Array, factor: int = 2) -> Array:
  """Repeats every value `factor` times along each axis: [N,*S,C] -> [N,*factor S,C]."""
  n, *size, channels = x.shape
  spread = jnp.expand_dims(x, range(2, 2 * len(size) + 1, 2))
  shape = [extent for s in size for extent in (s, factor)]
  return jnp.broadcast_to(spread, (n, *shape, channels)).reshape(
      n, *(factor * s for s in size), channels)


def resize_bilinear(x: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
  """Bilinear resize without antialiasing: [N,*S,C] -> [N,*size,C].

  Pixel o of n' reads position (o + 1/2) n / n' - 1/2 of n pixels (half-pixel centers), or with
  `align_corners` position o (n - 1) / (n' - 1), which keeps the first and the last center. A single
  pixel is then the first.
  """
  if not align_corners:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'bilinear', antialias=False)
  for axis, (before, after) in enumerate(zip(x.shape[1:-1], size, strict=True), 1):
    positions = np.linspace(0, before - 1, after)[:, None]
    x = _mix(x, np.maximum(1 - np.abs(positions - np.arange(before)), 0), axis)
  return x


def adaptive_average_pool(x: Array, bins: int) -> Array:
  """Means over bins^rank windows that cover the image: [N,*S,C] -> [N,bins,...,bins,C].

  As PyTorch's AdaptiveAvgPool, window b of an axis of n pixels goes from floor(b n / bins) to
  ceil((b + 1) n / bins). Windows differ in size and overlap where n is no multiple of `bins`.
  """
  for axis in range(1, x.ndim - 1):
    pixels = x.shape[axis]
    starts = np.arange(bins) * pixels // bins
    ends = -(-np.arange(1, bins + 1) * pixels // bins)
    inside = (np.arange(pixels) >= starts[:, None]) & (np.arange(pixels) < ends[:, None])
    x = _mix(x, inside / (ends - starts)[:, None], axis)
  return x


def _mix(x: Array, weights: np.ndarray, axis: int) -> Array:
  """Weighted sums along one axis: weights [after,before]."""
  mixed = jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,)),
                        precision=lax.Precision.HIGHEST)
  return jnp.moveaxis(mixed, -1, axis)


def pad_to_multiple(x: Array, multiple: int) -> Array:
  """Repeats the last row, column and slice until each axis of [N,*S,C] is a multiple."""
  pads = [(0, 0)] + [(0, -size % multiple) for size in x.shape[1:-1]] + [(0, 0)]
  return jnp.pad(x, pads, mode='edge') if any(after for _, after in pads) else x


def crop(x: Array, size: Sequence[int]) -> Array:
  """The first `size` pixels of [N,*S,C]."""
  return x[(slice(None), *(slice(n) for n in size))]
