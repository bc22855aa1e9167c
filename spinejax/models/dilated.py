"""Networks with a head on a dilated ResNet: CCNet, PSANet, EMANet and the non-local network.

They are baselines of SEAM and SADANet, built as in MMSegmentation. Their parameters have the names
of its state dicts. SADANet and DANet are in `sadanet`.
"""
from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models import resnet

Array = jax.Array
Outputs = dict[str, Array]


def at_image_size(maps: Outputs, image: Array, padded: Array) -> Outputs:
  """Resizes maps [N,h,w,K] of a padded image bilinearly and crops them to the image."""
  def resize(x: Array) -> Array:
    factor = padded.shape[1] // x.shape[1]
    x = resizing.upsample_bilinear(x, factor) if factor > 1 else x
    return resizing.crop(x, image.shape[1:-1])

  return {name: resize(x) for name, x in maps.items()}


class DilatedNetwork(nn.Module):
  """The fields and the frame of a network with a head on a dilated ResNet.

  Takes image [N,H,W,C], normalized. Returns the maps of the decode head, which reads the last stage
  of the ResNet, and with `auxiliary` 'aux_logits' of a head on the stage before, in training and
  where 'intermediates' are collected; all float32 [N,H,W,K]. An image whose size is not a multiple
  of the output stride is extended by its last row and column, and the maps are cropped.
  MMSegmentation rounds their size up instead.
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
  dtype: Any = jnp.float32

  @property
  def size_multiple(self) -> int:
    return self.output_stride

  def segment(self, image: Array, head: Callable[..., nn.Module],
              auxiliary_head: Callable[..., nn.Module] | None = None, *, train: bool) -> Outputs:
    """The frame; call it in a compact method with the types of the heads; None is `FCNHead`."""
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = resizing.pad_to_multiple(image, self.output_stride)
    *_, middle, last = resnet.ResNet(self.backbone, self.backbone_width, self.output_stride,
                                     **shared, name='backbone')(padded, train=train)
    shared |= dict(num_classes=self.num_classes, dropout=self.dropout)
    maps = head(features=self.head_features, **shared, name='decode_head')(last, train=train)
    collected = self.is_mutable_collection('intermediates') and not self.is_initializing()
    if self.auxiliary and (train or collected):
      auxiliary = (auxiliary_head or FCNHead)(
          features=self.auxiliary_features, **shared, name='auxiliary_head')
      maps['aux_logits'] = auxiliary(middle, train=train)['logits']
    return at_image_size(maps, image, padded)


class Head(nn.Module):
  """The fields and layers of all heads: [N,h,w,C] -> {'logits': float32 [N,h,w,K]}."""
  num_classes: int
  features: int
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  def conv(self, x: Array, name: str, features: int | None = None, kernel_size: int = 3,
           negative_slope: float = 0.0, *, train: bool) -> Array:
    """`ConvNorm` to `features` channels, else as many as the head has."""
    return layers.ConvNorm(
        features or self.features, kernel_size, negative_slope=negative_slope,
        axis_name=self.axis_name, dtype=self.dtype, name=name)(x, train=train)

  def join(self, x: Array, y: Array, name: str = 'conv_cat', *, train: bool) -> Array:
    """`conv` of the input and a result side by side."""
    return self.conv(jnp.concatenate([x, y], -1), name, train=train)

  def classify(self, x: Array, name: str = 'conv_seg', *, train: bool) -> Array:
    return layers.classify(x, self.num_classes, self.dropout, train=train, name=name)


class FCNHead(Head):
  """3x3 convolution and a classifier. The auxiliary head of every network here."""

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    return {'logits': self.classify(self.conv(x, 'convs_0', train=train), train=train)}


class CCHead(Head):
  """The same criss-cross attention applied `recurrence` times between two 3x3 convolutions.

  A third convolution reads the input and the result.
  """
  query_features: int = 64
  recurrence: int = 2

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    y = self.conv(x, 'convs_0', train=train)
    attend = attention.CrissCrossAttention(self.query_features, self.dtype, name='cca')
    for _ in range(self.recurrence):
      y = attend(y)
    y = self.join(x, self.conv(y, 'convs_1', train=train), train=train)
    return {'logits': self.classify(y, train=train)}


class CCNet(DilatedNetwork):
  """CCNet (Huang et al., 2019): criss-cross attention applied twice with shared parameters."""
  query_features: int = 64
  recurrence: int = 2

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    head = functools.partial(
        CCHead, query_features=self.query_features, recurrence=self.recurrence)
    return self.segment(image, head, train=train)


class NonLocalHead(Head):
  """A non-local block between two 3x3 convolutions; a third reads the input and the result."""
  reduction: int = 2

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    y = self.conv(x, 'convs_0', train=train)
    y = attention.NonLocal(self.reduction, axis_name=self.axis_name, dtype=self.dtype,
                           name='nl_block')(y, train=train)
    y = self.join(x, self.conv(y, 'convs_1', train=train), train=train)
    return {'logits': self.classify(y, train=train)}


class NonLocalNet(DilatedNetwork):
  """Non-local network (Wang et al., 2018): every position attends to every other."""
  reduction: int = 2

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    head = functools.partial(NonLocalHead, reduction=self.reduction)
    return self.segment(image, head, train=train)


class EMAHead(Head):
  """Head of EMANet: y = relu(f + W relu(EM(V f))) with f the input reduced by a 3x3 convolution.

  V, `ema_mid_conv`, stays as initialized: `attention.ExpectationMaximization` returns a constant of
  the step, so V has no gradient.
  """
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    identity = self.conv(x, 'ema_in_conv', self.ema_features, train=train)
    y = layers.Conv(self.ema_features, 1, dtype=self.dtype, name='ema_mid_conv')(identity)
    y = attention.ExpectationMaximization(self.num_bases, self.stages, self.momentum,
                                          self.axis_name, name='ema_module')(y, train=train)
    y = self.conv(nn.relu(y), 'ema_out_conv', self.ema_features, 1, 1.0, train=train)
    y = self.conv(nn.relu(identity + y), 'bottleneck', train=train)
    return {'logits': self.classify(self.join(x, y, train=train), train=train)}


class EMANet(DilatedNetwork):
  """EMANet (Li et al., 2019): features rebuilt from `num_bases` bases in `stages` EM steps."""
  head_features: int = 256
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    head = functools.partial(EMAHead, ema_features=self.ema_features, num_bases=self.num_bases,
                             stages=self.stages, momentum=self.momentum)
    return self.segment(image, head, train=train)


class PSAHead(Head):
  """Head of PSANet: every position collects from and distributes to a window around it.

  Attention is computed on maps smaller by `shrink`, resized bilinearly there and back. If neither h
  nor w is a multiple of `shrink`, the corners are aligned and the size is ceil(h / shrink);
  otherwise it is floor(h / shrink), at least one pixel. As in MMSegmentation, `proj` reads its
  input with a border of zeros, so that what is resized back is larger by two pixels.
  """
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    size = x.shape[1:-1]
    align_corners = self.shrink > 1 and all(n % self.shrink for n in size)
    small = [-(-n // self.shrink) if align_corners else max(n // self.shrink, 1) for n in size]

    def attend(direction, suffix):
      y = self.conv(x, f'reduce{suffix}', kernel_size=1, train=train)
      y = resizing.resize_bilinear(y, small, align_corners=align_corners)
      mask = self.conv(y, f'attention{suffix}_0', kernel_size=1, train=train)
      mask = layers.Conv(self.mask_size[0] * self.mask_size[1], 1, use_bias=False,
                         dtype=self.dtype, name=f'attention{suffix}_1')(mask)
      self.sow('intermediates', direction, mask)
      y = attention.psa_attend(mask, y, self.mask_size, direction)
      return jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))

    y = jnp.concatenate([attend('collect', ''), attend('distribute', '_p')], -1)
    y = self.conv(y, 'proj', x.shape[-1], 1, train=train)
    y = resizing.resize_bilinear(y, size, align_corners=align_corners)
    return {'logits': self.classify(self.join(x, y, 'bottleneck', train=train), train=train)}


class PSANet(DilatedNetwork):
  """PSANet (Zhao et al., 2018): point-wise spatial attention, both ways, softmax over the mask.

  `mask_size`, two odd numbers, is the window of the attention in pixels of its map, which is
  smaller than the last stage by `shrink`. 97x97 reaches every pixel of maps up to 49x49.
  """
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> Outputs:
    if len(self.mask_size) != 2 or not all(n > 0 and n % 2 for n in self.mask_size):
      raise ValueError('config.model.mask_size must be two odd numbers, '
                       f'not {tuple(self.mask_size)}.')
    head = functools.partial(PSAHead, mask_size=tuple(self.mask_size), shrink=self.shrink)
    return self.segment(image, head, train=train)
