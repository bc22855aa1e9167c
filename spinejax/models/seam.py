"""Structure-enhanced attention on a panoptic FPN."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import fpn
from spinejax.models import layers


class StructureEnhancedAttention(nn.Module):
  """SEAM (Zhao et al., 2021, eq. 2 to 5): features rebuilt from a map of the classes.

    q = phi(v), k = varphi(v), k' = softmax(k), a' = softmax(q k'^T), z = rho([theta(a' k'), v])

  k has one channel per class and is supervised by the labels; both softmaxes run over the classes;
  q k'^T sums over all positions.

  Takes v [N,h,w,C]; returns z [N,h,w,C] and k float32 [N,h,w,num_classes].

  `scale='sum'` is the paper's product; on large maps its softmax saturates, so `'mean'` divides it
  by the number of positions. rho, a 3x3 convolution, is followed by batch norm and ReLU, which the
  paper does not name. The products are float32 whatever `dtype` is.
  """
  num_classes: int
  query_features: int = 32
  scale: str = 'sum'
  axis_name: str | None = None
  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, v: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    if self.scale not in ('sum', 'mean'):
      raise ValueError(f"config.model.attention_scale must be 'sum' or 'mean', not {self.scale!r}.")
    n, h, w, channels = v.shape
    query = layers.Conv(self.query_features, 1, dtype=self.dtype, name='query')(v)
    key = layers.Conv(self.num_classes, 1, name='key')(v.astype(jnp.float32))
    flat_query = query.reshape(n, h * w, -1).astype(jnp.float32)
    flat_key = nn.softmax(key).reshape(n, h * w, -1)
    energy = jnp.einsum('npc,npk->nck', flat_query, flat_key)
    weights = nn.softmax(energy / (h * w) if self.scale == 'mean' else energy)
    rebuilt = jnp.einsum('nck,npk->npc', weights, flat_key).reshape(n, h, w, -1)
    rebuilt = layers.Conv(channels, 1, dtype=self.dtype, name='rebuild')(rebuilt)
    z = layers.ConvNorm(channels, axis_name=self.axis_name, dtype=self.dtype, name='fuse')(
        [rebuilt, v], train=train)
    return z, key


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
      x, key_logits = StructureEnhancedAttention(
          self.num_classes, self.query_features, self.attention_scale, self.axis_name, self.dtype,
          name='attention')(x, train=train)
    else:
      key_logits = layers.Conv(self.num_classes, 1, name='key')(x.astype(jnp.float32))
    size = [-(-n // 4) for n in image.shape[1:-1]]
    return {**self._classify(x, image, train), 'key_logits': layers.crop(key_logits, size)}
