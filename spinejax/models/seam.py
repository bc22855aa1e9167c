"""SEAM: structure-enhanced attention on a panoptic FPN."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import resizing
from spinejax.models.attention import StructureAffinity


class SEAM(fpn.FPN):
  """Panoptic FPN with structure-enhanced attention before its classifier (Zhao et al., 2021).

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K], 'key_logits': float32
  [N,ceil(H/4),ceil(W/4),K]}. The structure supervision of eq. 6 and 7 acts on the latter.

  `attention=False` is the ablation "w/o AL": the key map is a 1x1 convolution of the fused
  features, supervised as before, and the classifier reads the features themselves. The other fields
  are those of `FPN` and `StructureAffinity`.
  """
  attention: bool = True
  attention_scale: str = 'sum'
  query_features: int = 32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    x = self.fuse(image, train=train)
    if self.attention:
      x, key_logits = StructureAffinity(
          self.num_classes, self.query_features, self.attention_scale, self.axis_name, self.dtype,
          name='attention')(x, train=train)
    else:
      key_logits = layers.Conv(self.num_classes, 1, name='key')(x.astype(jnp.float32))
    size = [-(-n // 4) for n in image.shape[1:-1]]
    return {'logits': self.classify(x, image.shape[1:-1], train=train),
            'key_logits': resizing.crop(key_logits, size)}
