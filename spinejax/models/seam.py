"""SEAM: structure-enhanced attention on a panoptic FPN."""
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models import resnet


class SEAM(nn.Module):
  """Panoptic FPN with structure-enhanced attention before its classifier (Zhao et al., 2021).

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K], 'key_logits': float32
  [N,ceil(H/4),ceil(W/4),K]}. The structure supervision of eq. 6 and 7 acts on the latter.

  `attention=False` is the ablation "w/o AL": the key map is a 1x1 convolution of the fused
  features, supervised as before, and the classifier reads the features themselves. The other fields
  are those of `FPN` and `StructureAffinity`.
  """
  num_classes: int
  backbone: str = 'resnet50_v1c'
  backbone_width: int = 64
  output_stride: int = 32
  neck_features: int = 256
  head_features: int = 128
  dropout: float = 0.1
  attention: bool = True
  attention_form: str = 'class_mean'
  query_features: int = 32
  axis_name: str | None = None
  dtype: Any = jnp.float32
  size_multiple: ClassVar[int] = 32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = resizing.pad_to_multiple(image, self.size_multiple)
    stages = resnet.ResNet(self.backbone, self.backbone_width, self.output_stride, **shared,
                           name='backbone')(padded, train=train)
    levels = fpn.FPNNeck(self.neck_features, self.dtype, name='neck')(stages)
    x = fpn.FPNHead(self.head_features, **shared, name='decode_head')(levels, train=train)
    if self.attention:
      x, key_logits = attention.StructureAffinity(
          self.num_classes, self.query_features, self.attention_form, **shared,
          name='attention')(x, train=train)
    else:
      key_logits = layers.Conv(self.num_classes, 1, name='key')(x.astype(jnp.float32))
    logits = layers.classify(x, self.num_classes, self.dropout, train=train, name='classifier')
    size = image.shape[1:-1]
    return {'logits': resizing.crop(resizing.upsample_bilinear(logits, 4), size),
            'key_logits': resizing.crop(key_logits, [-(-n // 4) for n in size])}
