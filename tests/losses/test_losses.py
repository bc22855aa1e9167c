"""Objectives by name: their sums, their options, and hostile inputs to each."""
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from spinejax import losses
from spinejax.losses import cross_entropy
from spinejax.losses import dice
from spinejax.losses import seam
from spinejax.losses.total_variation import total_variation

SIZE = (8, 8)
BINARY = ('bce_tv', 'weighted_bce')
CONFIGS = [
    {'name': 'bce_tv', 'tv_weight': 0.4},
    {'name': 'weighted_bce', 'positive_weight': 100.0},
    {'name': 'cross_entropy'},
    {'name': 'dice', 'smoothing': 1.0},
    {'name': 'squared_dice'},
    {'name': 'cross_entropy_dice', 'reduction': 'global'},
    {'name': 'cross_entropy_tv'},
    {'name': 'seam', 'branch_weight': 1.0},
    {'name': 'seam', 'center': 'class'},
    {'name': 'wave_ct', 'reconstruction_weight': 0.5},
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


def evaluate(name, outputs, batch, **weights):
  return losses.LOSSES[name](outputs, batch, **weights)


def classes_of(config):
  return 1 if config['name'] in BINARY else 4


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: '-'.join(map(str, config.values())))
def test_hostile_inputs_and_descent(config):
  """Per-example, finite in value and gradient, whatever the truth and however sure the logits.

  The gradient with respect to all that an objective supervises points downhill.
  """
  loss = losses.create_loss(config)

  @jax.jit
  def differentiate(outputs, batch):
    def total(outputs):
      value, parts = loss(outputs, batch)
      return jnp.sum(value), (value, parts)
    return jax.grad(total, has_aux=True)(outputs)

  outputs, batch = example(num_classes=classes_of(config))
  gradients, (before, _) = differentiate(outputs, batch)
  before = jnp.sum(before)
  step = 0.01 * before / sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients))
  moved = jax.tree.map(lambda value, grad: value - step * grad, outputs, gradients)
  after = jnp.sum(differentiate(moved, batch)[1][0])
  np.testing.assert_allclose(before - after, 0.01 * before, rtol=0.15)

  for fill in ('background', 'all foreground', 'one pixel', 'mixed'):
    for scale in (1.0, 0.0, 1e4):
      outputs, batch = example(fill, classes_of(config), scale)
      if scale == 1e4:
        outputs = jax.tree.map(lambda x: 1e4 * jnp.sign(x), outputs)
      gradients, (value, parts) = differentiate(outputs, batch)
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


def test_one_logit_dice_is_binary():
  outputs, batch = example(num_classes=1)
  target = (batch['label'] > 0).astype(jnp.float32)[..., None]
  np.testing.assert_allclose(
      evaluate('dice', outputs, batch)[0],
      dice.dice(jax.nn.sigmoid(outputs['logits']), target), rtol=1e-6)


def test_bce_tv_is_the_weighted_sum():
  outputs, batch = example(num_classes=1)
  value, parts = evaluate('bce_tv', outputs, batch, tv_weight=0.7, normalization='paper')
  logits, target = outputs['logits'][..., 0], (batch['label'] > 0).astype(jnp.float32)
  np.testing.assert_allclose(
      parts['binary_cross_entropy'], cross_entropy.binary_cross_entropy(logits, target), rtol=1e-6)
  np.testing.assert_allclose(
      parts['total_variation'],
      total_variation(jax.nn.sigmoid(logits), normalization='paper'), rtol=1e-6)
  np.testing.assert_allclose(
      value, parts['binary_cross_entropy'] + 0.7 * parts['total_variation'], rtol=1e-6)
  unet, _ = evaluate('bce_tv', outputs, batch, tv_weight=0.0)
  np.testing.assert_allclose(unet, parts['binary_cross_entropy'], rtol=1e-6)


def test_weighted_bce_takes_every_class_above_0_as_foreground():
  outputs, batch = example(num_classes=1)
  merged = {'label': (batch['label'] > 0).astype(jnp.int32)}
  values = [evaluate('weighted_bce', outputs, labels, positive_weight=3.0)[0]
            for labels in (batch, merged)]
  np.testing.assert_array_equal(*values)


def test_seam_is_the_weighted_sum():
  outputs, batch = example()
  value, parts = evaluate('seam', outputs, batch, structure_weight=0.3, center_weight=2.0)
  key, label = outputs['key_logits'], batch['label']
  expected = {
      'cross_entropy': cross_entropy.softmax_cross_entropy(outputs['logits'], label),
      'class_supervision': seam.class_supervision(key, label),
      'center_regression': seam.center_regression(key, label, batch['cells'])}
  assert parts.keys() == expected.keys()
  for name, part in expected.items():
    np.testing.assert_allclose(parts[name], part, rtol=1e-6)
  np.testing.assert_allclose(
      value, parts['cross_entropy'] + 0.3 * (
          parts['class_supervision'] + 2.0 * parts['center_regression']), rtol=1e-6)
  without, _ = evaluate('seam', outputs, batch, structure_weight=0.0)
  np.testing.assert_array_equal(without, evaluate('cross_entropy', outputs, batch)[0])


@pytest.mark.parametrize(
    'weights', [{'center_weight': 0.0}, {'structure_weight': 0.0}, {'center': 'class'}])
def test_seam_reads_cells_only_when_it_says_so(weights):
  config = {'name': 'seam', **weights}
  outputs, batch = example()
  assert losses.needs_cells({'name': 'seam'}) and not losses.needs_cells(config)
  loss = losses.create_loss(config)
  value, parts = loss(outputs, {'label': batch['label']})
  np.testing.assert_array_equal(value, loss(outputs, batch)[0])
  assert ('center_regression' in parts) == ('center' in weights)


def test_cross_entropy_dice_is_the_weighted_sum():
  outputs, batch = example()
  value, parts = evaluate('cross_entropy_dice', outputs, batch)
  probs = jax.nn.softmax(outputs['logits'])
  one_hot = jax.nn.one_hot(batch['label'], 4, dtype=jnp.float32)
  np.testing.assert_allclose(parts['squared_dice'], dice.squared_dice(probs, one_hot), rtol=1e-6)
  np.testing.assert_allclose(
      value, evaluate('cross_entropy', outputs, batch)[0] + 3.0 * parts['squared_dice'], rtol=1e-6)


def test_cross_entropy_tv_of_two_classes_is_that_of_one_map():
  outputs, batch = example(num_classes=2)
  batch['label'] = jnp.minimum(batch['label'], 1)
  value, parts = evaluate('cross_entropy_tv', outputs, batch, tv_weight=0.7)
  logit = outputs['logits'][..., 1:] - outputs['logits'][..., :1]
  binary, binary_parts = evaluate('bce_tv', {'logits': logit}, batch, tv_weight=0.7)
  np.testing.assert_allclose(parts['total_variation'], binary_parts['total_variation'], rtol=1e-5)
  np.testing.assert_allclose(value, binary, rtol=1e-5)


def test_wave_ct_adds_the_mean_squared_residual_in_training():
  outputs, batch = example()
  plain, _ = evaluate('cross_entropy', outputs, batch)
  value, parts = evaluate('wave_ct', outputs, batch, reconstruction_weight=0.5)
  squares = np.square(outputs['reconstruction_residual']).reshape(2, -1).mean(1)
  np.testing.assert_allclose(parts['reconstruction'], squares, rtol=1e-6)
  np.testing.assert_allclose(value, plain + 0.5 * squares, rtol=1e-6)
  value, parts = evaluate('wave_ct', {'logits': outputs['logits']}, batch)
  np.testing.assert_array_equal(value, plain)
  assert 'reconstruction' not in parts


def test_other_heads_add_the_same_objective_with_their_weights():
  outputs, batch = example()
  outputs['position_logits'] = outputs['logits'] + 1.0 * outputs['channel_logits']
  of = lambda head: evaluate(
      'cross_entropy_dice', {'logits': outputs[head]}, batch, reduction='global')[0]
  config = {'name': 'cross_entropy_dice', 'reduction': 'global'}
  value, parts = losses.create_loss(config)(outputs, batch)
  np.testing.assert_allclose(
      value, of('logits') + of('position_logits') + of('channel_logits') + 0.4 * of('aux_logits'),
      rtol=1e-6)
  np.testing.assert_array_equal(
      parts['aux/cross_entropy'],
      evaluate('cross_entropy', {'logits': outputs['aux_logits']}, batch)[0])
  assert {'cross_entropy', 'position/squared_dice', 'channel/squared_dice'} <= parts.keys()
  value, parts = losses.create_loss(
      {**config, 'auxiliary_weight': 0.7, 'branch_weight': 0.0})(outputs, batch)
  np.testing.assert_allclose(value, of('logits') + 0.7 * of('aux_logits'), rtol=1e-6)
  assert 'position/cross_entropy' not in parts
  # In prediction the heads are absent.
  value, _ = losses.create_loss(config)({'logits': outputs['logits']}, batch)
  np.testing.assert_array_equal(value, of('logits'))


def test_create_loss_reads_any_mapping():
  outputs, batch = example()
  del outputs['channel_logits']
  weights = {'structure_weight': 0.2, 'center_weight': 1.0}
  expected, _ = evaluate('seam', outputs, batch, **weights)
  for make in (dict, ml_collections.ConfigDict, ml_collections.FrozenConfigDict):
    config = make({'name': 'seam', **weights, 'auxiliary_weight': 0.0})
    assert losses.needs_cells(config) and config['name'] == 'seam'
    np.testing.assert_array_equal(losses.create_loss(config)(outputs, batch)[0], expected)


@pytest.mark.parametrize('config, sentence', [
    ({'name': 'focal'}, r"config.loss.name must be one of bce_tv, .*, wave_ct; got 'focal'"),
    ({'tv_weight': 0.4}, r'config.loss.name must be one of .*; got None'),
    ({'name': 'seam', 'gamma': 1.0}, r"loss 'seam' has no argument gamma; it takes "
     'structure_weight, center_weight, center, center_unit, auxiliary_weight, branch_weight'),
    ({'name': 'weighted_bce'}, r"loss 'weighted_bce' needs a value for config.loss.positive_weigh"),
    ({'name': 'bce_tv', 'normalization': 'pixels'},
     "config.loss.normalization must be 'terms' or 'paper', got 'pixels'"),
    ({'name': 'centroid', 'gradient': None},
     "config.loss.gradient must be 'straight_through' or 'published', got None"),
])
@pytest.mark.parametrize('function', [losses.create_loss, losses.needs_cells])
def test_config_errors(function, config, sentence):
  with pytest.raises(ValueError, match=sentence):
    function(config)


@pytest.mark.parametrize('name', ['cross_entropy', 'cross_entropy_dice', 'cross_entropy_tv',
                                  'seam', 'wave_ct'])
def test_softmax_losses_refuse_one_logit(name):
  """Their softmax would be 1 everywhere and the loss 0: training would do nothing."""
  with pytest.raises(ValueError, match=f"loss '{name}' expects a logit for every class"):
    evaluate(name, *example(num_classes=1))


@pytest.mark.parametrize('loss', [
    losses.LOSSES['bce_tv'],
    functools.partial(losses.LOSSES['weighted_bce'], positive_weight=1.0)])
def test_binary_losses_refuse_several_logits(loss):
  with pytest.raises(ValueError, match='expects one logit per pixel, got 4'):
    loss(*example())
