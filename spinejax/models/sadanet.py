"""SADANet and DANet: spatial and channel attention side by side on a dilated ResNet."""
import functools

import flax.linen as nn
import jax

from spinejax.models import attention
from spinejax.models import dilated


class DAHead(dilated.Head):
  """Two branches, one of spatial and one of channel attention, and a classifier on their sum.

  Each is 3x3 convolution, attention, 3x3 convolution. With `branch_losses` or `wide` the logits of
  each branch are returned in training under 'position_logits' and 'channel_logits'. The fields are
  those of `SADANet`.
  """
  query_features: int = 64
  spatial: str = 'criss_cross'
  channel: str = 'cosine'
  wide: bool = False
  branch_losses: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    position = self._attend_to_positions(self.conv(x, 'pam_in_conv', train=train))
    position = self.conv(position, 'pam_out_conv', train=train)
    if self.wide:
      position = self.join(x, position, 'pam_conv_cat', train=train)
      position = self.conv(position, 'pam_last_conv', train=train)
    channel = self._attend_to_channels(self.conv(x, 'cam_in_conv', train=train))
    channel = self.conv(channel, 'cam_out_conv', train=train)
    outputs = {'logits': self.classify(position + channel, train=train)}
    if train and (self.branch_losses or self.wide):
      outputs['position_logits'] = self.classify(position, 'pam_conv_seg', train=train)
      outputs['channel_logits'] = self.classify(channel, 'cam_conv_seg', train=train)
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
    if self.channel == 'printed':
      return attention.GlobalChannelAttention(name='cam')(x)
    if self.channel == 'cosine':
      return attention.CosineChannelAttention(name='cam')(x)
    if self.channel == 'danet':
      return attention.ChannelAttention(name='cam')(x)
    raise ValueError("config.model.channel must be 'printed', 'cosine' or 'danet', "
                     f'not {self.channel!r}.')


class SAAHead(dilated.Head):
  """Structure-affinity attention as an auxiliary head (SADANet, section III.B, eq. 1 and 2).

  A 3x3 convolution, `StructureAffinity` and a classifier. The key map is supervised through the
  logits alone.
  """
  query_features: int = 64
  attention_form: str = 'class_mean'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> dilated.Outputs:
    x, _ = attention.StructureAffinity(
        self.num_classes, self.query_features, self.attention_form, self.axis_name, self.dtype,
        name='affinity')(self.conv(x, 'reduce', train=train), train=train)
    return {'logits': self.classify(x, train=train)}


class SADANet(dilated.DilatedNetwork):
  """Structure-affinity dual attention network (SADANet, Xie et al., 2023, section III).

  On the last stage of a ResNet at stride 8, criss-cross attention applied twice with shared
  parameters (eq. 4 and 5) beside global channel attention (eq. 3), summed and classified. On the
  stage before, in training, structure-affinity attention (eq. 1 and 2) as an auxiliary head. See
  `dilated.DilatedNetwork`; with `branch_losses` or `wide` it also returns 'position_logits' and
  'channel_logits' in training.

  Fields that name the rows of table II and III:
    spatial: 'criss_cross', or 'position' for DANet's attention ("w/o SCA").
    channel: 'printed', the plain softmax of eq. 3; 'cosine', the same of cosines between channels,
      which does not saturate on large maps; or 'danet', the softmax of distances of DANet.
    affinity: False for an FCN auxiliary head ("w/o SAA").
    wide: the 65.19 M parameters that table III prints: the spatial branch joins its input by a 3x3
      convolution as CCNet does, one more follows, and each branch has its classifier.
    branch_losses: a classifier and a loss on each branch too, as in DANet.
    attention_form: of `StructureAffinity`.

  The parameters of the decode head are named after MMSegmentation's DAHead, whatever attention they
  hold. Deviations: the paper prints 2048 channels in the attention and does not say where they are
  reduced. Here the first 3x3 convolution of each branch reduces to `head_features`, as in DANet.
  """
  query_features: int = 64
  spatial: str = 'criss_cross'
  channel: str = 'cosine'
  affinity: bool = True
  wide: bool = False
  branch_losses: bool = False
  attention_form: str = 'class_mean'

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    head = functools.partial(
        DAHead, query_features=self.query_features, spatial=self.spatial, channel=self.channel,
        wide=self.wide, branch_losses=self.branch_losses)
    auxiliary_head = functools.partial(
        SAAHead, query_features=self.query_features, attention_form=self.attention_form)
    return self.segment(image, head, auxiliary_head if self.affinity else None, train=train)


class DANet(dilated.DilatedNetwork):
  """DANet (Fu et al., 2019): position and channel attention, a loss on each branch and the sum.

  Returns in training also 'position_logits' and 'channel_logits'; see `dilated.DilatedNetwork`.
  """
  query_features: int = 64

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    head = functools.partial(DAHead, query_features=self.query_features, spatial='position',
                             channel='danet', branch_losses=True)
    return self.segment(image, head, train=train)
