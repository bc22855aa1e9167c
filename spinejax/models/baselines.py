"""Networks that SEAM and SADANet are compared with, as MMSegmentation builds them.

CCNet, PSANet, EMANet and the non-local network are a dilated ResNet with a head each; U-Net S5-D16
and the PPMU-style network are U-Nets. DANet is in `sadanet`. Parameters carry the names of
MMSegmentation's state dicts.
"""
from collections.abc import Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import layers
from spinejax.models import resnet
from spinejax.models import unet

Array = jax.Array
Dtype = Any
Outputs = dict[str, Array]


def at_image_size(maps: Outputs, image: Array, padded: Array) -> Outputs:
  """Maps [N,h,w,K] of a padded image [N,sh,sw,C], bilinearly at the size of the image itself."""
  def resize(x):
    factor = padded.shape[1] // x.shape[1]
    return layers.crop(layers.upsample_bilinear(x, factor) if factor > 1 else x,
                       image.shape[1:-1])

  return {name: resize(x) for name, x in maps.items()}


class FCNHead(nn.Module):
  """Head of a fully convolutional network: 3x3 convolutions with batch norm and ReLU, classifier.

  `concatenate` joins the input to what the convolutions make of it by one more 3x3. Takes
  [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}.
  """
  num_classes: int
  features: int = 512
  dropout: float = 0.1
  num_convs: int = 2
  concatenate: bool = True
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    y = x
    for i in range(self.num_convs):
      y = self._conv(y, f'convs_{i}', train)
      if i == 0:
        y = self._context(y, train)
    if self.concatenate:
      y = self._conv([x, y], 'conv_cat', train)
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}

  def _conv(self, x, name: str, train: bool) -> Array:
    return layers.ConvNorm(self.features, axis_name=self.axis_name, dtype=self.dtype, name=name)(
        x, train=train)

  def _context(self, x: Array, train: bool) -> Array:
    """What comes between the first convolution and the second: here nothing."""
    return x


class CCHead(FCNHead):
  """FCN head with the same criss-cross attention applied `recurrence` times."""
  query_features: int = 64
  recurrence: int = 2

  def _context(self, x: Array, train: bool) -> Array:
    attend = attention.CrissCrossAttention(self.query_features, self.dtype, name='cca')
    for _ in range(self.recurrence):
      x = attend(x)
    return x


class NLHead(FCNHead):
  """FCN head with a non-local block."""
  reduction: int = 2

  def _context(self, x: Array, train: bool) -> Array:
    return attention.NonLocal(self.reduction, axis_name=self.axis_name, dtype=self.dtype,
                              name='nl_block')(x, train=train)


class EMAHead(nn.Module):
  """Head of EMANet: y = relu(f + W relu(EM(V f))) with f the input reduced by a 3x3 convolution.

  Takes [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}. V, `ema_mid_conv`, stays as initialized:
  what the expectation maximization returns is a constant of the step, so V has no gradient.
  """
  num_classes: int
  features: int = 256
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    def conv(x, features, name, window=3, negative_slope=0.0):
      return layers.ConvNorm(features, window, negative_slope=negative_slope,
                             axis_name=self.axis_name, dtype=self.dtype, name=name)(x, train=train)

    identity = conv(x, self.ema_features, 'ema_in_conv')
    y = layers.Conv(self.ema_features, 1, dtype=self.dtype, name='ema_mid_conv')(identity)
    y = attention.ExpectationMaximization(self.num_bases, self.stages, self.momentum,
                                          self.axis_name, name='ema_module')(y, train=train)
    y = conv(nn.relu(y), self.ema_features, 'ema_out_conv', window=1, negative_slope=1.0)
    y = conv(nn.relu(identity + y), self.features, 'bottleneck')
    y = conv([x, y], self.features, 'conv_cat')
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class PSAHead(nn.Module):
  """Head of PSANet: every position collects from and distributes to a window around it.

  Takes [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}. Attention is computed on maps smaller by
  `shrink`, resized bilinearly there and back: with aligned corners and to ceil(h / shrink) where
  neither h nor w is a multiple of `shrink`, else to floor(h / shrink), but at least one pixel. As
  in MMSegmentation, whose weights need it, `proj`, a 1x1 convolution, gets its input in a border of
  zeros, and what is resized back is larger by two pixels.
  """
  num_classes: int
  features: int = 512
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    def conv(x, features, name, window=1):
      return layers.ConvNorm(features, window, axis_name=self.axis_name, dtype=self.dtype,
                             name=name)(x, train=train)

    size = x.shape[1:-1]
    align_corners = self.shrink > 1 and all(n % self.shrink for n in size)
    small = [-(-n // self.shrink) if align_corners else max(n // self.shrink, 1) for n in size]

    def attend(direction, suffix):
      y = conv(x, self.features, f'reduce{suffix}')
      y = layers.resize_bilinear(y, small, align_corners=align_corners)
      mask = conv(y, self.features, f'attention{suffix}_0')
      mask = layers.Conv(self.mask_size[0] * self.mask_size[1], 1, use_bias=False,
                         dtype=self.dtype, name=f'attention{suffix}_1')(mask)
      return attention.psa_attend(mask, y, self.mask_size, direction)

    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    collected = jnp.pad(attend('collect', ''), border)
    distributed = jnp.pad(attend('distribute', '_p'), border)
    y = conv([collected, distributed], x.shape[-1], 'proj')
    y = layers.resize_bilinear(y, size, align_corners=align_corners)
    y = conv([x, y], self.features, 'bottleneck', window=3)
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class DilatedFCN(nn.Module):
  """Fully convolutional network on a dilated ResNet: logits at stride 8, resized bilinearly.

  The last stage goes to the decode head, and in training the one before to an FCN head of its own
  (one 3x3 convolution) for an auxiliary loss. The networks below replace the decode head.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and, with `train` and
  `auxiliary`, 'aux_logits' of the same shape. An image whose size is not a multiple of
  `output_stride` is extended by its last row and column and the logits are cropped; MMSegmentation
  rounds the size of its maps up instead.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 8
  head_features: int = 512
  auxiliary: bool = True
  auxiliary_features: int = 256
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = layers.pad_to_multiple(image, self.output_stride)
    *_, middle, last = resnet.ResNet(
        self.backbone, self.backbone_width, self.output_stride, **shared, name='backbone')(
            padded, train=train)
    shared |= dict(num_classes=self.num_classes, dropout=self.dropout)
    maps = self._decode_head(**shared, features=self.head_features, name='decode_head')(
        last, train=train)
    if train and self.auxiliary:
      head = self._auxiliary_head(**shared, features=self.auxiliary_features,
                                  name='auxiliary_head')
      maps['aux_logits'] = head(middle, train=train)['logits']
    return at_image_size(maps, image, padded)

  def _decode_head(self, **fields) -> nn.Module:
    return FCNHead(**fields)

  def _auxiliary_head(self, **fields) -> nn.Module:
    return FCNHead(num_convs=1, concatenate=False, **fields)


class CCNet(DilatedFCN):
  """CCNet (Huang et al., 2019): criss-cross attention applied twice with shared parameters."""
  query_features: int = 64
  recurrence: int = 2

  def _decode_head(self, **fields) -> nn.Module:
    return CCHead(query_features=self.query_features, recurrence=self.recurrence, **fields)


class PSANet(DilatedFCN):
  """PSANet (Zhao et al., 2018): point-wise spatial attention, both ways, softmax over the mask.

  `mask_size`, odd, is the window of the attention in pixels of its map, which is smaller than the
  last stage by `shrink`; 97x97 reaches every pixel of maps up to 49x49.
  """
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2

  def _decode_head(self, **fields) -> nn.Module:
    if len(self.mask_size) != 2 or not all(n > 0 and n % 2 for n in self.mask_size):
      raise ValueError('config.model.mask_size must be two odd numbers, '
                       f'not {tuple(self.mask_size)}.')
    return PSAHead(mask_size=tuple(self.mask_size), shrink=self.shrink, **fields)


class EMANet(DilatedFCN):
  """EMANet (Li et al., 2019): features rebuilt from `num_bases` bases in `stages` EM steps."""
  head_features: int = 256
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1

  def _decode_head(self, **fields) -> nn.Module:
    return EMAHead(ema_features=self.ema_features, num_bases=self.num_bases, stages=self.stages,
                   momentum=self.momentum, **fields)


class NonLocalNet(DilatedFCN):
  """Non-local network (Wang et al., 2018): every position attends to every other."""
  reduction: int = 2

  def _decode_head(self, **fields) -> nn.Module:
    return NLHead(reduction=self.reduction, **fields)


class ConvBlock(nn.Module):
  """Two 3x3 convolutions with batch norm and ReLU; a list is the concatenation of its arrays."""
  features: int
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array | list[Array], *, train: bool) -> Array:
    conv = functools.partial(
        layers.ConvNorm, self.features, axis_name=self.axis_name, dtype=self.dtype)
    return conv(name='convs_1')(conv(name='convs_0')(x, train=train), train=train)


class InterpConv(nn.Module):
  """Bilinear doubling and a 1x1 convolution with batch norm and ReLU: [N,H,W,C] -> [N,2H,2W,F]."""
  features: int
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    return layers.ConvNorm(self.features, 1, axis_name=self.axis_name, dtype=self.dtype,
                           name='interp_upsample_1')(layers.upsample_bilinear(x), train=train)


class UpConvBlock(nn.Module):
  """Decoder stage: `upsample` doubles x [N,H,W,C], `conv_block` joins it to skip [N,2H,2W,F]."""
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, skip: Array, x: Array, *, train: bool) -> Array:
    fields = (skip.shape[-1], self.axis_name, self.dtype)
    x = InterpConv(*fields, name='upsample')(x, train=train)
    return ConvBlock(*fields, name='conv_block')([skip, x], train=train)


class UNetS5D16Backbone(nn.Module):
  """Five stages down to stride 16 and four up; no convolution has a bias.

  Takes image [N,H,W,C] with H and W multiples of 16; returns the features of the bottleneck and of
  the decoder's stages, at strides 16, 8, 4, 2 and 1, with 16, 8, 4, 2 and 1 times `features`
  channels.
  """
  features: int = 64
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> list[Array]:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    x = ConvBlock(self.features, **shared, name='encoder_0_0')(image, train=train)
    skips = []
    for stage in range(1, 5):
      skips.append(x)
      x = ConvBlock(self.features * 2 ** stage, **shared, name=f'encoder_{stage}_1')(
          layers.max_pool(x), train=train)
    stages = [x]
    for stage in reversed(range(4)):
      x = UpConvBlock(**shared, name=f'decoder_{stage}')(skips[stage], x, train=train)
      stages.append(x)
    return stages


class UNetS5D16(nn.Module):
  """U-Net S5-D16 of MMSegmentation, the "UNet" row of SADANet (Xie et al., 2023, tables I and III).

  Differs from `UNet`: bilinear doubling and a 1x1 convolution on the way up, and FCN heads of one
  3x3 convolution on the finest stage and, in training with `auxiliary`, on that at stride 2.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and in training
  'aux_logits' of the same shape. An image whose size is not a multiple of 16 is extended by its
  last row and column and the logits are cropped.
  """
  num_classes: int
  features: int = 64
  auxiliary: bool = True
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = layers.pad_to_multiple(image, 16)
    *_, half, full = UNetS5D16Backbone(self.features, **shared, name='backbone')(
        padded, train=train)
    shared |= dict(num_classes=self.num_classes, features=self.features, dropout=self.dropout,
                   num_convs=1, concatenate=False)
    maps = FCNHead(**shared, name='decode_head')(full, train=train)
    if train and self.auxiliary:
      maps['aux_logits'] = FCNHead(**shared, name='auxiliary_head')(half, train=train)['logits']
    return at_image_size(maps, image, padded)


class PyramidPooling(nn.Module):
  """Pyramid pooling (Zhao et al., 2017): means over b x b bins, b in `bins`, beside the input.

  Each is reduced to C / 4 channels by a 1x1 convolution with batch norm and ReLU and resized
  bilinearly; a 3x3 convolution with batch norm and ReLU brings them and x back to C channels. Takes
  and returns [N,H,W,C] of any size.
  """
  bins: tuple[int, ...] = (1, 2, 3, 6)
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def conv(x, features, window, name):
      return layers.ConvNorm(features, window, kernel_init=layers.kaiming_fan_in,
                             axis_name=self.axis_name, dtype=self.dtype, name=name)(x, train=train)

    *_, channels = x.shape
    pooled = [conv(layers.adaptive_average_pool(x, bins), max(channels // 4, 1), 1, f'pool_{bins}')
              for bins in self.bins]
    resized = [layers.resize_bilinear(y, x.shape[1:-1]) for y in pooled]
    return conv([x, *resized], channels, 3, 'fuse')


class PPMU(unet.UNet):
  """PPMU-style: a U-Net with `PyramidPooling` in its two deepest skip connections.

  Named after the network of Shahin et al. (ISBI 2019) in SEAM (Zhao et al., 2021, table 1). Only
  its abstract is public, which says pyramid pooling in the deep skip connections; the bins, widths
  and the choice of the 256- and 512-channel connections are ours, so its figures are not those of
  the authors' network. Takes and returns what `UNet` does, with the same fields.
  """

  def _skip(self, x: Array, level: int, train: bool) -> Array:
    if level < self.levels - 2:
      return x
    return PyramidPooling(axis_name=self.axis_name, dtype=self.dtype, name=f'pyramid_{level}')(
        x, train=train)
