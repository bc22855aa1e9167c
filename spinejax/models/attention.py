"""Attention modules of SADANet, SEAM and their baselines.

They take and return maps [N,H,W,C] of any size, also a single row, column or pixel. Parameters have
the names of MMSegmentation's modules. Energies, softmaxes and the products with them are float32;
`dtype` is that of the convolutions. Results have the dtype of the input.

Modules sow what they attend to in the collection 'intermediates', which `inference.maps` reads.
Where it is not mutable, as in training and prediction, nothing is stored or computed for it.
"""
from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from spinejax.models import cpu_kernels
from spinejax.models import layers

Array = jax.Array
Dtype = Any

# Attention with more weights than this per example is computed in chunks of queries. The limit is
# set by memory, and on CPU by the size of the cache.
_MAX_WEIGHTS, _MAX_WEIGHTS_ON_CPU = 2 ** 24, 2 ** 21
_CHUNK = 512  # queries in a chunk


def attend(query: Array, key: Array, value: Array, *, scale: float = 1.0,
           chunk: int | None = None) -> Array:
  """Dot-product attention y_p = sum_q softmax_q(scale query_p . key_q) value_q.

  Takes queries [N,P,C], keys [N,Q,C] and values [N,Q,D]; returns float32 [N,P,D].

  `chunk` is the number of queries to process at a time. The backward pass computes their weights
  again, so the P x Q weights are not stored. None chooses 512 if P Q > 2^24, on CPU 2^21, and
  otherwise P. Values and gradients are the same for any chunk.
  """
  query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
  n, positions, channels = query.shape
  if chunk is None:
    num_weights = positions * key.shape[1]
    whole = functools.partial(attend, scale=scale, chunk=positions)
    chunked = functools.partial(attend, scale=scale, chunk=_CHUNK)
    if num_weights > _MAX_WEIGHTS:
      return chunked(query, key, value)
    if num_weights > _MAX_WEIGHTS_ON_CPU:
      return cpu_kernels.dispatch(cpu=chunked, default=whole)(query, key, value)
    return whole(query, key, value)

  def attend_chunk(query: Array) -> Array:
    weights = nn.softmax(scale * jnp.einsum('npc,nqc->npq', query, key))
    return jnp.einsum('npq,nqd->npd', weights, value)

  if chunk >= positions:
    return attend_chunk(query)
  count = -(-positions // chunk)
  query = jnp.pad(query, ((0, 0), (0, count * chunk - positions), (0, 0)))
  chunks = jnp.moveaxis(query.reshape(n, count, chunk, channels), 1, 0)
  y = lax.map(jax.checkpoint(attend_chunk, prevent_cse=False), chunks)
  return jnp.moveaxis(y, 0, 1).reshape(n, count * chunk, -1)[:, :positions]


def _flat(x: Array) -> Array:
  """[N,H,W,C] -> float32 [N,HW,C]."""
  return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


def _add(module: nn.Module, x: Array, y: Array, init: Callable[..., Array] = nn.initializers.zeros
         ) -> Array:
  """x + gamma y in float32 with a parameter gamma: x [N,H,W,C], y float32 [N,H,W,C] or [N,HW,C]."""
  gamma = module.param('gamma', init, (), jnp.float32)
  return (x.astype(jnp.float32) + gamma * y.reshape(x.shape)).astype(x.dtype)


class CrissCrossAttention(nn.Module):
  """One pass of criss-cross attention: CCNet (Huang et al., 2019), SADANet (eq. 4).

    y_p = x_p + gamma sum_u softmax_u(q_p . k_u) v_u

  over the H + W - 1 pixels u in the column and the row of p, with 1x1 convolutions q, k and v of x
  and a learned gamma, initially 0. The pixel p is in both the column and the row, so its energy in
  the column is -inf. Applied twice, every pixel attends to every other.

  Deviations: eq. 4 prints the energies of column and row as a sum. Its text concatenates them, as
  here. The papers have no gamma; it is from the code of CCNet.
  """
  query_features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def project(features: int, name: str) -> Array:
      return layers.Conv(features, 1, dtype=self.dtype, name=name)(x).astype(jnp.float32)

    query = project(self.query_features, 'query_conv')
    key = project(self.query_features, 'key_conv')
    value = project(x.shape[-1], 'value_conv')
    height = x.shape[1]
    rows = jnp.arange(height)
    itself = (rows[:, None] == rows[None])[None, :, None, :]
    column = jnp.where(itself, -jnp.inf, jnp.einsum('nhwc,niwc->nhwi', query, key))
    row = jnp.einsum('nhwc,nhjc->nhwj', query, key)
    weights = nn.softmax(jnp.concatenate([column, row], -1))
    self.sow('intermediates', 'criss_cross', weights)
    y = (jnp.einsum('nhwi,niwc->nhwc', weights[..., :height], value)
         + jnp.einsum('nhwj,nhjc->nhwc', weights[..., height:], value))
    return _add(self, x, y)


class PositionAttention(nn.Module):
  """Position attention of DANet (Fu et al., 2019): y = x + gamma softmax(q k^T) v.

  The softmax is over all pixels of k. q, k and v are 1x1 convolutions of x, and gamma is learned,
  initially 0. `attend` limits the memory on large maps.
  """
  query_features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def project(features: int, name: str) -> Array:
      return _flat(layers.Conv(features, 1, dtype=self.dtype, name=name)(x))

    query, key = (project(self.query_features, name) for name in ('query_project', 'key_project'))
    self.sow('intermediates', 'position', (query, key))
    return _add(self, x, attend(query, key, project(x.shape[-1], 'value_project')))


class ChannelAttention(nn.Module):
  """Channel attention of DANet (Fu et al., 2019): y_i = x_i + gamma sum_j a_ij x_j.

    e_ij = sum_p x_pi x_pj,  a_ij = softmax_j(max_k e_ik - e_ij)

  over the channels i, j and all pixels p. gamma is learned, initially 0. The least similar channels
  get the largest weights. The authors' code and MMSegmentation compute this; the paper prints a
  plain softmax, as SADANet does (`GlobalChannelAttention`).
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    energy = _channel_energy(x)
    weights = nn.softmax(jnp.max(energy, -1, keepdims=True) - energy)
    self.sow('intermediates', 'channel', weights)
    return _add(self, x, _mix_channels(weights, x))


class GlobalChannelAttention(nn.Module):
  """Global channel attention of SADANet (Xie et al., eq. 3): f' = f + gamma softmax(f f^T) f.

  f f^T [C,C] sums over all pixels and the softmax is over its rows. At the paper's size the largest
  entry of a row is the channel itself by so much that the softmax selects it: f' = (1 + gamma) f.

  Deviation: the paper adds the two terms without gamma. Here gamma is learned, initially 1.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    weights = nn.softmax(_channel_energy(x))
    self.sow('intermediates', 'channel', weights)
    return _add(self, x, _mix_channels(weights, x), nn.initializers.ones)


class CosineChannelAttention(nn.Module):
  """Channel attention that does not depend on the size of the map: f' = f + softmax(t c) f.

    c_ij = sum_p f_pi f_pj / (|f_i| |f_j|),  |f_i|^2 = sum_p f_pi^2

  It is `GlobalChannelAttention` with cosines in place of products of channels. The temperature t is
  learned, initially 10. There is no gamma. A channel of zeros has the cosine 0 with the others.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    temperature = self.param('temperature', nn.initializers.constant(10.0), (), jnp.float32)
    energy = _channel_energy(x)
    squares = jnp.einsum('nii->ni', energy)
    lengths = jnp.sqrt(jnp.maximum(squares, 1e-12))
    weights = nn.softmax(temperature * energy / (lengths[:, :, None] * lengths[:, None]))
    self.sow('intermediates', 'channel', weights)
    return (x.astype(jnp.float32) + _mix_channels(weights, x).reshape(x.shape)).astype(x.dtype)


def _channel_energy(x: Array) -> Array:
  """e_ij = sum_p x_pi x_pj: [N,H,W,C] -> float32 [N,C,C]."""
  x = _flat(x)
  return jnp.einsum('npi,npj->nij', x, x)


def _mix_channels(weights: Array, x: Array) -> Array:
  """y_pi = sum_j weights_ij x_pj: [N,C,C], [N,H,W,C] -> float32 [N,HW,C]."""
  return jnp.einsum('nij,npj->npi', weights, _flat(x))


class StructureAffinity(nn.Module):
  """Features rebuilt from a map of the classes: SEAM (eq. 2 to 5), SADANet's SAA (eq. 1 and 2).

    q = theta(v), k = phi(v), k' = softmax(k), a = softmax(q k'^T), z = rho([delta(a k'), v])

  theta, phi and delta are 1x1 convolutions, and rho is a 3x3 convolution. k has one channel per
  class; SEAM supervises it by the labels. Both softmaxes are over the classes.

  Takes v [N,h,w,C]; returns z [N,h,w,C] and k float32 [N,h,w,num_classes].

  The `form` of the product of a query channel c and a class n is one of
    'printed'     sum_p q_pc k'_pn, over all pixels p, as in the papers. It grows with the map: at
                  512x256 the softmax is one-hot and theta has no gradient.
    'mean'        the printed product, divided by the number of pixels.
    'class_mean'  the printed product, divided by sum_p k'_pn: the mean query of a class. A bias of
                  theta is in every class alike, so it changes nothing.
  Another raises ValueError. Batch norm and ReLU follow rho; the papers do not mention them.
  """
  num_classes: int
  query_features: int = 32
  form: str = 'class_mean'
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, v: Array, *, train: bool) -> tuple[Array, Array]:
    if self.form not in ('printed', 'mean', 'class_mean'):
      raise ValueError("config.model.attention_form must be 'printed', 'mean' or 'class_mean', "
                       f'not {self.form!r}.')
    n, h, w, channels = v.shape
    query = _flat(layers.Conv(self.query_features, 1, dtype=self.dtype, name='theta')(v))
    key = layers.Conv(self.num_classes, 1, name='phi')(v.astype(jnp.float32))
    structure = _flat(nn.softmax(key))
    energy = jnp.einsum('npc,npk->nck', query, structure)
    if self.form == 'mean':
      energy /= h * w
    elif self.form == 'class_mean':
      energy /= jnp.maximum(jnp.sum(structure, 1), 1e-6)[:, None]
    weights = nn.softmax(energy)
    rebuilt = jnp.einsum('nck,npk->npc', weights, structure).reshape(n, h, w, -1)
    rebuilt = layers.Conv(channels, 1, dtype=self.dtype, name='delta')(rebuilt)
    self.sow('intermediates', 'affinity', (weights, structure, rebuilt))
    z = layers.ConvNorm(channels, axis_name=self.axis_name, dtype=self.dtype, name='rho')(
        jnp.concatenate([rebuilt, v.astype(rebuilt.dtype)], -1), train=train)
    return z, key


class ExpectationMaximization(nn.Module):
  """Expectation-maximization attention of EMANet (Li et al., 2019): x rebuilt from K bases.

  From the running bases mu, `stages` times

    z_pk = softmax_k(x_p . mu_k),  mu_k = sum_p z_pk x_p / sum_p z_pk, scaled to length 1

  and y_p = sum_k z_pk mu_k. As in the authors' code and MMSegmentation, neither z nor mu has a
  gradient, so y is a constant in training.

  The running bases [1,C,K] are in `batch_stats`. In training they become (1 - momentum) times
  themselves plus `momentum` times the bases of the batch, averaged over its examples (of all
  devices along `axis_name`) and scaled to length 1.
  """
  num_bases: int = 64
  stages: int = 3
  momentum: float = 0.1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    shape = (1, x.shape[-1], self.num_bases)
    running = self.variable('batch_stats', 'bases', lambda: _unit(
        jax.random.normal(self.make_rng('params'), shape, jnp.float32)))
    points = lax.stop_gradient(_flat(x))
    bases = jnp.broadcast_to(running.value, (x.shape[0], *shape[1:]))
    for _ in range(self.stages):
      weights = nn.softmax(jnp.einsum('npc,nck->npk', points, bases))
      shares = weights / jnp.maximum(jnp.sum(weights, 1, keepdims=True), 1e-12)
      bases = _unit(jnp.einsum('npc,npk->nck', points, shares))
    self.sow('intermediates', 'bases', (weights, shares))
    if train and not self.is_initializing():
      mean = jnp.mean(bases, 0, keepdims=True)
      if self.axis_name is not None:
        mean = lax.pmean(mean, self.axis_name)
      running.value = (1 - self.momentum) * running.value + self.momentum * _unit(mean)
    return jnp.einsum('nck,npk->npc', bases, weights).reshape(x.shape).astype(x.dtype)


def _unit(bases: Array) -> Array:
  """Bases [N,C,K] scaled to length 1 over C; zeros stay zeros."""
  length = jnp.sqrt(jnp.sum(jnp.square(bases), 1, keepdims=True))
  return bases / jnp.maximum(length, 1e-12)


class NonLocal(nn.Module):
  """Non-local block (Wang et al., 2018): y_p = x_p + W sum_u softmax_u(theta_p . phi_u / s) g_u.

  theta, phi and g are 1x1 convolutions of x to C / `reduction` channels. s is the square root of
  their number, which mmcv adds to the paper's embedded Gaussian. W, `conv_out`, is a 1x1
  convolution to C channels and a batch norm, initially zero. `attend` limits the memory on large
  maps.
  """
  reduction: int = 2
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    features = max(x.shape[-1] // self.reduction, 1)

    def project(name: str) -> Array:
      return _flat(layers.Conv(features, 1, kernel_init=nn.initializers.normal(0.01),
                               dtype=self.dtype, name=name)(x))

    query, key, scale = project('theta'), project('phi'), features ** -0.5
    self.sow('intermediates', 'position', (query, key, scale))
    y = attend(query, key, project('g'), scale=scale)
    y = layers.ConvNorm(
        x.shape[-1], 1, negative_slope=1.0, scale_init=nn.initializers.zeros,
        axis_name=self.axis_name, dtype=self.dtype, name='conv_out')(
            y.reshape(*x.shape[:-1], features), train=train)
    return x + y.astype(x.dtype)


def psa_attend(mask: Array, x: Array, mask_size: Sequence[int], direction: str) -> Array:
  """Point-wise spatial attention y_t = sum_p softmax_p(a_tp) x_p, PSANet (Zhao et al., 2018).

  The `direction` is 'collect' by a_tp = mask_t[p - t] or 'distribute' by a_tp = mask_p[t - p]. The
  mask [N,H,W,mh*mw] holds for each pixel its affinities with the pixels of a window around it,
  row-major. Offset 0 is entry ((mh - 1) // 2, (mw - 1) // 2). The window (mh, mw) may be smaller or
  larger than the map x [N,H,W,C]. Pixels outside of it have energy 0, as in the authors' code. One
  row of targets is computed at a time, and again in the backward pass, so the (HW)^2 weights are
  not stored. Returns float32 [N,H,W,C].
  """
  collect = {'collect': True, 'distribute': False}[direction]
  windows = mask.astype(jnp.float32).reshape(*x.shape[:-1], *mask_size)
  points = _flat(x)

  def attend_row(row):
    weights = nn.softmax(affinity_of_row(windows, row, collect))
    return jnp.einsum('ntp,npc->ntc', weights, points)

  y = lax.map(jax.checkpoint(attend_row, prevent_cse=False), jnp.arange(x.shape[1]))
  return jnp.moveaxis(y, 0, 1)


def affinity_of_row(windows: Array, row: Array, collect: bool) -> Array:
  """Affinities [N,W,HW] of the targets in one row with all sources, of windows [N,H,W,mh,mw]."""
  n, height, width, window, _ = windows.shape
  rows, here = jnp.arange(height), jnp.full(height, row)
  owner, other = (here, rows) if collect else (rows, here)  # the owner has the window
  place = other - owner + (window - 1) // 2
  inside = (place >= 0) & (place < window)
  y = windows[:, owner, :, jnp.clip(place, 0, window - 1)]          # [H,N,W,mw]
  y = _shift_windows(jnp.where(inside[:, None, None, None], y, 0))  # [H,N,W,W]
  y = y.transpose((1, 2, 0, 3) if collect else (1, 3, 0, 2))        # [N,W,H,W]
  return y.reshape(n, width, height * width)


def _shift_windows(x: Array) -> Array:
  """y_tp = x_t[p - t + (m - 1) // 2], 0 outside of it: [...,W,m] -> [...,W,W].

  In rows padded to 2W, the entries of one row are 2W - 1 places after those of the row before.
  """
  width, window = x.shape[-2:]
  before = width - 1 - (window - 1) // 2
  pads = [(0, 0, 0)] * (x.ndim - 1) + [(before, 2 * width - window - before, 0)]
  x = lax.pad(x, jnp.zeros((), x.dtype), pads).reshape(*x.shape[:-2], 2 * width * width)
  x = lax.slice_in_dim(x, width - 1, width - 1 + width * (2 * width - 1), axis=-1)
  return x.reshape(*x.shape[:-1], width, 2 * width - 1)[..., :width]
