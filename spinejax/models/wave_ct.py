"""Panoptic FPN behind a style transfer in a wavelet autoencoder."""
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import resizing

Array = jax.Array
# The mean and the standard deviation of each channel, per level: float32 [N,2,C_l].
Style = tuple[Array, ...]

_EPSILON = 1e-5  # added to variances
_CONSTANT = 1e-6  # statistics with a smaller deviation over the styles count as constant


class WaveCT(nn.Module):
  """WaveCT-style network: a wavelet autoencoder brings an image to a known style, an FPN segments.

  Named after the network of Liu et al. (ISBI 2020) in SEAM (Zhao et al., 2021, table 1), which
  removes the shift of appearance between scanners from a test image by giving it the style of a
  training image. `autoencoder`, a `WaveletAutoencoder`, learns to reconstruct the training images
  beside the FPN. They share no parameter, so the FPN is trained exactly as `FPN`.

  Deviations: the authors build on WCT2 (Yoo et al., 2019), whose encoder has the weights of a VGG
  network trained on photographs. They use adaptive instance normalization for its whitening and
  coloring. Ours is small, learns from the images of the run, and normalizes the low-frequency codes
  of the encoder only. They select the style image by a strategy of their own. Here it is the
  training image nearest by `nearest_style`. So our figures are not those of their network.

  Takes image [N,H,W,C], normalized, of any size. Returns {'logits': float32 [N,H,W,K]} of the image
  or, with a `style`, of the image transferred to it. In training it also returns
  {'reconstruction_residual': float32 [N,H,W,C]}, the reconstruction minus the image.

  `style_transfer` says whether a trained network is tested and used with the transfer; the network
  itself transfers only where it is given a style. The fields from `backbone` to `dropout` are those
  of `FPN`.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 32
  neck_features: int = 256
  head_features: int = 128
  dropout: float = 0.1
  autoencoder_features: int = 32
  levels: int = 3
  style_transfer: bool = True
  axis_name: str | None = None
  dtype: Any = jnp.float32
  size_multiple: ClassVar[int] = 32

  def setup(self):
    if self.levels < 1:
      raise ValueError(f'config.model.levels must be at least 1, not {self.levels}.')
    self.autoencoder = WaveletAutoencoder(self.autoencoder_features, self.levels, self.dtype)
    self.segmenter = fpn.FPN(
        self.num_classes, self.backbone, self.backbone_width, self.output_stride,
        self.neck_features, self.head_features, self.dropout, self.axis_name, self.dtype)
    nn.share_scope(self, self.segmenter)  # its parameters stand beside `autoencoder`

  def __call__(self, image: Array, *, train: bool, style: Style | None = None) -> dict[str, Array]:
    if style is not None:
      image = self.transfer(image, style)
    outputs = self.segmenter(image, train=train)
    if train:
      reconstruction, _ = self.autoencoder(image)
      outputs['reconstruction_residual'] = reconstruction - image
    return outputs

  def transfer(self, image: Array, style: Style) -> Array:
    """The image [N,H,W,C] in a style, float32 [N,H,W,C]; with its own style the reconstruction."""
    return self.autoencoder(image, style)[0]

  def style_statistics(self, image: Array) -> Style:
    """The style of images [N,H,W,C]: `statistics` of the low-frequency code of every level."""
    return tuple(statistics(code) for code in self.autoencoder(image)[1])


class WaveletAutoencoder(nn.Module):
  """Autoencoder with Haar pooling, after WCT2 (Yoo et al., 2019).

  Each level is a 3x3 convolution, ReLU and `haar_pool`. The next level reads LL. The decoder reads
  LH, HL and HH and reverses the levels with `haar_unpool`, the exact inverse. The last convolution
  has no ReLU. The width doubles with each level, from `features`.

  Takes image [N,H,W,C] and, for a transfer, the style that `adapt` gives to the LL of every level.
  Returns the reconstruction, float32 [N,H,W,C], and the LL of every level l,
  [N,h/2^(l+1),w/2^(l+1),2^l features]. An image whose size is not a multiple of 2^levels is
  extended by its last row and column to h x w, and the reconstruction is cropped.
  """
  features: int = 32
  levels: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Array, style: Style | None = None) -> tuple[Array, list[Array]]:
    def conv(features, name, dtype=self.dtype):
      return layers.Conv(features, kernel_init=layers.kaiming_fan_in, dtype=dtype, name=name)

    x = resizing.pad_to_multiple(image, 2 ** self.levels)
    codes, details = [], []
    for level in range(self.levels):
      x = nn.relu(conv(self.features * 2 ** level, f'encoder_{level}')(x))
      x, *detail = haar_pool(x)
      if style is not None:
        x = adapt(x, style[level])
      codes.append(x)
      details.append(detail)
    for level in reversed(range(1, self.levels)):
      x = haar_unpool(x, *details[level])
      x = nn.relu(conv(self.features * 2 ** (level - 1), f'decoder_{level}')(x))
    x = haar_unpool(x, *details[0])
    x = conv(image.shape[-1], 'decoder_0', jnp.float32)(x)
    return resizing.crop(x, image.shape[1:-1]), codes


def haar_pool(x: Array) -> tuple[Array, Array, Array, Array]:
  """LL, LH, HL and HH of [N,H,W,C], each [N,H/2,W/2,C]: the orthonormal Haar transform.

  The filter of LH, at stride 2, is low = [1, 1] / sqrt 2 along the rows axis times
  high = [-1, 1] / sqrt 2 along the columns axis, and so on. H and W must be even.
  """
  a, b, c, d = (x[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
  return (a + b + c + d) / 2, (b - a + d - c) / 2, (c - a + d - b) / 2, (a - b - c + d) / 2


def haar_unpool(ll: Array, lh: Array, hl: Array, hh: Array) -> Array:
  """Sum of the four transposed filters of `haar_pool`, its inverse: [N,h,w,C] -> [N,2h,2w,C]."""
  a, b = (ll - lh - hl + hh) / 2, (ll + lh - hl - hh) / 2
  c, d = (ll - lh + hl - hh) / 2, (ll + lh + hl + hh) / 2
  n, h, w, channels = ll.shape
  pixels = jnp.stack([jnp.stack([a, b], 3), jnp.stack([c, d], 3)], 2)
  return pixels.reshape(n, 2 * h, 2 * w, channels)


def statistics(code: Array) -> Array:
  """Mean and standard deviation sqrt(var + 1e-5) over positions: [N,h,w,C] -> float32 [N,2,C]."""
  code = code.astype(jnp.float32)
  axes = (1, 2)
  return jnp.stack([jnp.mean(code, axes), jnp.sqrt(jnp.var(code, axes) + _EPSILON)], 1)


def adapt(code: Array, style: Array) -> Array:
  """Adaptive instance normalization sd' (x - mean) / sd + mean' (Huang and Belongie, 2017).

  Takes code [N,h,w,C] and style [N,2,C] with mean' and sd' as in `statistics`; keeps shape and
  dtype. The code's own statistics do not change it. A constant channel becomes mean'.
  """
  (mean, sd), (style_mean, style_sd) = (
      jnp.moveaxis(x, 1, 0)[:, :, None, None] for x in (statistics(code), style))
  return ((code.astype(jnp.float32) - mean) * (style_sd / sd) + style_mean).astype(code.dtype)


def nearest_style(styles: Style, own: Style) -> Array:
  """Index int32 [N] of the style in `styles` [M,2,C_l] that is nearest to each of `own` [N,2,C_l].

  The distance is Euclidean over the statistics of all levels, each divided by its standard
  deviation over `styles`. Statistics that are constant there are ignored. Of equal distances the
  first one counts.
  """
  styles, own = (jnp.concatenate([x.reshape(x.shape[0], -1) for x in style], -1)
                 for style in (styles, own))
  spread = jnp.std(styles, 0)
  weight = jnp.where(spread > _CONSTANT, 1 / jnp.maximum(spread, _CONSTANT), 0.0)
  steps = (own[:, None] - styles[None]) * weight[None, None]
  return jnp.argmin(jnp.sum(jnp.square(steps), -1), -1).astype(jnp.int32)
