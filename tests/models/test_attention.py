"""Attention modules against slow loops over their equations, and their limits."""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax.models import attention
from tests.models.arrays import assert_same_function, psa_affinity, random


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def kept_bytes(function, *args):
  """Bytes that the backward pass keeps of the forward pass."""
  pullback = jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args)
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pullback))


def moved_variables(module, x, **mode):
  """Variables moved from where they start, so that no residual scale is 0."""
  @jax.jit
  def init(key, x):
    variables = module.init(key, x, **mode)
    return jax.tree.map(lambda x: x + random(*x.shape, seed=7) / 2, variables)

  return init(jax.random.key(1), x)


def shape(*size):
  return jax.ShapeDtypeStruct(size, jnp.float32)


# Dot-product attention


def test_attend_equals_its_equation():
  query, key, value = random(2, 3, 4), random(2, 5, 4, seed=1), random(2, 5, 6, seed=2)
  actual = attention.attend(query, key, value, scale=0.3)
  for n in range(2):
    for p in range(3):
      weights = softmax(np.float64([0.3 * np.dot(query[n, p], key[n, q]) for q in range(5)]))
      np.testing.assert_allclose(actual[n, p], sum(w * v for w, v in zip(weights, value[n])),
                                 rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('chunk', [1, 5, 11])
def test_attend_in_chunks_equals_the_whole(chunk):
  args = random(2, 12, 3), random(2, 7, 3, seed=1), random(2, 7, 4, seed=2)
  assert_same_function(lambda *args: attention.attend(*args, scale=2.0, chunk=chunk),
                       lambda *args: attention.attend(*args, scale=2.0, chunk=12), *args,
                       values=1e-5, gradients=1e-5)


@pytest.mark.parametrize('module, mode', [
    (attention.PositionAttention(8), {}), (attention.NonLocal(), {'train': False})])
def test_modules_bound_their_memory_on_large_maps(module, mode):
  x = shape(1, 64, 128, 64)
  variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **mode), x)
  kept = kept_bytes(lambda variables, x: module.apply(variables, x, **mode), variables, x)
  assert kept <= 8 * x.size * 4


# Criss-cross attention


@pytest.mark.parametrize('size', [(4, 3), (1, 4), (3, 1), (1, 1)])
def test_criss_cross_attention_equals_a_loop_over_row_and_column(size):
  height, width = size
  module = attention.CrissCrossAttention(query_features=2)
  x = random(2, *size, 5)
  variables = moved_variables(module, x)
  actual = jax.jit(module.apply)(variables, x)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  conv = lambda name: np.asarray(x) @ p[name]['kernel'][0, 0] + p[name]['bias']
  query, key, value = conv('query_conv'), conv('key_conv'), conv('value_conv')
  for n, i, j in np.ndindex(2, *size):
    cross = [(i, c) for c in range(width)] + [(r, j) for r in range(height) if r != i]
    assert len(cross) == height + width - 1
    weights = softmax(np.array([query[n, i, j] @ key[(n, *u)] for u in cross]))
    seen = sum(weight * value[(n, *u)] for weight, u in zip(weights, cross))
    np.testing.assert_allclose(actual[n, i, j], x[n, i, j] + p['gamma'] * seen,
                               rtol=1e-5, atol=1e-5)


# Channel attention


@pytest.mark.parametrize('module, weigh', [
    (attention.GlobalChannelAttention(), softmax),
    (attention.ChannelAttention(), lambda e: softmax(e.max(-1, keepdims=True) - e)),
    (attention.CosineChannelAttention(), lambda e: softmax(
        0.7 * e / np.sqrt(np.outer(np.diag(e), np.diag(e))))),
])
def test_channel_attention_equals_its_equation(module, weigh):
  x = random(2, 3, 4, 5)
  cosine = isinstance(module, attention.CosineChannelAttention)
  number = {'temperature' if cosine else 'gamma': jnp.float32(0.7)}
  actual = module.apply({'params': number}, x)
  for n in range(2):
    f = np.asarray(x[n], np.float64).reshape(12, 5).T
    expected = f + (1 if cosine else 0.7) * weigh(f @ f.T) @ f
    np.testing.assert_allclose(actual[n], expected.T.reshape(3, 4, 5), rtol=1e-4, atol=1e-5)


def test_channel_attention_of_sadanet_starts_as_the_printed_sum():
  init = lambda module: module.init(jax.random.key(0), random(1, 3, 4, 5))
  assert init(attention.GlobalChannelAttention()) == {'params': {'gamma': 1}}
  assert init(attention.CosineChannelAttention()) == {'params': {'temperature': 10}}


def sown(module, name, variables, x, **mode):
  _, found = module.apply(variables, x, mutable=['intermediates'], **mode)
  return found['intermediates'][name][0]


def test_cosines_between_channels_by_hand():
  """Channels (3, 4), (4, 3) and 0: cosines 1, 24/25 and 0, whatever their lengths and the map."""
  x = jnp.array([[3.0, 40, 0], [4, 30, 0]])[None, None]
  variables = {'params': {'temperature': jnp.float32(25 * np.log(2))}}
  first, second = 2.0 ** np.array([25, 24, 0]), 2.0 ** np.array([24, 25, 0])
  expected = np.stack([first / first.sum(), second / second.sum(), np.ones(3) / 3])
  for repeats in (1, 50):
    weights = sown(attention.CosineChannelAttention(), 'channel', variables,
                   jnp.tile(x, (1, repeats, 1, 1)))
    np.testing.assert_allclose(weights[0], expected, rtol=1e-4, atol=1e-9)


def test_cosines_do_not_select_the_channel_itself_at_the_papers_size():
  """512 channels after batch norm and ReLU, 64x32 pixels. The printed softmax is the identity."""
  x = jax.nn.relu(random(1, 64, 32, 512))
  for module, low, high in ((attention.CosineChannelAttention(), 0.5, 0.8),
                            (attention.GlobalChannelAttention(), 1, 1)):
    own = jnp.diagonal(sown(module, 'channel', module.init(jax.random.key(0), x), x)[0])
    assert low <= own.min() <= own.max() <= high


def test_a_channel_of_zeros_has_a_finite_gradient():
  x = random(1, 3, 4, 5).at[..., 2].set(0)
  module = attention.CosineChannelAttention()
  variables = module.init(jax.random.key(0), x)
  total = lambda variables, x: jnp.sum(jnp.square(module.apply(variables, x)))
  gradients = jax.grad(total, (0, 1))(variables, x)
  assert all(np.isfinite(y).all() for y in jax.tree.leaves(gradients))
  assert gradients[0]['params']['temperature'] != 0


@pytest.mark.parametrize('module, mode', [
    (attention.CrissCrossAttention(2), {}),
    (attention.PositionAttention(2), {}),
    (attention.ChannelAttention(), {}),
    (attention.NonLocal(), {'train': False}),
])
def test_other_residual_modules_start_as_the_identity(module, mode):
  x = random(2, 3, 4, 6)
  y, _ = jax.jit(lambda x: module.init_with_output(jax.random.key(0), x, **mode))(x)
  np.testing.assert_array_equal(y, x)


# Structure affinity


@pytest.mark.parametrize('form', ['printed', 'mean', 'class_mean'])
def test_structure_affinity_equals_its_equations(form):
  module = attention.StructureAffinity(num_classes=3, query_features=2, form=form)
  v = random(2, 4, 3, 5)
  variables = jax.jit(lambda: module.init(jax.random.key(1), v, train=False))()
  z, k = jax.jit(lambda v: module.apply(variables, v, train=False))(v)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  conv = lambda x, name: x @ p[name]['kernel'][0, 0] + p[name]['bias']
  for example in range(2):
    flat = np.asarray(v[example], np.float64).reshape(12, 5)
    key = conv(flat, 'phi')
    np.testing.assert_allclose(k[example].reshape(12, 3), key, rtol=1e-5, atol=1e-5)
    probabilities = softmax(key)
    energy = sum(np.outer(conv(flat, 'theta')[position], probabilities[position])
                 for position in range(12))
    weights = softmax(energy / {'printed': 1, 'mean': 12, 'class_mean': probabilities.sum(0)}[form])
    rebuilt = conv(probabilities @ weights.T, 'delta').reshape(4, 3, 5)
    joined = np.pad(np.concatenate([rebuilt, v[example]], -1), ((1, 1), (1, 1), (0, 0)))
    expected = np.zeros((4, 3, 5))
    for y, x in np.ndindex(4, 3):
      expected[y, x] = np.einsum('abc,abcd->d', joined[y:y + 3, x:x + 3],
                                 p['rho']['conv']['kernel'])
    expected = np.maximum(expected / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(z[example], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('form, expected', [
    ('printed', 5.5 - 4.5), ('mean', (5.5 - 4.5) / 3), ('class_mean', 5.5 / 1.25 - 4.5 / 1.75)])
def test_affinities_by_hand(form, expected):
  """Queries 2, 2 and 6; k' (3/4, 1/4) twice and (1/4, 3/4), so the classes weigh 1.75 and 1.25."""
  v = jnp.array([2.0, 2, 6])[None, None, :, None]
  module = attention.StructureAffinity(2, 2, form)
  params = dict(module.init(jax.random.key(0), v, train=False)['params'])
  point = lambda *kernel: jnp.array(kernel)[None, None, None]
  params['theta'] = {'kernel': point(1.0, -1.0), 'bias': jnp.zeros(2)}
  params['phi'] = {'kernel': point(-np.log(3) / 2, 0), 'bias': jnp.array([2 * np.log(3), 0])}
  statistics = module.init(jax.random.key(0), v, train=False)['batch_stats']
  weights, *_ = sown(module, 'affinity', {'params': params, 'batch_stats': statistics}, v,
                    train=False)
  np.testing.assert_allclose(jnp.log(weights[0, :, 1] / weights[0, :, 0]), [expected, -expected],
                             rtol=1e-4)


LABEL = np.repeat(np.arange(4), 32)[:, None] + np.zeros(64, int)  # 512x256 pixels at stride 4


def head_features(label, seed):
  """What the head of an FPN gives: four maps after batch norm and ReLU, added, [1,H,W,128]."""
  classes = random(4, 128, seed=5) / 2
  x = random(4, *label.shape, 128, seed=seed) + classes[label][None]
  return jnp.sum(jax.nn.relu(x), 0)[None]


@pytest.fixture(scope='module')
def affinity_params():
  """Parameters as initialized, and after 20 steps on a map of 16x8 pixels."""
  module, label = attention.StructureAffinity(4, 32), LABEL[::8, ::8]
  v, tx = head_features(label, 2), optax.sgd(0.05, 0.9)

  def loss(params):
    (z, key), _ = module.apply({'params': params}, v, train=True, mutable=['batch_stats'])
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return jnp.mean(entropy(z[..., :4], label[None]) + entropy(key, label[None]))

  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  first = params = module.init(jax.random.key(0), v, train=True)['params']
  state = tx.init(params)
  for _ in range(20):
    params, state = step(params, state)
  assert loss(params) < loss(first) / 2
  return first, params


def test_theta_learns_at_the_papers_size_and_as_printed_does_not(affinity_params):
  v = head_features(LABEL, 1)

  @functools.partial(jax.jit, static_argnums=1)
  def gradient(params, form):
    def total(params):
      module = attention.StructureAffinity(4, 32, form)
      (z, _), _ = module.apply({'params': params}, v, train=True, mutable=['batch_stats'])
      return jnp.mean(z * random(*z.shape, seed=8))
    found = jax.grad(total)(params)
    return [jnp.linalg.norm(found[name]['kernel']) for name in ('theta', 'delta')]

  for params in affinity_params:
    theta, delta = gradient(params, 'class_mean')
    assert theta > 0.1 * delta
    printed, delta = gradient(params, 'printed')
    assert printed == 0 < delta


# Expectation maximization


def expected_bases(x, bases, stages):
  """Bases [C,K] and what they make of x [P,C]."""
  for _ in range(stages):
    z = softmax(x @ bases)
    bases = np.stack([(z[:, k:k + 1] * x).sum(0) / z[:, k].sum() for k in range(z.shape[1])], 1)
    bases /= np.linalg.norm(bases, axis=0)
  return bases, z @ bases.T


def test_expectation_maximization_equals_its_equations_and_moves_its_bases_in_training():
  module = attention.ExpectationMaximization(num_bases=3, stages=2, momentum=0.2)
  x = random(2, 3, 4, 5)
  variables = module.init(jax.random.key(1), x, train=True)
  assert variables.keys() == {'batch_stats'}
  first = np.asarray(variables['batch_stats']['bases'], np.float64)
  assert first.shape == (1, 5, 3)
  np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)

  flat = np.asarray(x, np.float64).reshape(2, 12, 5)
  bases, rebuilt = zip(*(expected_bases(example, first[0], 2) for example in flat))
  mean = np.mean(bases, 0)
  moved = 0.8 * first[0] + 0.2 * mean / np.linalg.norm(mean, axis=0)
  for train, expected in ((True, moved), (False, first[0])):
    y, updated = module.apply(variables, x, train=train, mutable=['batch_stats'])
    np.testing.assert_allclose(y.reshape(2, 12, 5), rebuilt, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(updated['batch_stats']['bases'][0], expected,
                               rtol=1e-4, atol=1e-6)


def test_initializing_expectation_maximization_leaves_its_bases():
  module = attention.ExpectationMaximization(num_bases=3)
  first, other = (module.init(jax.random.key(1), x, train=train)['batch_stats']['bases']
                  for x, train in ((random(1, 2, 2, 5), False), (9 * random(3, 4, 5, 5), True)))
  np.testing.assert_array_equal(other, first)


def test_bases_of_several_devices_are_those_of_the_global_batch():
  x = random(4, 3, 2, 5)
  whole = attention.ExpectationMaximization(num_bases=3)
  variables = whole.init(jax.random.key(1), x, train=True)
  part = attention.ExpectationMaximization(num_bases=3, axis_name='data')
  update = lambda module: lambda x: module.apply(variables, x, train=True,
                                                 mutable=['batch_stats'])
  y, expected = update(whole)(x)
  parts, updated = jax.pmap(update(part), axis_name='data')(x.reshape(2, 2, 3, 2, 5))
  np.testing.assert_allclose(parts.reshape(x.shape), y, rtol=1e-5, atol=1e-6)
  for bases in updated['batch_stats']['bases']:
    np.testing.assert_allclose(bases, expected['batch_stats']['bases'], rtol=1e-5, atol=1e-6)
  alone, _ = update(whole)(x[:2])
  np.testing.assert_allclose(alone, y[:2], rtol=1e-5, atol=1e-6)


def test_bases_without_points_stay_zero():
  module = attention.ExpectationMaximization(num_bases=3)
  variables = module.init(jax.random.key(1), jnp.zeros((1, 2, 2, 5)), train=True)
  y, updated = module.apply(variables, jnp.zeros((1, 2, 2, 5)), train=True,
                            mutable=['batch_stats'])
  np.testing.assert_array_equal(y, 0)
  np.testing.assert_allclose(updated['batch_stats']['bases'],
                             0.9 * variables['batch_stats']['bases'], rtol=1e-6)


# Point-wise spatial attention


def expected_affinity(mask, mask_size):
  """[N,HW,HW] of the pixels whose windows they are with all others, entry by entry."""
  n, height, width, _ = mask.shape
  affinity = np.zeros((n, height, width, height, width), mask.dtype)
  windows = np.asarray(mask).reshape(n, height, width, *mask_size)
  for i, j, a, b in np.ndindex(height, width, *mask_size):
    other = i + a - (mask_size[0] - 1) // 2, j + b - (mask_size[1] - 1) // 2
    if 0 <= other[0] < height and 0 <= other[1] < width:
      affinity[(slice(None), i, j, *other)] = windows[:, i, j, a, b]
  return affinity.reshape(n, height * width, height * width)


@pytest.mark.parametrize('size', [(4, 3), (5, 5), (1, 4), (3, 1)])
def test_affinities_equal_a_loop_over_windows(size):
  masks = {mask_size: random(2, *size, mask_size[0] * mask_size[1])
           for mask_size in [(3, 5), (9, 7), (1, 1), (15, 3), (4, 2), (2, 6)]}
  collected, distributed = jax.jit(lambda: [
      [psa_affinity(mask, mask_size, direction) for mask_size, mask in masks.items()]
      for direction in ('collect', 'distribute')])()
  for i, (mask_size, mask) in enumerate(masks.items()):
    expected = expected_affinity(mask, mask_size)
    np.testing.assert_array_equal(collected[i], expected)
    np.testing.assert_array_equal(distributed[i], expected.transpose(0, 2, 1))


@pytest.mark.parametrize('direction', ['collect', 'distribute'])
@pytest.mark.parametrize('size, mask_size', [((4, 3), (3, 5)), ((3, 4), (9, 7)), ((1, 5), (3, 3))])
def test_point_wise_attention_is_the_softmax_over_sources(size, mask_size, direction):
  def plain(mask, x):
    weights = jax.nn.softmax(psa_affinity(mask, mask_size, direction))
    return jnp.einsum('ntp,npc->ntc', weights, x.reshape(2, -1, 6)).reshape(x.shape)

  assert_same_function(lambda mask, x: attention.psa_attend(mask, x, mask_size, direction), plain,
                       random(2, *size, mask_size[0] * mask_size[1]), random(2, *size, 6, seed=1),
                       values=1e-5, gradients=1e-5)


def test_point_wise_attention_keeps_no_weights():
  mask, x = shape(1, 64, 32, 9 * 9), shape(1, 64, 32, 16)
  for direction in ('collect', 'distribute'):
    kept = kept_bytes(
        lambda mask, x: attention.psa_attend(mask, x, (9, 9), direction), mask, x)
    assert kept < 2 * 4 * (mask.size + x.size) < (64 * 32) ** 2 * 4


# All of them

MODULES = {
    'criss_cross': (attention.CrissCrossAttention(2), {}),
    'position': (attention.PositionAttention(2), {}),
    'channel': (attention.ChannelAttention(), {}),
    'global_channel': (attention.GlobalChannelAttention(), {}),
    'cosine_channel': (attention.CosineChannelAttention(), {}),
    'structure_affinity': (attention.StructureAffinity(3, 2), {'train': True}),
    'structure_affinity_printed': (attention.StructureAffinity(3, 2, 'printed'), {'train': True}),
    'expectation_maximization': (attention.ExpectationMaximization(3), {'train': True}),
    'non_local': (attention.NonLocal(), {'train': True}),
}


def half(name):
  """The module with half precision, if it has a choice."""
  module, mode = MODULES[name]
  return (module.clone(dtype=jnp.bfloat16) if hasattr(module, 'dtype') else module), mode


@pytest.mark.parametrize('size', [(1, 4), (5, 1)])
@pytest.mark.parametrize('name', MODULES)
def test_narrow_maps_have_finite_values_and_gradients(name, size):
  module, mode = MODULES[name]
  noise = random(1, *size, 6)
  variables = moved_variables(module, noise, **mode)

  @jax.jit
  def gradients(x):
    def total(params, x):
      y, _ = module.apply({**variables, **params}, x, mutable=['batch_stats'], **mode)
      return sum(jnp.sum(jnp.square(y)) for y in jax.tree.leaves(y))
    return jax.value_and_grad(total, (0, 1))({'params': variables.get('params', {})}, x)

  for x in (noise, jnp.zeros_like(noise), 1e4 * noise):
    assert all(np.isfinite(y).all() for y in jax.tree.leaves(gradients(x)))


@pytest.mark.parametrize('name', MODULES)
def test_half_precision_keeps_softmaxes_and_parameters_in_float32(name):
  module, mode = half(name)
  x = random(1, 4, 3, 6).astype(jnp.bfloat16)
  apply = lambda x: module.init_with_output(jax.random.key(0), x, **mode)
  y, variables = jax.eval_shape(apply, x)
  assert jax.tree.leaves(y)[0].dtype == jnp.bfloat16
  assert {x.dtype for x in jax.tree.leaves(variables)} <= {jnp.dtype('float32')}
  exponentials = re.findall(r':(\w+)\[[^]]*\] = exp\b', str(jax.make_jaxpr(apply)(x)))
  assert exponentials and set(exponentials) == {'f32'}


def test_half_precision_follows_single_precision():
  x = random(1, 4, 3, 6)
  for name in ('criss_cross', 'position', 'non_local'):
    module, mode = MODULES[name]
    mode = dict.fromkeys(mode, False)  # of training
    variables = moved_variables(module, x, **mode)
    apply = jax.jit(lambda variables, x: (
        half(name)[0].apply(variables, x.astype(jnp.bfloat16), **mode).astype(jnp.float32),
        module.apply(variables, x, **mode)))
    np.testing.assert_allclose(*apply(variables, x), rtol=0.1, atol=0.1)
