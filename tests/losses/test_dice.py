"""Dice losses: numbers by hand, differences, reference values, empty targets."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.losses.dice import dice, squared_dice

PROBS = np.array([0.5, 1.0, 0.0, 0.5], np.float32)
TARGET = np.array([1, 1, 0, 0], np.float32)


def as_images(values):
  """[N, 1, 2, 2, 1]: one channel of three dimensions."""
  return jnp.asarray(values, jnp.float32).reshape(-1, 1, 2, 2, 1)


def as_one_example(images):
  """[N, C, H, W] to [1, NH, W, C]: references add up over the batch."""
  return jnp.asarray(images).transpose(0, 2, 3, 1).reshape(1, -1, images.shape[3], images.shape[1])


def softmax_reference(golden):
  exponentials = np.exp(golden['logits'])
  probs = exponentials / exponentials.sum(axis=1, keepdims=True)
  one_hot = np.eye(4, dtype=np.float32)[golden['labels']].transpose(0, 3, 1, 2)
  return as_one_example(probs), as_one_example(one_hot)


def test_dice_by_hand():
  """sum(p t) = 1.5, sum p = 2, sum t = 2."""
  value = dice(as_images([PROBS, TARGET]), as_images([TARGET, TARGET]))
  np.testing.assert_allclose(value, [1 - 3 / 4, 0], atol=1e-6)
  value = dice(as_images([PROBS]), as_images([TARGET]), smoothing=1.0)
  np.testing.assert_allclose(value, [1 - 4 / 5], rtol=1e-6)


def test_squared_dice_by_hand():
  """sum p^2 = 1.5."""
  value = squared_dice(as_images([PROBS, TARGET]), as_images([TARGET, TARGET]))
  np.testing.assert_allclose(value, [1 - 3 / 3.5, 0], atol=1e-6)


def test_squared_dice_reductions_by_hand():
  """Two classes: overlaps 1.5 and 1, totals 3.5 and 1.25 + 2."""
  second, its_target = [1, 0.5, 0, 0], [1, 0, 0, 1]
  probs = jnp.stack([jnp.asarray(PROBS), jnp.array(second)], axis=-1).reshape(1, 2, 2, 2)
  target = jnp.stack(
      [jnp.asarray(TARGET), jnp.array(its_target, jnp.float32)], axis=-1).reshape(1, 2, 2, 2)
  np.testing.assert_allclose(
      squared_dice(probs, target), [((1 - 3 / 3.5) + (1 - 2 / 3.25)) / 2], rtol=1e-6)
  np.testing.assert_allclose(
      squared_dice(probs, target, reduction='global'), [1 - 5 / 6.75], rtol=1e-6)


def test_dice_reference(golden):
  value = dice(as_one_example(golden['p']), as_one_example(golden['t']))
  np.testing.assert_allclose(value, [golden['dice_001']], rtol=1e-5)


@pytest.mark.parametrize('reduction, name', [
    ('class', 'dice_sq_per_class'), ('global', 'dice_sq_global')])
def test_squared_dice_reference(golden, reduction, name):
  value = squared_dice(*softmax_reference(golden), reduction=reduction)
  np.testing.assert_allclose(value, [golden[name]], rtol=1e-5)


@pytest.mark.parametrize('loss', [
    dice, lambda p, t: dice(p, t, smoothing=1.0), squared_dice,
    lambda p, t: squared_dice(p, t, reduction='global')])
@pytest.mark.parametrize('shape', [(2, 3, 4, 3), (2, 2, 3, 2, 1)])
def test_gradients(check_gradient, loss, shape):
  random = np.random.default_rng(0)
  probs = random.uniform(0.1, 0.9, shape)
  target = (random.uniform(size=shape) < 0.5).astype(float)
  check_gradient(lambda p: loss(p, jnp.asarray(target)), probs)


@pytest.mark.parametrize('loss', [dice, squared_dice])
def test_empty_target_has_loss_one_and_no_gradient(loss):
  target = jnp.zeros((1, 2, 2, 1))
  for level in (0.0, 0.3, 1.0):
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(loss(p, target)))(
        jnp.full((1, 2, 2, 1), level))
    assert value == 1
    np.testing.assert_array_equal(gradient, np.zeros((1, 2, 2, 1)))


@pytest.mark.parametrize('loss', [dice, squared_dice])
def test_smooth_lets_an_empty_target_teach(loss):
  target = jnp.zeros((1, 2, 2, 1))
  smoothed = lambda p: jnp.sum(loss(p, target, smoothing=1.0))
  np.testing.assert_allclose(smoothed(jnp.zeros((1, 2, 2, 1))), 0, atol=1e-6)
  gradient = jax.grad(smoothed)(jnp.full((1, 2, 2, 1), 0.3))
  assert (np.asarray(gradient) > 0.05).all()


def test_unknown_reduction():
  with pytest.raises(ValueError, match="must be 'class' or 'global', got 'image'"):
    squared_dice(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)), reduction='image')
