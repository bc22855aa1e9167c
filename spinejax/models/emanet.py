"""EMANet: expectation-maximization attention on a dilated ResNet."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import dilated
from spinejax.models import layers
from spinejax.models import resnet


class EMAHead(nn.Module):
  """Head of EMANet: y = relu(f + W relu(EM(V f))) with f the input reduced by a 3x3 convolution.

  Takes [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}. V, `ema_mid_conv`, stays as initialized:
  `attention.ExpectationMaximization` returns a constant of the step, so V has no gradient.
  """
  num_classes: int
  features: int = 256
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    def conv(x, features, name, kernel_size=3, negative_slope=0.0):
      return layers.ConvNorm(features, kernel_size, negative_slope=negative_slope,
                             axis_name=self.axis_name, dtype=self.dtype, name=name)(x, train=train)

    identity = conv(x, self.ema_features, 'ema_in_conv')
    y = layers.Conv(self.ema_features, 1, dtype=self.dtype, name='ema_mid_conv')(identity)
    y = attention.ExpectationMaximization(self.num_bases, self.stages, self.momentum,
                                          self.axis_name, name='ema_module')(y, train=train)
    y = conv(nn.relu(y), self.ema_features, 'ema_out_conv', kernel_size=1, negative_slope=1.0)
    y = conv(nn.relu(identity + y), self.features, 'bottleneck')
    y = conv(jnp.concatenate([x, y], -1), self.features, 'conv_cat')
    return {'logits': layers.classify(y, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class EMANet(nn.Module):
  """EMANet (Li et al., 2019): features rebuilt from `num_bases` bases in `stages` EM steps.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and, in training with
  `auxiliary`, 'aux_logits'; see `dilated.segment`.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 8
  head_features: int = 256
  ema_features: int = 512
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1
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
    decode_head = EMAHead(
        features=self.head_features, ema_features=self.ema_features, num_bases=self.num_bases,
        stages=self.stages, momentum=self.momentum, **shared, name='decode_head')
    auxiliary_head = dilated.FCNHead(
        features=self.auxiliary_features, **shared, name='auxiliary_head')
    return dilated.segment(image, backbone, decode_head,
                           auxiliary_head if self.auxiliary else None, train=train)
