"""SADANet and DANet: spatial and channel attention side by side on a dilated ResNet."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import dilated
from spinejax.models import layers


class DAHead(nn.Module):
  """Two branches, one of spatial and one of channel attention, and a classifier on their sum.

  Each is 3x3 convolution, attention, 3x3 convolution. Takes [N,h,w,C]; returns {'logits': float32
  [N,h,w,K]} and, in training with `branch_losses` or `wide`, the same of each branch under
  'position_logits' and 'channel_logits'. The fields are those of `SADANet`.
  """
  num_classes: int
  features: int = 512
  query_features: int = 64
  spatial: str = 'criss_cross'
  channel: str = 'global'
  wide: bool = False
  branch_losses: bool = False
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    def conv(x, name):
      return layers.ConvNorm(self.features, axis_name=self.axis_name, dtype=self.dtype, name=name)(
          x, train=train)

    def classify(x, name):
      return layers.classify(x, self.num_classes, self.dropout, train=train, name=name)

    position = self._attend_to_positions(conv(x, 'pam_in_conv'))
    position = conv(position, 'pam_out_conv')
    if self.wide:
      position = conv(jnp.concatenate([x, position], -1), 'pam_conv_cat')
      position = conv(position, 'pam_last_conv')
    channel = self._attend_to_channels(conv(x, 'cam_in_conv'))
    channel = conv(channel, 'cam_out_conv')
    outputs = {'logits': classify(position + channel, 'conv_seg')}
    if train and (self.branch_losses or self.wide):
      outputs['position_logits'] = classify(position, 'pam_conv_seg')
      outputs['channel_logits'] = classify(channel, 'cam_conv_seg')
    return outputs

  def _attend_to_positions(self, x: jax.Array) -> jax.Array:
    if self.spatial == 'criss_cross':
      attend = attention.CrissCrossAttention(self.query_features, self.dtype, name='pam')
      return attend(attend(x))
    if self.spatial == 'position':
      return attention.PositionAttention(self.query_features, self.dtype, name='pam')(x)
    raise ValueError("config.model.spatial must be 'criss_cross' or 'position', "
                     f'not {self.spatial!r}.')

  def _attend_to_channels(self, x: jax.Array) -> jax.Array:
    if self.channel == 'global':
      return attention.GlobalChannelAttention(name='cam')(x)
    if self.channel == 'danet':
      return attention.ChannelAttention(name='cam')(x)
    raise ValueError(f"config.model.channel must be 'global' or 'danet', not {self.channel!r}.")


class SAAHead(nn.Module):
  """Structure-affinity attention as an auxiliary head (SADANet, section III.B, eq. 1 and 2).

  A 3x3 convolution with batch norm and ReLU, `StructureAffinity` and a classifier. Takes [N,h,w,C];
  returns {'logits': float32 [N,h,w,K]}. The key map is supervised through these alone.
  """
  num_classes: int
  features: int = 256
  query_features: int = 64
  attention_scale: str = 'sum'
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    x = layers.ConvNorm(self.features, **shared, name='reduce')(x, train=train)
    x, _ = attention.StructureAffinity(self.num_classes, self.query_features, self.attention_scale,
                                       **shared, name='affinity')(x, train=train)
    return {'logits': layers.classify(x, self.num_classes, self.dropout, train=train,
                                      name='conv_seg')}


class SADANet(dilated.DilatedNetwork):
  """Structure-affinity dual attention network (SADANet, Xie et al., 2023, section III).

  On the last stage of a ResNet at stride 8, criss-cross attention applied twice with shared
  parameters (eq. 4 and 5) beside global channel attention (eq. 3), summed and classified. On the
  stage before, in training, structure-affinity attention (eq. 1 and 2) as an auxiliary head.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and in training, of the
  same shape, 'aux_logits' and with `branch_losses` or `wide` 'position_logits' and
  'channel_logits'; see `dilated.DilatedNetwork`.

  Fields that name the rows of table II and III:
    spatial: 'criss_cross', or 'position' for DANet's attention ("w/o SCA").
    channel: 'global', the plain softmax of eq. 3, or 'danet' for the softmax of distances that
      DANet computes.
    affinity: False for an FCN auxiliary head ("w/o SAA").
    wide: the 65.19 M parameters that table III prints: the spatial branch joins its input by a 3x3
      convolution as CCNet does, one more follows, and each branch has its classifier.
    branch_losses: a classifier and a loss on each branch too, as in DANet.
    attention_scale: 'sum' or 'mean' of `StructureAffinity`.

  The parameters of the decode head are named after MMSegmentation's DAHead, whatever attention they
  hold. Deviations: the paper prints 2048 channels in the attention and does not say where they are
  reduced. Here the first 3x3 convolution of each branch reduces to `head_features`, as in DANet.
  """
  query_features: int = 64
  spatial: str = 'criss_cross'
  channel: str = 'global'
  affinity: bool = True
  wide: bool = False
  branch_losses: bool = False
  attention_scale: str = 'sum'

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    auxiliary_head, auxiliary_fields = dilated.FCNHead, {}
    if self.affinity:
      auxiliary_head, auxiliary_fields = SAAHead, dict(
          query_features=self.query_features, attention_scale=self.attention_scale)
    return self.segment(
        image, DAHead, auxiliary_head, train=train, auxiliary_fields=auxiliary_fields,
        query_features=self.query_features, spatial=self.spatial, channel=self.channel,
        wide=self.wide, branch_losses=self.branch_losses)


class DANet(dilated.DilatedNetwork):
  """DANet (Fu et al., 2019): position and channel attention, a loss on each branch and the sum.

  Returns in training also 'position_logits' and 'channel_logits'; see `dilated.DilatedNetwork`.
  """
  query_features: int = 64

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    return self.segment(image, DAHead, train=train, query_features=self.query_features,
                        spatial='position', channel='danet', branch_losses=True)
