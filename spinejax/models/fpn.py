"""Panoptic FPN: a feature pyramid on a ResNet and its semantic head."""
from collections.abc import Sequence
import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models import resnet


class FPNNeck(nn.Module):
  """Feature pyramid (Lin et al., 2017): 1x1 laterals, nearest top-down sums, 3x3 outputs.

  Takes features [N,h_i,w_i,C_i], fine to coarse; returns as many [N,h_i,w_i,features]. The
  convolutions have biases and neither norm nor activation.
  """
  features: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    conv = functools.partial(layers.Conv, self.features, dtype=self.dtype,
                             kernel_init=nn.initializers.xavier_uniform())
    laterals = [conv(kernel_size=1, name=f'lateral_convs_{i}')(x) for i, x in enumerate(inputs)]
    for i in range(len(laterals) - 1, 0, -1):
      factor = laterals[i - 1].shape[1] // laterals[i].shape[1]
      laterals[i - 1] += resizing.upsample_nearest(laterals[i], factor)
    return [conv(name=f'fpn_convs_{i}')(x) for i, x in enumerate(laterals)]


class FPNHead(nn.Module):
  """Semantic head of panoptic FPN (Kirillov et al., 2019): every level at stride 4, summed.

  Each level is convolved (3x3, batch norm, ReLU) and doubled bilinearly until it has the size of
  the finest. The finest is convolved once. Takes [N,h_i,w_i,C], fine to coarse; returns
  [N,h_0,w_0,features].
  """
  features: int = 128
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, inputs: Sequence[jax.Array], *, train: bool) -> jax.Array:
    levels = []
    for level, x in enumerate(inputs):
      doublings = (inputs[0].shape[1] // x.shape[1]).bit_length() - 1
      for step in range(max(doublings, 1)):
        x = layers.ConvNorm(self.features, axis_name=self.axis_name, dtype=self.dtype,
                            name=f'scale_heads_{level}_{2 * step}')(x, train=train)
        if doublings:
          x = resizing.upsample_bilinear(x)
      levels.append(x)
    return functools.reduce(jnp.add, levels)


class FPN(nn.Module):
  """Vanilla panoptic FPN, the baseline of SEAM (Zhao et al., 2021, table 1).

  ResNet, `FPNNeck`, `FPNHead`, dropout of whole channels and a 1x1 classifier, as in
  MMSegmentation. Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]}, resized
  bilinearly from stride 4. An image whose size is not a multiple of 32 is extended by its last row
  and column, and the logits are cropped.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 32
  neck_features: int = 256
  head_features: int = 128
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32
  size_multiple: ClassVar[int] = 32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = resizing.pad_to_multiple(image, self.size_multiple)
    stages = resnet.ResNet(self.backbone, self.backbone_width, self.output_stride, **shared,
                           name='backbone')(padded, train=train)
    levels = FPNNeck(self.neck_features, self.dtype, name='neck')(stages)
    x = FPNHead(self.head_features, **shared, name='decode_head')(levels, train=train)
    logits = layers.classify(x, self.num_classes, self.dropout, train=train, name='classifier')
    return {'logits': resizing.crop(resizing.upsample_bilinear(logits, 4), image.shape[1:-1])}
