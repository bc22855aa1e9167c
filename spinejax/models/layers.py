"""Layers shared by every network, each in the form that runs fastest, with PyTorch's semantics.

Arrays are channels-last, [N,H,W,C] or [N,D,H,W,C]; the same code serves both. Parameters carry
the names, and up to an axis order the shapes, of the PyTorch modules they mirror: `kernel`
[*window, in, out] and `bias` of a convolution, `scale`, `bias`, `mean` and `var` of a norm.
"""
from collections.abc import Sequence
import functools
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
  """Batch norm y = scale (x - mean) / sqrt(var + epsilon) + bias over all axes but the last.

  In training mean and variance are those of the whole batch: of the global batch where it is
  sharded under `jit`, and of all devices along `axis_name` under `pmap`. As in PyTorch, the
  running variance is the unbiased one; `momentum` 0.9 is PyTorch's 0.1. Statistics are float32
  whatever `dtype` is.
  """
  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    features = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (features,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (features,), jnp.float32)
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    if train:
      mean, square = jnp.mean(x, axes), jnp.mean(lax.square(x), axes)
      count = math.prod(x.shape[:-1])
      if self.axis_name is not None and not self.is_initializing():
        mean, square = lax.pmean((mean, square), self.axis_name)
        count *= lax.axis_size(self.axis_name)
      var = jnp.maximum(square - lax.square(mean), 0.0)
      if not self.is_initializing():
        rest = 1 - self.momentum
        unbiased = var * (count / max(count - 1, 1))
        running_mean.value = self.momentum * running_mean.value + rest * mean
        running_var.value = self.momentum * running_var.value + rest * unbiased
    else:
      mean, var = running_mean.value, running_var.value
    factor = scale * lax.rsqrt(var + self.epsilon)
    offset = bias - mean * factor
    y = x * jnp.expand_dims(factor, axes) + jnp.expand_dims(offset, axes)
    return y.astype(self.dtype)


class ConvNorm(nn.Module):
  """Convolution, batch norm and, by default, ReLU; the convolution has no bias by default."""
  features: int
  window: int = 3
  stride: int = 1
  dilation: int = 1
  use_bias: bool = False
  relu: bool = True
  kernel_init: Initializer = kaiming_fan_out
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array | Sequence[Array], *, train: bool) -> Array:
    x = Conv(self.features, self.window, self.stride, self.dilation, self.use_bias,
             self.kernel_init, self.dtype, name='conv')(x)
    x = BatchNorm(self.axis_name, dtype=self.dtype, name='bn')(x, train=train)
    return nn.relu(x) if self.relu else x


class Classifier(nn.Module):
  """Dropout of whole channels and a 1x1 convolution to logits, in float32 whatever comes in."""
  num_classes: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    axes = tuple(range(1, x.ndim - 1))
    x = nn.Dropout(self.dropout, broadcast_dims=axes, deterministic=not train)(
        x.astype(jnp.float32))
    return Conv(self.num_classes, window=1, kernel_init=classifier_init, name='conv')(x)


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
  return lax.max(a, b)


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
  (a, b), (da, db) = primals, tangents
  return lax.max(a, b), jnp.where(a >= b, da, db)


def max_pool(x: Array, window: int = 2, stride: int = 2, pad: int = 0) -> Array:
  """Maximum over windows, padded with -inf: [N,*S,C] -> [N,*S',C] as PyTorch's MaxPool.

  Taken axis by axis as the maximum of strided slices. Of equal values in a window the first one,
  in row-major order, gets the whole gradient.
  """
  if pad:
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, lowest, [(0, 0, 0)] + [(pad, pad, 0)] * (x.ndim - 2) + [(0, 0, 0)])
  for axis in range(x.ndim - 2, 0, -1):
    size = (x.shape[axis] - window) // stride + 1
    taps = [lax.slice_in_dim(x, i, i + stride * (size - 1) + 1, stride, axis)
            for i in range(window)]
    x = functools.reduce(_maximum, taps)
  return x


def upsample_bilinear(x: Array) -> Array:
  """Bilinear interpolation [N,*S,C] -> [N,*2S,C], half-pixel centers, as a blend of two shifts."""
  for axis in range(1, x.ndim - 1):
    size = x.shape[axis]
    padded = jnp.concatenate([lax.slice_in_dim(x, 0, 1, axis=axis), x,
                              lax.slice_in_dim(x, size - 1, size, axis=axis)], axis)
    before = lax.slice_in_dim(padded, 0, size, axis=axis)
    after = lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    x = pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1:])
  return x


def upsample_nearest(x: Array, factor: int = 2) -> Array:
  """Every value repeated `factor` times along each axis: [N,*S,C] -> [N,*factor S,C]."""
  for axis in range(1, x.ndim - 1):
    x = jnp.repeat(x, factor, axis)
  return x


def resize_bilinear(x: Array, size: Sequence[int]) -> Array:
  """Bilinear resize [N,*S,C] -> [N,*size,C], half-pixel centers, no antialiasing."""
  return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'bilinear', antialias=False)


def pad_to_multiple(x: Array, multiple: int) -> Array:
  """Repeats the last row and column (and slice) until each axis of [N,*S,C] is a multiple.

  Cropping the result to the first S pixels undoes it; sizes that fit already are not touched.
  """
  pads = [(0, 0)] + [(0, -size % multiple) for size in x.shape[1:-1]] + [(0, 0)]
  return jnp.pad(x, pads, mode='edge') if any(after for _, after in pads) else x


def crop(x: Array, size: Sequence[int]) -> Array:
  """The first `size` pixels of [N,*S,C]."""
  return x[(slice(None), *(slice(n) for n in size))]
