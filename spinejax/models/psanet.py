"""PSANet: point-wise spatial attention on a dilated ResNet."""
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import dilated
from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models import resnet


class PSAHead(nn.Module):
  """Head of PSANet: every position collects from and distributes to a window around it.

  Takes [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}. Attention is computed on maps smaller by
  `shrink`, resized bilinearly there and back. If neither h nor w is a multiple of `shrink`, the
  corners are aligned and the size is ceil(h / shrink); otherwise it is floor(h / shrink), at least
  one pixel. As in MMSegmentation, `proj` reads its input with a border of zeros, so that what is
  resized back is larger by two pixels.
  """
  num_classes: int
  features: int = 512
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    def conv(x, features, name, kernel_size=1):
      return layers.ConvNorm(features, kernel_size, axis_name=self.axis_name, dtype=self.dtype,
                             name=name)(x, train=train)

    size = x.shape[1:-1]
    align_corners = self.shrink > 1 and all(n % self.shrink for n in size)
    small = [-(-n // self.shrink) if align_corners else max(n // self.shrink, 1) for n in size]

    def attend(direction, suffix):
      y = conv(x, self.features, f'reduce{suffix}')
      y = resizing.resize_bilinear(y, small, align_corners=align_corners)
      mask = conv(y, self.features, f'attention{suffix}_0')
      mask = layers.Conv(self.mask_size[0] * self.mask_size[1], 1, use_bias=False,
                         dtype=self.dtype, name=f'attention{suffix}_1')(mask)
      y = attention.psa_attend(mask, y, self.mask_size, direction)
      return jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))

    y = jnp.concatenate([attend('collect', ''), attend('distribute', '_p')], -1)
    y = conv(y, x.shape[-1], 'proj')
    y = resizing.resize_bilinear(y, size, align_corners=align_corners)
    y = conv(jnp.concatenate([x, y], -1), self.features, 'bottleneck', kernel_size=3)
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class PSANet(nn.Module):
  """PSANet (Zhao et al., 2018): point-wise spatial attention, both ways, softmax over the mask.

  `mask_size`, two odd numbers, is the window of the attention in pixels of its map, which is
  smaller than the last stage by `shrink`; 97x97 reaches every pixel of maps up to 49x49.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and, in training with
  `auxiliary`, 'aux_logits'; see `dilated.segment`.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 8
  head_features: int = 512
  mask_size: Sequence[int] = (97, 97)
  shrink: int = 2
  auxiliary: bool = True
  auxiliary_features: int = 256
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def size_multiple(self) -> int:
    return self.output_stride

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    if len(self.mask_size) != 2 or not all(n > 0 and n % 2 for n in self.mask_size):
      raise ValueError('config.model.mask_size must be two odd numbers, '
                       f'not {tuple(self.mask_size)}.')
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    backbone = resnet.ResNet(self.backbone, self.backbone_width, self.output_stride, **shared,
                             name='backbone')
    shared |= dict(num_classes=self.num_classes, dropout=self.dropout)
    decode_head = PSAHead(
        features=self.head_features, mask_size=tuple(self.mask_size), shrink=self.shrink, **shared,
        name='decode_head')
    auxiliary_head = dilated.FCNHead(
        features=self.auxiliary_features, **shared, name='auxiliary_head')
    return dilated.segment(image, backbone, decode_head,
                           auxiliary_head if self.auxiliary else None, train=train)
