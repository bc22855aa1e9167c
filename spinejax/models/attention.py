"""Attention modules of SADANet, SEAM and their baselines, on maps [N,H,W,C].

Parameters carry the names of MMSegmentation's modules. Energies, softmaxes and the products with
them are float32 whatever `dtype` is. Residual scales `gamma` start at 0, so a fresh module is the
identity, except where noted.
"""
import math
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from spinejax.models import layers

Array = jax.Array
Dtype = Any

# Up to so many weights an example, dot-product attention keeps the whole matrix; above, it works
# through so many queries at a time and computes their weights again in the backward pass.
_MAX_WEIGHTS = 2 ** 24
_QUERIES = 512


def attend(query: Array, key: Array, value: Array, *, scale: float = 1.0,
           chunk: int | None = None) -> Array:
  """y_p = sum_q softmax_q(scale query_p . key_q) value_q.

  Args:
    query: [N,P,C].
    key: [N,Q,C].
    value: [N,Q,D].
    scale: of the energies.
    chunk: queries at a time, whose weights are computed again in the backward pass; 0 keeps the
      whole matrix of weights; None chooses by its size. The result is the same.

  Returns:
    float32 [N,P,D].
  """
  query, key, value = (x.astype(jnp.float32) for x in (query, key, value))

  def rows(query):
    weights = nn.softmax(scale * jnp.einsum('npc,nqc->npq', query, key))
    return jnp.einsum('npq,nqd->npd', weights, value)

  n, positions, channels = query.shape
  if chunk is None:
    chunk = _QUERIES if positions * key.shape[1] > _MAX_WEIGHTS else 0
  if not chunk or chunk >= positions:
    return rows(query)
  count = -(-positions // chunk)
  padded = jnp.pad(query, ((0, 0), (0, count * chunk - positions), (0, 0)))
  chunks = jnp.moveaxis(padded.reshape(n, count, chunk, channels), 1, 0)
  y = lax.map(jax.checkpoint(rows), chunks)
  return jnp.moveaxis(y, 0, 1).reshape(n, count * chunk, -1)[:, :positions]


def _flat(x: Array) -> Array:
  """[N,H,W,C] -> float32 [N,HW,C]."""
  return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)



class CrissCrossAttention(nn.Module):
  """One pass of criss-cross attention: CCNet (Huang et al., 2019), SADANet (eq. 4).

    s = softmax over the H + W - 1 pixels u in the row and column of p of q_p . k_u
    y_p = x_p + gamma sum_u s_pu v_u

  with 1x1 convolutions q, k and v of x. Two einsums give the energies along the column and the row;
  that of the pixel itself is left out of the column (-inf), so it counts once. Applied twice with
  the same parameters every pixel reaches every other.

  Takes and returns [N,H,W,C].
  """
  query_features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    project = lambda features, name: layers.Conv(
        features, 1, dtype=self.dtype, name=name)(x).astype(jnp.float32)
    query = project(self.query_features, 'query_conv')
    key = project(self.query_features, 'key_conv')
    value = project(x.shape[-1], 'value_conv')
    gamma = self.param('gamma', nn.initializers.zeros, (), jnp.float32)
    height = x.shape[1]
    column = jnp.einsum('nhwc,niwc->nhwi', query, key)
    itself = jnp.eye(height, dtype=bool)[None, :, None, :]
    column = jnp.where(itself, -jnp.inf, column)
    row = jnp.einsum('nhwc,nhjc->nhwj', query, key)
    weights = nn.softmax(jnp.concatenate([column, row], -1))
    y = (jnp.einsum('nhwi,niwc->nhwc', weights[..., :height], value)
         + jnp.einsum('nhwj,nhjc->nhwc', weights[..., height:], value))
    return x + (gamma * y).astype(x.dtype)


class PositionAttention(nn.Module):
  """DANet's position attention (Fu et al., 2019): y_p = x_p + gamma sum_u softmax_u(q_p . k_u) v_u.

  Takes and returns [N,H,W,C]; `attend` bounds the memory on large maps.
  """
  query_features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    project = lambda features, name: _flat(layers.Conv(
        features, 1, dtype=self.dtype, name=name)(x))
    y = attend(project(self.query_features, 'query_project'),
               project(self.query_features, 'key_project'),
               project(x.shape[-1], 'value_project'))
    gamma = self.param('gamma', nn.initializers.zeros, (), jnp.float32)
    return x + (gamma * y).reshape(x.shape).astype(x.dtype)


class ChannelAttention(nn.Module):
  """DANet's channel attention (Fu et al., 2019) as its authors and MMSegmentation compute it.

    e_ij = sum_p x_pi x_pj,  y_p = x_p + gamma softmax_j(max_j e_ij - e_ij) x_p

  Takes and returns [N,H,W,C]. The weights grow with the *distance* of e from its row's maximum: the
  least similar channels weigh most. SADANet prints a plain softmax: `GlobalChannelAttention`.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    energy = _channel_energy(x)
    weights = nn.softmax(jnp.max(energy, -1, keepdims=True) - energy)
    gamma = self.param('gamma', nn.initializers.zeros, (), jnp.float32)
    return x + (gamma * _mix_channels(weights, x)).astype(x.dtype)


class GlobalChannelAttention(nn.Module):
  """SADANet's global channel attention (eq. 3): f' = f + gamma softmax(f f^T) f.

  f f^T [C,C] sums over all positions and the softmax runs over its rows, so on large maps it is
  close to a choice of one channel.

  Takes and returns [N,H,W,C]. Deviation: the paper adds the two terms as they are; here gamma is
  learned and starts at 1, which is that sum.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    weights = nn.softmax(_channel_energy(x))
    gamma = self.param('gamma', nn.initializers.ones, (), jnp.float32)
    return x + (gamma * _mix_channels(weights, x)).astype(x.dtype)


def _channel_energy(x: Array) -> Array:
  """e_ij = sum_p x_pi x_pj: [N,H,W,C] -> float32 [N,C,C]."""
  x = _flat(x)
  return jnp.einsum('npi,npj->nij', x, x)


def _mix_channels(weights: Array, x: Array) -> Array:
  """y_pi = sum_j weights_ij x_pj: [N,C,C], [N,H,W,C] -> float32 [N,H,W,C]."""
  return jnp.einsum('nij,npj->npi', weights, _flat(x)).reshape(x.shape)


class StructureAffinity(nn.Module):
  """Features rebuilt from a map of the classes: SEAM (eq. 2 to 5), SADANet's SAA (eq. 1 and 2).

    q = theta(v), k = phi(v), k' = softmax(k), a = softmax(q k'^T), z = rho([delta(a k'), v])

  theta, phi and delta are 1x1 convolutions, rho a 3x3 with batch norm and ReLU; k has one channel
  per class and is what SEAM supervises by the labels. Both softmaxes run over the classes; q k'^T
  sums over all positions.

  Takes v [N,h,w,C]; returns z [N,h,w,C] and k float32 [N,h,w,num_classes].

  `scale='sum'` is the papers' product; on large maps its softmax saturates, so `'mean'` divides it
  by the number of positions. The papers name neither batch norm nor ReLU of rho.
  """
  num_classes: int
  query_features: int = 32
  scale: str = 'sum'
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, v: Array, *, train: bool) -> tuple[Array, Array]:
    if self.scale not in ('sum', 'mean'):
      raise ValueError(f"config.model.attention_scale must be 'sum' or 'mean', not {self.scale!r}.")
    n, h, w, channels = v.shape
    query = _flat(layers.Conv(self.query_features, 1, dtype=self.dtype, name='theta')(v))
    key = layers.Conv(self.num_classes, 1, name='phi')(v.astype(jnp.float32))
    structure = _flat(nn.softmax(key))
    energy = jnp.einsum('npc,npk->nck', query, structure)
    weights = nn.softmax(energy / (h * w) if self.scale == 'mean' else energy)
    rebuilt = jnp.einsum('nck,npk->npc', weights, structure).reshape(n, h, w, -1)
    rebuilt = layers.Conv(channels, 1, dtype=self.dtype, name='delta')(rebuilt)
    z = layers.ConvNorm(channels, axis_name=self.axis_name, dtype=self.dtype, name='rho')(
        [rebuilt, v], train=train)
    return z, key


class ExpectationMaximization(nn.Module):
  """Expectation-maximization attention (Li et al., 2019, eq. 10 to 13): x rebuilt from K bases.

  From the running bases mu, `stages` times

    z_pk = softmax_k(x_p . mu_k),  mu_k = sum_p z_pk x_p / sum_p z_pk, scaled to length 1

  and y_p = sum_k z_pk mu_k. Neither z nor mu has a gradient, so y is a constant of the step, as in
  the authors' and MMSegmentation's code.

  The running bases are state, [1,C,K] in `batch_stats`: in training they move by `momentum` towards
  the mean of the batch's bases, of all devices along `axis_name`, scaled to length 1.

  Takes and returns [N,H,W,C].
  """
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    shape = (1, x.shape[-1], self.num_bases)
    running = self.variable('batch_stats', 'bases', lambda: _unit(
        math.sqrt(2 / self.num_bases) * jax.random.normal(self.make_rng('params'), shape)))
    points = lax.stop_gradient(_flat(x))
    bases = jnp.broadcast_to(running.value, (x.shape[0], *shape[1:]))
    for _ in range(self.stages):
      weights = nn.softmax(jnp.einsum('npc,nck->npk', points, bases))
      shares = weights / jnp.maximum(jnp.sum(weights, 1, keepdims=True), 1e-12)
      bases = _unit(jnp.einsum('npc,npk->nck', points, shares))
    y = jnp.einsum('nck,npk->npc', bases, weights).reshape(x.shape)
    if train and not self.is_initializing():
      mean = jnp.mean(bases, 0, keepdims=True)
      if self.axis_name is not None:
        mean = lax.pmean(mean, self.axis_name)
      running.value = (1 - self.momentum) * running.value + self.momentum * _unit(mean)
    return y.astype(x.dtype)


def _unit(bases: Array) -> Array:
  """Bases [N,C,K] scaled to length 1 over C; zeros stay zeros."""
  length = jnp.sqrt(jnp.sum(jnp.square(bases), 1, keepdims=True))
  return bases / jnp.maximum(length, 1e-12)


class NonLocal(nn.Module):
  """Non-local block, embedded Gaussian, scaled (Wang et al., 2018): y = x + W softmax(q k^T / s) v.

  q, k and v are 1x1 convolutions to C / `reduction` channels and s is the root of that number; W is
  a 1x1 convolution, with `norm` followed by a batch norm whose scale starts at 0.

  Takes and returns [N,H,W,C]; `attend` bounds the memory on large maps.
  """
  reduction: int = 2
  norm: bool = True
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    features = max(x.shape[-1] // self.reduction, 1)
    project = lambda name: _flat(layers.Conv(features, 1, dtype=self.dtype, name=name)(x))
    y = attend(project('theta'), project('phi'), project('g'), scale=features ** -0.5)
    y = y.reshape(*x.shape[:-1], features)
    if self.norm:
      y = layers.ConvNorm(x.shape[-1], 1, negative_slope=1.0, scale_init=nn.initializers.zeros,
                          axis_name=self.axis_name, dtype=self.dtype, name='conv_out')(
                              y, train=train)
    else:
      y = layers.Conv(x.shape[-1], 1, dtype=self.dtype, name='conv_out')(y)
    return x + y


def psa_collect(mask: Array, mask_size: tuple[int, int]) -> Array:
  """Affinities with which every pixel collects: a_tp = mask_t[p - t], PSANet (Zhao et al., 2018).

  Args:
    mask: [N,H,W,mh mw], at each pixel its affinity with the pixels of a window of odd size
      mh x mw centered on it, row-major.
    mask_size: (mh, mw).

  Returns:
    [N,HW,HW], affinity of target t with source p; 0 where p lies outside t's window.
  """
  return _affinity(mask, mask_size, _collected_by)


def psa_distribute(mask: Array, mask_size: tuple[int, int]) -> Array:
  """Affinities with which every pixel distributes: a_tp = mask_p[t - p]; as `psa_collect`."""
  return _affinity(mask, mask_size, _distributed_to)


def psa_attend(mask: Array, x: Array, mask_size: tuple[int, int], direction: str) -> Array:
  """y_t = sum_p softmax_p(a_tp) x_p with a of `psa_collect` or `psa_distribute`.

  Args:
    mask: [N,H,W,mh mw].
    x: [N,H,W,C].
    mask_size: (mh, mw).
    direction: 'collect' or 'distribute'.

  Returns:
    float32 [N,H,W,C]. On large maps one row of targets is worked on at a time, and again in the
    backward pass.
  """
  n, height, width, channels = x.shape
  affinity_of = {'collect': _collected_by, 'distribute': _distributed_to}[direction]
  mask = mask.astype(jnp.float32).reshape(n, height, width, *mask_size)
  points = _flat(x)

  def row(t):
    weights = nn.softmax(affinity_of(mask, t))
    return jnp.einsum('ntp,npc->ntc', weights, points)

  rows = jnp.arange(height)
  if (height * width) ** 2 > _MAX_WEIGHTS:
    y = lax.map(jax.checkpoint(row), rows)
  else:
    y = jax.vmap(row)(rows)
  return jnp.moveaxis(y, 0, 1)


def _affinity(mask, mask_size, affinity_of) -> Array:
  n, height, width, _ = mask.shape
  mask = mask.reshape(n, height, width, *mask_size)
  rows = jax.vmap(lambda t: affinity_of(mask, t), out_axes=1)(jnp.arange(height))
  return rows.reshape(n, height * width, height * width)


def _collected_by(mask: Array, row: Array) -> Array:
  """Affinities [N,W,HW] of the targets in one row with all sources: mask [N,H,W,mh,mw]."""
  n, height, width, mask_height, mask_width = mask.shape
  y = lax.dynamic_index_in_dim(mask, row, 1, keepdims=False)            # [N,W,mh,mw]
  y = _take(y, jnp.arange(height) - row + mask_height // 2, 2)           # [N,W,H,mw]
  places = jnp.arange(width)[None] - jnp.arange(width)[:, None] + mask_width // 2
  y = jax.vmap(lambda y, place: _take(y, place, 2), (1, 0), 1)(y, places)  # [N,W,H,W]
  return y.reshape(n, width, height * width)


def _distributed_to(mask: Array, row: Array) -> Array:
  """Affinities [N,W,HW] of the targets in one row with all sources: mask [N,H,W,mh,mw]."""
  n, height, width, mask_height, mask_width = mask.shape
  places = row - jnp.arange(height) + mask_height // 2
  y = jax.vmap(lambda y, place: _take(y, place[None], 2)[:, :, 0], (1, 0), 1)(mask, places)
  places = jnp.arange(width)[None] - jnp.arange(width)[:, None] + mask_width // 2
  y = jax.vmap(lambda y, place: _take(y, place, 2), (2, 0), 2)(y, places)  # [N,H,W,W of target]
  return jnp.moveaxis(y, 3, 1).reshape(n, width, height * width)


def _take(x: Array, places: Array, axis: int) -> Array:
  """Entries of x along an axis, 0 where a place lies outside of it."""
  inside = jnp.where(places < 0, x.shape[axis], places)
  return jnp.take(x, inside, axis, mode='fill', fill_value=0)
