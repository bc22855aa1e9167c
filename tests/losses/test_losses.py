"""Objectives by name: their sums, their choices, and hostile inputs to each."""
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from spinejax import losses
from spinejax.losses import center as center_lib
from spinejax.losses import dice
from spinejax.losses import pixel
from spinejax.losses.total_variation import total_variation

SIZE = (8, 8)
BINARY = ('bce_tv', 'weighted_bce')
CONFIGS = [
    {'name': 'bce_tv', 'lam': 0.4},
    {'name': 'weighted_bce', 'positive_weight': 100.0},
    {'name': 'cross_entropy'},
    {'name': 'dice', 'smooth': 1.0},
    {'name': 'squared_dice'},
    {'name': 'cross_entropy_dice', 'reduction': 'global'},
    {'name': 'cross_entropy_tv'},
    {'name': 'seam'},
    {'name': 'seam', 'center': 'class'},
    {'name': 'wave_ct', 'lam': 0.5},
]


def example(fill='mixed', num_classes=4, scale=1.0, seed=0):
  """Outputs and batch of two examples with key logits at stride 4."""
  random = np.random.default_rng(seed)
  label = np.zeros((2, *SIZE), np.int32)
  if fill == 'mixed':
    label = random.integers(0, 4, (2, *SIZE)).astype(np.int32)
  elif fill == 'all foreground':
    label[...] = 1
  elif fill == 'one pixel':
    label[:, 2, 6] = 3
  draw = lambda *shape: jnp.asarray(scale * random.normal(size=shape), jnp.float32)
  outputs = {'logits': draw(2, *SIZE, num_classes), 'key_logits': draw(2, 2, 2, 4),
             'reconstruction_residual': draw(2, *SIZE, 1),
             'aux_logits': draw(2, *SIZE, num_classes),
             'channel_logits': draw(2, *SIZE, num_classes)}
  present = np.stack([(label == index).any((1, 2)) for index in (1, 2, 3)], -1)
  cells = np.broadcast_to(present[:, None, None, :], (2, *SIZE, 3)).astype(np.uint8)
  return outputs, {'label': jnp.asarray(label), 'cells': jnp.asarray(cells)}


def classes_of(config):
  return 1 if config['name'] in BINARY else 4


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: '-'.join(map(str, config.values())))
def test_hostile_inputs(config):
  """Per-example, finite in value and gradient, whatever the truth and however sure the logits."""
  loss = losses.create_loss(config)

  @jax.jit
  def evaluate(outputs, batch):
    def total(outputs):
      value, parts = loss(outputs, batch)
      return jnp.sum(value), (value, parts)
    return jax.grad(total, has_aux=True)(outputs)

  for fill in ('background', 'all foreground', 'one pixel', 'mixed'):
    for scale in (1.0, 0.0, 1e4):
      outputs, batch = example(fill, classes_of(config), scale)
      if scale == 1e4:
        outputs = jax.tree.map(lambda x: 1e4 * jnp.sign(x), outputs)
      gradients, (value, parts) = evaluate(outputs, batch)
      for array in (value, *parts.values()):
        assert array.shape == (2,) and array.dtype == jnp.float32
        assert np.isfinite(array).all(), (fill, scale)
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients)), (fill, scale)


@pytest.mark.parametrize('num_classes', [1, 4])
@pytest.mark.parametrize('name', ['dice', 'squared_dice'])
def test_dice_of_one_pixel_and_of_volumes(name, num_classes):
  random = np.random.default_rng(0)
  for shape in ((2, 1, 1), (2, 2, 3, 4)):
    outputs = {'logits': jnp.asarray(random.normal(size=(*shape, num_classes)), jnp.float32)}
    batch = {'label': jnp.asarray(random.integers(0, 4, shape), jnp.int32)}
    value, _ = losses.create_loss({'name': name})(outputs, batch)
    assert value.shape == (2,) and np.isfinite(value).all()


def test_bce_tv_is_the_weighted_sum():
  outputs, batch = example(num_classes=1)
  value, parts = losses.bce_tv(outputs, batch, lam=0.7, normalization='paper')
  logits, target = outputs['logits'][..., 0], (batch['label'] > 0).astype(jnp.float32)
  np.testing.assert_allclose(
      parts['binary_cross_entropy'], pixel.binary_cross_entropy(logits, target), rtol=1e-6)
  np.testing.assert_allclose(
      parts['total_variation'],
      total_variation(jax.nn.sigmoid(logits), normalization='paper'), rtol=1e-6)
  np.testing.assert_allclose(
      value, parts['binary_cross_entropy'] + 0.7 * parts['total_variation'], rtol=1e-6)
  unet, _ = losses.bce_tv(outputs, batch, lam=0.0)
  np.testing.assert_allclose(unet, parts['binary_cross_entropy'], rtol=1e-6)


def test_weighted_bce_takes_every_bone_as_foreground():
  outputs, batch = example(num_classes=1)
  value, _ = losses.weighted_bce(outputs, batch, positive_weight=3.0)
  merged, _ = losses.weighted_bce(
      outputs, {'label': (batch['label'] > 0).astype(jnp.int32)}, positive_weight=3.0)
  np.testing.assert_array_equal(value, merged)


def test_seam_is_the_weighted_sum():
  outputs, batch = example()
  value, parts = losses.seam(outputs, batch, lam=0.3, beta=2.0)
  key, label = outputs['key_logits'], batch['label']
  np.testing.assert_allclose(
      parts['class_supervision'], center_lib.class_supervision(key, label), rtol=1e-6)
  np.testing.assert_allclose(
      parts['center_regression'], center_lib.center_regression(key, label, batch['cells']),
      rtol=1e-6)
  np.testing.assert_allclose(
      parts['cross_entropy'], pixel.softmax_cross_entropy(outputs['logits'], label), rtol=1e-6)
  np.testing.assert_allclose(
      value, parts['cross_entropy'] + 0.3 * (
          parts['class_supervision'] + 2.0 * parts['center_regression']), rtol=1e-6)


@pytest.mark.parametrize('weights', [{'beta': 0.0}, {'lam': 0.0}, {'center': 'class'}])
def test_seam_reads_cells_only_when_it_says_so(weights):
  config = {'name': 'seam', **weights}
  outputs, batch = example()
  assert not losses.needs_cells(config)
  loss = losses.create_loss(config)
  value, parts = loss(outputs, {'label': batch['label']})
  np.testing.assert_array_equal(value, loss(outputs, batch)[0])
  assert ('center_regression' in parts) == ('center' in weights)


def test_seam_without_lam_is_the_cross_entropy():
  outputs, batch = example()
  np.testing.assert_array_equal(
      losses.seam(outputs, batch, lam=0.0)[0], losses.cross_entropy(outputs, batch)[0])


def test_cross_entropy_dice_is_the_weighted_sum():
  outputs, batch = example()
  value, parts = losses.cross_entropy_dice(outputs, batch)
  probs = jax.nn.softmax(outputs['logits'])
  one_hot = jax.nn.one_hot(batch['label'], 4, dtype=jnp.float32)
  np.testing.assert_allclose(parts['squared_dice'], dice.squared_dice(probs, one_hot), rtol=1e-6)
  np.testing.assert_allclose(
      value, losses.cross_entropy(outputs, batch)[0] + 3.0 * parts['squared_dice'], rtol=1e-6)


def test_cross_entropy_tv_of_two_classes_is_that_of_one_map():
  outputs, batch = example(num_classes=2)
  batch['label'] = jnp.minimum(batch['label'], 1)
  value, parts = losses.cross_entropy_tv(outputs, batch, lam=0.7)
  logit = outputs['logits'][..., 1] - outputs['logits'][..., 0]
  binary, binary_parts = losses.bce_tv({'logits': logit[..., None]}, batch, lam=0.7)
  np.testing.assert_allclose(parts['total_variation'], binary_parts['total_variation'], rtol=1e-5)
  np.testing.assert_allclose(value, binary, rtol=1e-5)


def test_wave_ct_adds_the_mean_squared_residual_in_training():
  outputs, batch = example()
  plain, _ = losses.cross_entropy(outputs, batch)
  value, parts = losses.wave_ct(outputs, batch, lam=0.5)
  squares = np.square(outputs['reconstruction_residual']).reshape(2, -1).mean(1)
  np.testing.assert_allclose(parts['reconstruction'], squares, rtol=1e-6)
  np.testing.assert_allclose(value, plain + 0.5 * squares, rtol=1e-6)
  value, parts = losses.wave_ct({'logits': outputs['logits']}, batch)
  np.testing.assert_array_equal(value, plain)
  assert 'reconstruction' not in parts


def test_other_heads_add_the_same_objective_with_their_weights():
  outputs, batch = example()
  outputs['position_logits'] = outputs['logits'] + 1.0 * outputs['channel_logits']
  of = lambda head: losses.cross_entropy_dice(
      {'logits': outputs[head]}, batch, reduction='global')[0]
  config = {'name': 'cross_entropy_dice', 'reduction': 'global'}
  value, parts = losses.create_loss(config)(outputs, batch)
  np.testing.assert_allclose(
      value, of('logits') + of('position_logits') + of('channel_logits') + 0.4 * of('aux_logits'),
      rtol=1e-6)
  np.testing.assert_array_equal(
      parts['aux/cross_entropy'], losses.cross_entropy({'logits': outputs['aux_logits']}, batch)[0])
  assert {'cross_entropy', 'position/squared_dice', 'channel/squared_dice'} <= parts.keys()
  value, parts = losses.create_loss(
      {**config, 'auxiliary_weight': 0.7, 'branch_weight': 0.0})(outputs, batch)
  np.testing.assert_allclose(value, of('logits') + 0.7 * of('aux_logits'), rtol=1e-6)
  assert 'position/cross_entropy' not in parts
  # In prediction the heads are absent.
  value, _ = losses.create_loss(config)({'logits': outputs['logits']}, batch)
  np.testing.assert_array_equal(value, of('logits'))


def test_one_logit_dice_is_binary():
  outputs, batch = example(num_classes=1)
  target = (batch['label'] > 0).astype(jnp.float32)[..., None]
  np.testing.assert_allclose(
      losses.dice_loss(outputs, batch)[0],
      dice.dice(jax.nn.sigmoid(outputs['logits']), target), rtol=1e-6)


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: '-'.join(map(str, config.values())))
def test_objectives_fall_under_descent(config):
  """The gradient of each objective with respect to all it supervises points downhill."""
  loss = losses.create_loss(config)
  outputs, batch = example(num_classes=classes_of(config))
  total = jax.jit(jax.value_and_grad(lambda outputs: jnp.sum(loss(outputs, batch)[0])))
  before, gradients = total(outputs)
  norm = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients))
  step = 0.01 * before / norm
  after, _ = total(jax.tree.map(lambda value, grad: value - step * grad, outputs, gradients))
  np.testing.assert_allclose(before - after, 0.01 * before, rtol=0.15)


@pytest.mark.parametrize('make', [dict, ml_collections.ConfigDict, ml_collections.FrozenConfigDict])
def test_create_loss_reads_any_mapping(make):
  outputs, batch = example()
  config = make({'name': 'seam', 'lam': 0.2, 'beta': 1.0})
  outputs = {head: outputs[head] for head in ('logits', 'key_logits')}
  value, _ = losses.create_loss(config)(outputs, batch)
  np.testing.assert_array_equal(value, losses.seam(outputs, batch, lam=0.2, beta=1.0)[0])
  assert losses.needs_cells(config)
  assert config['name'] == 'seam'


@pytest.mark.parametrize('config, sentence', [
    ({'name': 'focal'}, r"loss.name must be one of bce_tv, .*, wave_ct; got 'focal'"),
    ({'lam': 0.4}, r'loss.name must be one of .*; got None'),
    ({'name': 'seam', 'gamma': 1.0},
     r"loss 'seam' has no weight gamma; it takes lam, beta, center, auxiliary_weight, branch_w"),
    ({'name': 'weighted_bce'}, r"loss 'weighted_bce' needs a value for loss.positive_weight")])
@pytest.mark.parametrize('function', [losses.create_loss, losses.needs_cells])
def test_config_errors(function, config, sentence):
  with pytest.raises(ValueError, match=sentence):
    function(config)


@pytest.mark.parametrize('name', ['cross_entropy', 'cross_entropy_dice', 'cross_entropy_tv',
                                  'seam', 'wave_ct'])
def test_softmax_losses_refuse_one_logit(name):
  """Their softmax would be 1 everywhere and the loss 0: training would do nothing."""
  with pytest.raises(ValueError, match=f"loss '{name}' expects a logit for every class"):
    losses.LOSSES[name](*example(num_classes=1))


@pytest.mark.parametrize('loss', [
    losses.bce_tv, functools.partial(losses.weighted_bce, positive_weight=1.0)])
def test_binary_losses_refuse_several_logits(loss):
  with pytest.raises(ValueError, match='expects one logit per pixel, got 4'):
    loss(*example())
