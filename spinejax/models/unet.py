"""U-Net in two or three dimensions: one code, the rank of the image decides."""
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers


class UNet(nn.Module):
  """U-Net (Ronneberger et al., 2015) as RSN-U-net (Huang et al., 2020, section II.A) uses it.

  An encoder of `levels` stacks (two 3x3 convolutions with batch norm and ReLU, 2x2 max-pool), a
  bottleneck, a decoder of as many (2x2 transposed convolution, the encoder's features
  concatenated, two convolutions) and a 1x1 classifier; the width doubles from `features` down.

  Takes image [N,H,W,C] or [N,D,H,W,C], normalized; returns {'logits': float32 [N,(D,)H,W,K]}.

  Every convolution has a bias, also those before a batch norm. `upsample='nearest'` repeats pixels
  instead of the transposed convolution; `dropout` (of single values, training only) follows every
  pooling and upsampling; `negative_slope` makes the ReLUs leaky. C-U-net is features 64, levels 3,
  'nearest', 0.125 and 0.01 on volumes.

  `prior` is the probability of a bone before training, in the bias of the classifier of a binary
  problem (Lin et al., Focal loss, 2017, section 4.1). Where bones are 0.4 % of the voxels, starting
  at one half spends the first hundreds of steps on taking the background away.

  Deviations: the paper crops the encoder's features; here convolutions are padded, and an image
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
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    if self.upsample not in ('transpose', 'nearest'):
      raise ValueError("config.model.upsample must be 'transpose' or 'nearest', "
                       f'not {self.upsample!r}.')
    if not 0 < self.prior < 1 or (self.num_classes > 1 and self.prior != 0.5):
      raise ValueError('config.model.prior must be above 0 and below 1, and 0.5 with several '
                       f'classes, not {self.prior}.')
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = layers.pad_to_multiple(image, 2 ** self.levels)
    skips = []
    for level in range(self.levels):
      x = self._stack(x, level, 'encoder', train)
      skips.append(self._skip(x, level, train))
      x = drop(layers.max_pool(x))
    x = self._stack(x, self.levels, 'encoder', train)
    for level in reversed(range(self.levels)):
      if self.upsample == 'transpose':
        x = layers.ConvTranspose(self.features * 2 ** level, dtype=self.dtype,
                                 name=f'upsample_{level}')(x)
      else:
        x = layers.upsample_nearest(x)
      x = self._stack([skips[level], drop(x)], level, 'decoder', train)
    bias_init = nn.initializers.constant(math.log(self.prior / (1 - self.prior)))
    logits = layers.classify(x, self.num_classes, train=train, name='classifier',
                             bias_init=bias_init)
    return {'logits': layers.crop(logits, image.shape[1:-1])}

  def _skip(self, x: jax.Array, level: int, train: bool) -> jax.Array:
    """What the decoder reads of the encoder's features at one level: here themselves."""
    return x

  def _stack(self, x, level: int, side: str, train: bool) -> jax.Array:
    """Two convolutions at one level; a list is the concatenation of its arrays."""
    for part in (1, 2):
      x = layers.ConvNorm(
          self.features * 2 ** level, use_bias=True, negative_slope=self.negative_slope,
          kernel_init=layers.kaiming_fan_in, axis_name=self.axis_name, dtype=self.dtype,
          name=f'{side}_{level}_{part}')(x, train=train)
    return x
