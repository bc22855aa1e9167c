"""Layers of the networks, with the semantics of PyTorch.

Arrays are channels-last: [N,H,W,C] or [N,D,H,W,C], written [N,*S,C]. The parameters have the names
of Flax and, up to the order of axes, the shapes of the PyTorch modules: `kernel`
[*kernel_size,in,out] and `bias` of a convolution; `scale`, `bias`, `mean` and `var` of a norm.
"""
from collections.abc import Callable
import math
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from spinejax.models import convolutions

Array = jax.Array
Dtype = Any
Initializer = Callable[..., Array]

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
kaiming_fan_in = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
classifier_init = nn.initializers.normal(0.01)


def _add_bias(module: nn.Module, y: Array, init: Initializer = nn.initializers.zeros) -> Array:
  """y [...,F] plus a parameter `bias` [F] of the module."""
  bias = module.param('bias', init, (y.shape[-1],), jnp.float32)
  return y + jnp.expand_dims(bias.astype(y.dtype), range(y.ndim - 1))


class Conv(nn.Module):
  """Convolution y_o = sum_i k_i x_(s o + d i - p) + b: [N,*S,C] -> [N,*S',features].

  s is the stride and d the dilation. `padding` is 'symmetric' for PyTorch's p = d (kernel_size - 1)
  / 2 zeros on each side, or 'same' for TensorFlow's: ceil(n / s) outputs of n pixels, and of an odd
  number of zeros one more at the end. They differ at strides above 1 only. `dtype` is that of the
  computation; parameters are float32.
  """
  features: int
  kernel_size: int = 3
  stride: int = 1
  dilation: int = 1
  use_bias: bool = True
  padding: str = 'symmetric'
  kernel_init: Initializer = kaiming_fan_out
  bias_init: Initializer = nn.initializers.zeros
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel_size,) * (x.ndim - 2) + (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    y = self._convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    return _add_bias(self, y, self.bias_init) if self.use_bias else y

  def _convolve(self, x: Array, kernel: Array) -> Array:
    return convolutions.convolve(x, kernel, self.stride, self.dilation, self.padding)


class UpsampleConv(Conv):
  """3x3 `Conv` of the image doubled by `resizing.upsample_nearest`: [N,H,W,C] -> [N,2H,2W,F]."""

  def _convolve(self, x: Array, kernel: Array) -> Array:
    return convolutions.convolve_upsampled(x, kernel)


class DepthwiseConv(nn.Module):
  """3x3(x3) convolution of each channel by itself, without a bias: [N,*S,C] -> [N,*S,C]."""
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (3,) * (x.ndim - 2) + (1, x.shape[-1])
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    return convolutions.convolve_depthwise(x.astype(self.dtype), kernel.astype(self.dtype))


class SeparableConv(nn.Module):
  """`DepthwiseConv` followed by a 1x1 `Conv`: [N,*S,C] -> [N,*S,features]."""
  features: int
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shared = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    x = DepthwiseConv(**shared, name='depthwise')(x)
    return Conv(self.features, 1, **shared, name='pointwise')(x)


class ConvTranspose(nn.Module):
  """Transposed convolution with a 2x2(x2) kernel at stride 2: [N,*S,C] -> [N,*2S,features].

  The kernel [2,...,2,C,features] is PyTorch's, and that of `nn.ConvTranspose` flipped.
  """
  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (2,) * (x.ndim - 2) + (x.shape[-1], self.features)
    kernel = self.param('kernel', kaiming_fan_in, shape, jnp.float32)
    y = convolutions.convolve_transposed(x.astype(self.dtype), kernel.astype(self.dtype))
    return _add_bias(self, y)


class BatchNorm(nn.Module):
  """Batch norm y = scale (x - mean) / sqrt(var + epsilon) + bias over all axes but the last.

  In training mean and variance are those of the whole batch: of the global batch where it is
  sharded under `jit`, and of all devices along `axis_name` under `pmap`. Statistics are float32.
  `momentum` 0.9 of the running ones is PyTorch's 0.1. The running variance is the unbiased one, as
  in PyTorch, or without `unbiased` the biased one, as in Keras. `dtype` is that of the result.

  `input_bias` [C] is a bias of x that was not added to it, for the running mean; in training only.
  """
  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Initializer = nn.initializers.ones
  unbiased: bool = True
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool, input_bias: Array | float = 0.0) -> Array:
    features, axes = x.shape[-1], tuple(range(x.ndim - 1))
    scale = self.param('scale', self.scale_init, (features,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (features,), jnp.float32)
    x = x.astype(jnp.float32)
    if train:
      mean, square = jnp.mean(x, axes), jnp.mean(lax.square(x), axes)
      count = math.prod(x.shape[:-1])
      if self.axis_name is not None and not self.is_initializing():
        mean, square = lax.pmean((mean, square), self.axis_name)
        count *= lax.axis_size(self.axis_name)
      var = jnp.maximum(square - lax.square(mean), 0.0)
      if not self.is_initializing():
        correction = count / max(count - 1, 1) if self.unbiased else 1.0
        rest = 1 - self.momentum
        running_mean.value = self.momentum * running_mean.value + rest * (mean + input_bias)
        running_var.value = self.momentum * running_var.value + rest * (var * correction)
    else:
      mean, var = running_mean.value, running_var.value
    factor = scale * lax.rsqrt(var + self.epsilon)
    offset = bias - mean * factor
    y = x * jnp.expand_dims(factor, axes) + jnp.expand_dims(offset, axes)
    return y.astype(self.dtype)


def normalize_conv(module: type[nn.Module], norm: BatchNorm, x: Array, *, train: bool,
                   **fields: Any) -> Array:
  """norm(module(**fields, name='conv')(x)) for a convolution with a bias.

  In training the norm subtracts the bias again. So it is not added there, and only the running mean
  includes it. This saves passes over the output, and the gradient of the bias is exactly zero.
  Automatic differentiation would give rounding errors, which Adam scales up to full steps.
  """
  if not train or norm.is_initializing():
    return norm(module(**fields, name='conv')(x), train=train)
  biases = []

  def remove_bias(params: Any) -> Any:
    def visit(path: Any, leaf: Array) -> Array:
      if path[-1].key != 'bias':
        return leaf
      biases.append(leaf)
      return jnp.zeros_like(leaf)

    return jax.tree_util.tree_map_with_path(visit, params)

  y = nn.map_variables(module, 'params', remove_bias)(**fields, name='conv')(x)
  return norm(y, train=True, input_bias=biases[-1])


class ConvNorm(nn.Module):
  """Convolution, batch norm and leaky ReLU max(x, slope x): [N,*S,C] -> [N,*S,features].

  `negative_slope` 0 is ReLU and 1 leaves the activation out.
  """
  features: int
  kernel_size: int = 3
  use_bias: bool = False
  negative_slope: float = 0.0
  kernel_init: Initializer = kaiming_fan_out
  scale_init: Initializer = nn.initializers.ones
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    fields = dict(features=self.features, kernel_size=self.kernel_size,
                  kernel_init=self.kernel_init, dtype=self.dtype)
    norm = BatchNorm(self.axis_name, scale_init=self.scale_init, dtype=self.dtype, name='bn')
    if self.use_bias:
      x = normalize_conv(Conv, norm, x, train=train, **fields)
    else:
      x = norm(Conv(use_bias=False, **fields, name='conv')(x), train=train)
    if self.negative_slope == 1:
      return x
    return nn.leaky_relu(x, self.negative_slope) if self.negative_slope else nn.relu(x)


def classify(x: Array, num_classes: int, dropout: float = 0.0, *, train: bool, name: str,
             bias_init: Initializer = nn.initializers.zeros) -> Array:
  """Dropout of whole channels and a 1x1 convolution: [N,*S,C] -> logits float32 [N,*S,num_classes].

  Call it in a compact method. The module gets the convolution under `name`.
  """
  axes = tuple(range(1, x.ndim - 1))
  x = nn.Dropout(dropout, broadcast_dims=axes, deterministic=not train)(x.astype(jnp.float32))
  return Conv(num_classes, 1, kernel_init=classifier_init, bias_init=bias_init, name=name)(x)
