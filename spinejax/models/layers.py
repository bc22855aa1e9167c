"""Layers shared by every network, each in the form that runs fastest, with PyTorch's semantics.

Arrays are channels-last, [N,H,W,C] or [N,D,H,W,C]; the same code serves both. Parameters carry
the names, and up to an axis order the shapes, of the PyTorch modules they mirror: `kernel`
[*window, in, out] and `bias` of a convolution, `scale`, `bias`, `mean` and `var` of a norm.
"""
from collections.abc import Sequence
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array
Dtype = Any
Initializer = Any

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
kaiming_fan_in = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
classifier_init = nn.initializers.normal(0.01)


class Conv(nn.Module):
  """Convolution y = sum_i k_i x_(s o + d i - p) + b with PyTorch's explicit symmetric padding.

  Takes one array [N,*S,C] or a sequence of arrays that agree in all but C; a sequence gives the
  convolution of its concatenation along C, computed with the kernel split instead of the arrays
  joined. A 1x1 convolution is a slice and a matrix product. Padding defaults to
  dilation * (window - 1) / 2: 'same' at stride 1, and PyTorch's usual choice at stride 2, which
  XLA's 'SAME' is not.
  """
  features: int
  window: int = 3
  stride: int = 1
  dilation: int = 1
  use_bias: bool = True
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array | Sequence[Array]) -> Array:
    parts = list(x) if isinstance(x, (list, tuple)) else [x]
    rank = parts[0].ndim - 2
    channels = sum(part.shape[-1] for part in parts)
    kernel = self.param('kernel', self.kernel_init,
                        (self.window,) * rank + (channels, self.features), jnp.float32)
    kernel = kernel.astype(self.dtype)
    y, start = None, 0
    for part in parts:
      stop = start + part.shape[-1]
      term = self._convolve(part.astype(self.dtype), kernel[..., start:stop, :])
      y = term if y is None else y + term
      start = stop
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      y = y + jnp.expand_dims(bias.astype(self.dtype), range(rank + 1))
    return y

  def _convolve(self, x: Array, kernel: Array) -> Array:
    rank = x.ndim - 2
    if self.window == 1:
      x = x[(slice(None),) + (slice(None, None, self.stride),) * rank]
      return lax.dot_general(x, kernel.reshape(kernel.shape[-2:]), (((rank + 1,), (0,)), ((), ())))
    pad = self.dilation * (self.window - 1) // 2
    spatial = 'DHW'[-rank:]
    layout = ('N' + spatial + 'C', spatial + 'IO', 'N' + spatial + 'C')
    return lax.conv_general_dilated(
        x, kernel, (self.stride,) * rank, ((pad, pad),) * rank,
        rhs_dilation=(self.dilation,) * rank, dimension_numbers=layout)


class ConvTranspose(nn.Module):
  """Transposed convolution with a 2x2(x2) window at stride 2: y_(2h+i) = k_i x_h + b.

  [N,*S,C] -> [N,*2S,features]: a matrix product to 2^d features followed by depth-to-space. The
  kernel [2,...,2,C,features] is PyTorch's in another axis order, and that of `nn.ConvTranspose`
  with its window flipped.
  """
  features: int
  kernel_init: Initializer = kaiming_fan_in
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    rank = x.ndim - 2
    kernel = self.param('kernel', self.kernel_init,
                        (2,) * rank + (x.shape[-1], self.features), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    y = lax.dot_general(x.astype(self.dtype), kernel.astype(self.dtype),
                        (((rank + 1,), (rank,)), ((), ())))
    y = y + jnp.expand_dims(bias.astype(self.dtype), range(2 * rank + 1))
    order = [0] + [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)] + [2 * rank + 1]
    shape = (x.shape[0],) + tuple(2 * n for n in x.shape[1:-1]) + (self.features,)
    return y.transpose(order).reshape(shape)


class BatchNorm(nn.Module):
  """Batch norm y = scale (x - mean) / sqrt(var + epsilon) + bias over all axes but the last."""
  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool, shift: Array | None = None) -> Array:
    features = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (features,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (features,), jnp.float32)
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    if train:
      mean = jnp.mean(x, axes)
      square = jnp.mean(lax.square(x), axes)
      var = jnp.maximum(square - lax.square(mean), 0.0)
    else:
      mean, var = running_mean.value, running_var.value
    mul = scale * lax.rsqrt(var + self.epsilon)
    off = bias - mean * mul
    y = x * jnp.expand_dims(mul, axes) + jnp.expand_dims(off, axes)
    if train and not self.is_initializing():
      n = math.prod(x.shape[:-1])
      running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
      running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var * (n / max(n - 1, 1))
    return y.astype(self.dtype)


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
  return lax.max(a, b)


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
  (a, b), (da, db) = primals, tangents
  return lax.max(a, b), jnp.where(a >= b, da, db)


def max_pool(x: Array, window: int = 2, stride: int = 2, pad: int = 0) -> Array:
  if pad:
    low = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, low, [(0, 0, 0)] + [(pad, pad, 0)] * (x.ndim - 2) + [(0, 0, 0)])
  for axis in range(x.ndim - 2, 0, -1):
    size = (x.shape[axis] - window) // stride + 1
    taps = [lax.slice_in_dim(x, i, i + stride * (size - 1) + 1, stride, axis)
            for i in range(window)]
    x = taps[0]
    for tap in taps[1:]:
      x = _maximum(x, tap)
  return x
