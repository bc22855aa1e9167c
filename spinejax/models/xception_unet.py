"""The Xception-style U-Net of Keras' segmentation example."""
import functools
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
    conv_norm = functools.partial(
        ConvNorm, momentum=self.momentum, axis_name=self.axis_name, dtype=self.dtype)
    project = functools.partial(
        layers.Conv, kernel_size=1, kernel_init=_glorot, dtype=self.dtype)

    def block(x, features, name):
      """Twice ReLU, convolution and batch norm; the convolutions of the encoder are separable."""
      for part in (1, 2):
        x = conv_norm(features, separable=name.startswith('encoder'), name=f'{name}_{part}')(
            nn.relu(x), train=train)
      return x

    x = resizing.pad_to_multiple(image, self.size_multiple)
    x = nn.relu(conv_norm(self.features, stride=2, name='entry')(x, train=train))
    for level in range(1, self.levels + 1):
      name, features = f'encoder_{level}', self.features * 2 ** level
      x = (resizing.max_pool(block(x, features, name), 3, 2, padding='same')
           + project(features, stride=2, name=f'{name}_residual')(x))
    for level in reversed(range(self.levels + 1)):
      name, features = f'decoder_{level}', self.features * 2 ** level
      x = block(x, features, name) + project(features, name=f'{name}_residual')(x)
      x = resizing.upsample_nearest(x) if level else x
    logits = layers.UpsampleConv(self.num_classes, kernel_init=_glorot, name='classifier')(x)
    return {'logits': resizing.crop(logits, image.shape[1:-1])}


class ConvNorm(nn.Module):
  """3x3 convolution with a bias, separable or not, and batch norm, as in Keras.

  [N,h,w,C] -> [N,ceil(h/stride),ceil(w/stride),features]. A separable one has stride 1.
  """
  features: int
  stride: int = 1
  separable: bool = False
  momentum: float = 0.99
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    norm = layers.BatchNorm(self.axis_name, momentum=self.momentum, epsilon=1e-3, unbiased=False,
                            dtype=self.dtype, name='bn')
    shared = dict(features=self.features, kernel_init=_glorot, dtype=self.dtype)
    if self.separable:
      return layers.normalize_conv(layers.SeparableConv, norm, x, train=train, **shared)
    return layers.normalize_conv(layers.Conv, norm, x, train=train, stride=self.stride,
                                 padding='same', **shared)
