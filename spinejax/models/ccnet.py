"""CCNet: criss-cross attention on a dilated ResNet."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import dilated
from spinejax.models import layers
from spinejax.models import resnet


class CCHead(nn.Module):
  """The same criss-cross attention applied `recurrence` times between two 3x3 convolutions.

  A third convolution reads the input and the result. Takes [N,h,w,C]; returns {'logits': float32
  [N,h,w,K]}.
  """
  num_classes: int
  features: int = 512
  query_features: int = 64
  recurrence: int = 2
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    def conv(x, name):
      return layers.ConvNorm(self.features, axis_name=self.axis_name, dtype=self.dtype, name=name)(
          x, train=train)

    y = conv(x, 'convs_0')
    attend = attention.CrissCrossAttention(self.query_features, self.dtype, name='cca')
    for _ in range(self.recurrence):
      y = attend(y)
    y = conv(y, 'convs_1')
    y = conv(jnp.concatenate([x, y], -1), 'conv_cat')
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class CCNet(nn.Module):
  """CCNet (Huang et al., 2019): criss-cross attention applied twice with shared parameters.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and, in training with
  `auxiliary`, 'aux_logits'; see `dilated.segment`.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 8
  head_features: int = 512
  query_features: int = 64
  recurrence: int = 2
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
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    backbone = resnet.ResNet(self.backbone, self.backbone_width, self.output_stride, **shared,
                             name='backbone')
    shared |= dict(num_classes=self.num_classes, dropout=self.dropout)
    decode_head = CCHead(
        features=self.head_features, query_features=self.query_features,
        recurrence=self.recurrence, **shared, name='decode_head')
    auxiliary_head = dilated.FCNHead(
        features=self.auxiliary_features, **shared, name='auxiliary_head')
    return dilated.segment(image, backbone, decode_head,
                           auxiliary_head if self.auxiliary else None, train=train)
