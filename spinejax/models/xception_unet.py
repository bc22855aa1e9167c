"""The Xception-style U-Net of Keras' segmentation example."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing

_glorot = nn.initializers.glorot_uniform()


class XceptionUNet(nn.Module):
  """X-ray U-Net (Selvia, section II.C): Keras' Xception-style U-Net (Chollet, 2020).

  An entry convolution of `features` channels at stride 2. Then `levels` encoder blocks of two
  separable convolutions and a 3x3 max-pooling at stride 2, where the width doubles, and
  `levels` + 1 decoder blocks of two 3x3 convolutions and nearest doubling, where it halves. A 1x1
  convolution of the input of each block is added to its output. There are no skip connections from
  the encoder to the decoder.

  Takes image [N,H,W,C]; returns {'logits': float32 [N,H,W,K]}. Keras feeds gray levels 0 to 255.

  Keras counts 2,059,268 numbers with 3 channels and 4 classes: 2,055,492 parameters and 3,776
  running means and variances (3 classes: 2,058,979).

  Layers have Keras' initializers (Glorot uniform, zero biases), 'same' padding and batch norm
  (epsilon 1e-3, `momentum` 0.99, the biased running variance of Keras 3; TensorFlow 2 keeps the
  unbiased one, here at most 1/299 larger). The transposed convolutions of Keras' decoder have
  stride 1. They are convolutions with a flipped kernel, and written as such. A decoder block adds
  before it upsamples, which equals upsampling both terms at a quarter of the cost.

  With momentum 0.99 the initial variances of 1 still dominate after 300 steps, and the network
  predicts background. Runs of a few hundred steps need 0.9.

  Deviations: an image whose size is not a multiple of 2^(levels + 1) is extended by its last row
  and column, and the logits are cropped. The paper says 150x150, which Keras' network does not
  accept; its code has 160x160.
  """
  num_classes: int
  features: int = 32
  levels: int = 3
  momentum: float = 0.99
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def size_multiple(self) -> int:
    return 2 ** (self.levels + 1)

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    x = resizing.pad_to_multiple(image, self.size_multiple)
    x = nn.relu(self._norm(self.features, 2, False, 'entry')(x, train=train))
    for level in range(1, self.levels + 1):
      block = self._block(x, level, 'encoder', train)
      x = resizing.max_pool(block, 3, 2, padding='same') + self._project(x, level, 'encoder', 2)
    for level in reversed(range(self.levels + 1)):
      x = self._block(x, level, 'decoder', train) + self._project(x, level, 'decoder', 1)
      x = resizing.upsample_nearest(x) if level else x
    logits = layers.UpsampleConv(self.num_classes, kernel_init=_glorot, name='classifier')(x)
    return {'logits': resizing.crop(logits, image.shape[1:-1])}

  def _block(self, x: jax.Array, level: int, side: str, train: bool) -> jax.Array:
    """Twice ReLU, convolution and batch norm: [N,h,w,C] -> [N,h,w,2^level features]."""
    for part in (1, 2):
      x = self._norm(self.features * 2 ** level, 1, side == 'encoder', f'{side}_{level}_{part}')(
          nn.relu(x), train=train)
    return x

  def _norm(self, features: int, stride: int, separable: bool, name: str) -> 'ConvNorm':
    return ConvNorm(features, stride, separable, self.momentum, self.axis_name, self.dtype,
                    name=name)

  def _project(self, x: jax.Array, level: int, side: str, stride: int) -> jax.Array:
    return layers.Conv(self.features * 2 ** level, 1, stride, kernel_init=_glorot,
                       dtype=self.dtype, name=f'{side}_{level}_residual')(x)


class ConvNorm(nn.Module):
  """3x3 convolution with a bias, separable or not, and batch norm, as in Keras.

  [N,h,w,C] -> [N,ceil(h/stride),ceil(w/stride),features]. A separable one has stride 1.
  """
  features: int
  stride: int
  separable: bool
  momentum: float
  axis_name: str | None
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    norm = layers.BatchNorm(self.axis_name, momentum=self.momentum, epsilon=1e-3, unbiased=False,
                            dtype=self.dtype, name='bn')
    shared = dict(features=self.features, kernel_init=_glorot, dtype=self.dtype)
    if self.separable:
      return layers.normalize_conv(layers.SeparableConv, norm, x, train=train, **shared)
    return layers.normalize_conv(layers.Conv, norm, x, train=train, stride=self.stride,
                                 padding='same', **shared)
