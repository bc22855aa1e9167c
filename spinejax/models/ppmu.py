"""PPMU-style network: a U-Net with pyramid pooling in its deepest skip connections."""
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing


class PyramidPooling(nn.Module):
  """Pyramid pooling (Zhao et al., 2017): means over b x b bins, b in `bins`, beside the input.

  Each is reduced to C / 4 channels by a 1x1 convolution with batch norm and ReLU and resized
  bilinearly. A 3x3 convolution with batch norm and ReLU brings them and x back to C channels. Takes
  and returns [N,H,W,C] of any size.
  """
  bins: tuple[int, ...] = (1, 2, 3, 6)
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    def conv(x, features, kernel_size, name):
      return layers.ConvNorm(features, kernel_size, kernel_init=layers.kaiming_fan_in,
                             axis_name=self.axis_name, dtype=self.dtype, name=name)(x, train=train)

    channels = x.shape[-1]
    parts = [x]
    for bins in self.bins:
      y = resizing.adaptive_average_pool(x, bins)
      y = conv(y, max(channels // 4, 1), 1, f'pool_{bins}')
      parts.append(resizing.resize_bilinear(y, x.shape[1:-1]))
    return conv(jnp.concatenate(parts, -1), channels, 3, 'fuse')


class PPMU(nn.Module):
  """`UNet` with `PyramidPooling` in its two deepest skip connections.

  Named after the network of Shahin et al. (ISBI 2019) in SEAM (Zhao et al., 2021, table 1). Only
  its abstract is public, which says pyramid pooling in the deep skip connections. The bins, the
  widths and the choice of the 256- and 512-channel connections are ours, so its figures are not
  those of the authors' network. Takes and returns what `UNet` does.
  """
  num_classes: int
  features: int = 64
  levels: int = 4
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def size_multiple(self) -> int:
    return 2 ** self.levels

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    conv = functools.partial(layers.ConvNorm, use_bias=True, kernel_init=layers.kaiming_fan_in,
                             **shared)
    x = resizing.pad_to_multiple(image, self.size_multiple)
    skips = []
    for level in range(self.levels):
      for part in (1, 2):
        x = conv(features=self.features * 2 ** level,
                 name=f'encoder_{level}_{part}')(x, train=train)
      skip = x
      if level >= self.levels - 2:
        skip = PyramidPooling(**shared, name=f'pyramid_{level}')(skip, train=train)
      skips.append(skip)
      x = resizing.max_pool(x)
    for part in (1, 2):
      x = conv(features=self.features * 2 ** self.levels,
               name=f'encoder_{self.levels}_{part}')(x, train=train)
    for level in reversed(range(self.levels)):
      features = self.features * 2 ** level
      x = layers.ConvTranspose(features, dtype=self.dtype, name=f'upsample_{level}')(x)
      x = jnp.concatenate([skips[level], x], -1)
      for part in (1, 2):
        x = conv(features=features, name=f'decoder_{level}_{part}')(x, train=train)
    logits = layers.classify(x, self.num_classes, train=train, name='classifier')
    return {'logits': resizing.crop(logits, image.shape[1:-1])}
