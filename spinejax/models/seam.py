"""Structure-enhanced attention on a panoptic FPN."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import attention
from spinejax.models import fpn
from spinejax.models import layers


class SEAM(fpn.FPN):
  """Panoptic FPN with structure-enhanced attention before its classifier (Zhao et al., 2021).

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K], 'key_logits': float32
  [N,ceil(H/4),ceil(W/4),K]}, the latter for the structure supervision of eq. 6 and 7.

  `attention=False` is the ablation "w/o AL": the key map is a 1x1 convolution of the fused
  features, supervised as before, and the classifier reads the features themselves.
  """
  attention: bool = True
  attention_scale: str = 'sum'
  query_features: int = 32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    x = self._features(image, train)
    if self.attention:
      x, key_logits = attention.StructureAffinity(
          self.num_classes, self.query_features, self.attention_scale, self.axis_name, self.dtype,
          name='attention')(x, train=train)
    else:
      key_logits = layers.Conv(self.num_classes, 1, name='key')(x.astype(jnp.float32))
    size = [-(-n // 4) for n in image.shape[1:-1]]
    return {**self._classify(x, image, train), 'key_logits': layers.crop(key_logits, size)}
