"""What the networks on a dilated ResNet share: the FCN head and the way to the image's size.

The baselines of SEAM and SADANet are built as in MMSegmentation, and their parameters have the
names of its state dicts.
"""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models import resnet

Array = jax.Array
Outputs = dict[str, Array]
Head = Callable[..., Outputs]


def segment(image: Array, backbone: resnet.ResNet, decode_head: Head,
            auxiliary_head: Head | None, *, train: bool) -> Outputs:
  """Logits of a decode head on the last stage of a dilated ResNet, at the size of the image.

  In training the auxiliary head reads the stage before. An image whose size is not a multiple of
  the output stride is extended by its last row and column, and the logits are cropped.
  MMSegmentation rounds the size of the maps up instead.

  Args:
    image: [N,H,W,C], normalized.
    backbone: the ResNet.
    decode_head: maps features [N,h,w,C] to a dict of logits [N,h,w,K].
    auxiliary_head: the same, or None.
    train: whether statistics are those of the batch.

  Returns:
    The maps of the decode head and, in training with an auxiliary head, 'aux_logits'; float32
    [N,H,W,K].
  """
  padded = resizing.pad_to_multiple(image, backbone.output_stride)
  *_, middle, last = backbone(padded, train=train)
  maps = decode_head(last, train=train)
  if train and auxiliary_head is not None:
    maps['aux_logits'] = auxiliary_head(middle, train=train)['logits']
  return at_image_size(maps, image, padded)


def at_image_size(maps: Outputs, image: Array, padded: Array) -> Outputs:
  """Resizes maps [N,h,w,K] of a padded image bilinearly and crops them to the image."""
  def resize(x: Array) -> Array:
    factor = padded.shape[1] // x.shape[1]
    x = resizing.upsample_bilinear(x, factor) if factor > 1 else x
    return resizing.crop(x, image.shape[1:-1])

  return {name: resize(x) for name, x in maps.items()}


class FCNHead(nn.Module):
  """3x3 convolution with batch norm and ReLU, then a classifier.

  The auxiliary head of every network here. Takes [N,h,w,C]; returns {'logits': float32 [N,h,w,K]}.
  """
  num_classes: int
  features: int = 256
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Outputs:
    x = layers.ConvNorm(self.features, axis_name=self.axis_name, dtype=self.dtype,
                        name='convs_0')(x, train=train)
    return {'logits': layers.classify(x, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}
