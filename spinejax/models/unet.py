"""U-Nets in two or three dimensions; the rank of the image decides."""
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing


class UNet(nn.Module):
  """U-Net (Ronneberger et al., 2015) as RSN-U-net (Huang et al., 2020, section II.A) uses it.

  An encoder of `levels` stages (two 3x3 convolutions with batch norm and ReLU, 2x2 max-pooling), a
  bottleneck, a decoder of as many stages (2x2 transposed convolution, concatenation with the
  encoder's features, two convolutions) and a 1x1 classifier. The width doubles with each stage,
  from `features`.

  Takes image [N,H,W,C] or [N,D,H,W,C], normalized; returns {'logits': float32 [N,(D,)H,W,K]}.

  `upsample` is 'transpose', or 'nearest' to repeat pixels instead of the transposed convolution.
  `negative_slope` is that of leaky ReLUs. `dropout` of single values follows every pooling and
  upsampling in training. `prior` is the probability of the foreground before training, set by the
  classifier's bias; for one class (Lin et al., Focal loss, 2017, section 4.1). With 0.4 %
  foreground, training from 0.5 spends hundreds of steps on learning the background. `pooled_skips`
  is the number of the deepest skip connections that pass through `PyramidPooling`, in 2-D only.

  C-U-net is features 64, levels 3, 'nearest', dropout 0.125 and slope 0.01 on volumes. Every
  convolution has a bias, also before a batch norm.

  Deviations: the paper crops the encoder's features. Here convolutions are padded, and an image
  whose size is not a multiple of 2^levels is extended by its last row and column and the logits
  are cropped. The paper names neither batch norm nor the kind of upsampling.
  """
  num_classes: int
  features: int = 64
  levels: int = 4
  upsample: str = 'transpose'
  negative_slope: float = 0.0
  dropout: float = 0.0
  prior: float = 0.5
  pooled_skips: int = 0
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def size_multiple(self) -> int:
    return 2 ** self.levels

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    if self.upsample not in ('transpose', 'nearest'):
      raise ValueError("config.model.upsample must be 'transpose' or 'nearest', "
                       f'not {self.upsample!r}.')
    if not 0 < self.prior < 1 or (self.num_classes > 1 and self.prior != 0.5):
      raise ValueError('config.model.prior must be above 0 and below 1, and 0.5 with several '
                       f'classes, not {self.prior}.')
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = resizing.pad_to_multiple(image, self.size_multiple)
    skips = []
    for level in range(self.levels):
      x = self._convolve(x, level, 'encoder', train)
      skip = x
      if level >= self.levels - self.pooled_skips:
        skip = PyramidPooling(axis_name=self.axis_name, dtype=self.dtype,
                              name=f'pyramid_{level}')(x, train=train)
      skips.append(skip)
      x = drop(resizing.max_pool(x))
    x = self._convolve(x, self.levels, 'encoder', train)
    for level in reversed(range(self.levels)):
      if self.upsample == 'transpose':
        x = layers.ConvTranspose(self.features * 2 ** level, dtype=self.dtype,
                                 name=f'upsample_{level}')(x)
      else:
        x = resizing.upsample_nearest(x)
      x = jnp.concatenate([skips[level], drop(x)], -1)
      x = self._convolve(x, level, 'decoder', train)
    bias_init = nn.initializers.constant(math.log(self.prior / (1 - self.prior)))
    logits = layers.classify(x, self.num_classes, train=train, name='classifier',
                             bias_init=bias_init)
    return {'logits': resizing.crop(logits, image.shape[1:-1])}

  def _convolve(self, x: jax.Array, level: int, side: str, train: bool) -> jax.Array:
    """The two convolutions of a stage."""
    for part in (1, 2):
      x = layers.ConvNorm(
          self.features * 2 ** level, use_bias=True, negative_slope=self.negative_slope,
          kernel_init=layers.kaiming_fan_in, axis_name=self.axis_name, dtype=self.dtype,
          name=f'{side}_{level}_{part}')(x, train=train)
    return x


class PPMU(nn.Module):
  """PPMU-style network: `UNet` with `PyramidPooling` in its two deepest skip connections.

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

  def setup(self):
    self.network = UNet(self.num_classes, self.features, self.levels, pooled_skips=2,
                        axis_name=self.axis_name, dtype=self.dtype)
    nn.share_scope(self, self.network)  # its parameters have no prefix

  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    return self.network(image, train=train)


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
      y = conv(resizing.adaptive_average_pool(x, bins), max(channels // 4, 1), 1, f'pool_{bins}')
      parts.append(resizing.resize_bilinear(y, x.shape[1:-1]))
    return conv(jnp.concatenate(parts, -1), channels, 3, 'fuse')
