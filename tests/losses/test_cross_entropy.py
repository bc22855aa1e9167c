"""Cross entropies: numbers by hand, differences, reference values."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.losses.cross_entropy import (
    balanced_positive_weight, binary_cross_entropy, softmax_cross_entropy,
    weighted_binary_cross_entropy)

LOG3 = np.log(3.0)


def logit(p):
  return np.log(p) - np.log1p(-p)


def test_binary_cross_entropy_by_hand():
  """p = 3/4 at both pixels: -log 3/4 for the bone, -log 1/4 for the background."""
  logits = jnp.array([[LOG3, LOG3], [0, 0]], jnp.float32)
  target = jnp.array([[1, 0], [1, 0]], jnp.float32)
  value = binary_cross_entropy(logits, target)
  np.testing.assert_allclose(value, [(np.log(4 / 3) + np.log(4)) / 2, np.log(2)], rtol=1e-6)


def test_weighted_binary_cross_entropy_by_hand():
  logits, target = jnp.array([[LOG3, LOG3]], jnp.float32), jnp.array([[1, 0]], jnp.float32)
  value = weighted_binary_cross_entropy(logits, target, 5.0)
  np.testing.assert_allclose(value, [(5 * np.log(4 / 3) + np.log(4)) / 2], rtol=1e-6)


def test_weight_of_one_is_the_plain_cross_entropy():
  random = np.random.default_rng(0)
  logits = jnp.asarray(random.normal(size=(2, 3, 4, 5)), jnp.float32)
  target = jnp.asarray(random.uniform(size=(2, 3, 4, 5)), jnp.float32)
  np.testing.assert_allclose(
      weighted_binary_cross_entropy(logits, target, 1.0),
      binary_cross_entropy(logits, target), rtol=1e-6)


@pytest.mark.parametrize('positive, negative, weight', [
    (10, 50, 5.0), (1, 10_000, 100.0), (0, 10, 100.0), (50, 10, 0.2)])
def test_balanced_positive_weight(positive, negative, weight):
  assert balanced_positive_weight(positive, negative) == weight
  assert balanced_positive_weight(1, 10_000, limit=30.0) == 30.0


def test_softmax_cross_entropy_by_hand():
  """Softmax of (0, log 3) is (1/4, 3/4)."""
  logits = jnp.array([[[[0, LOG3], [0, LOG3]]]], jnp.float32)
  label = jnp.array([[[0, 1]]], jnp.int32)
  expected = (np.log(4) + np.log(4 / 3)) / 2
  np.testing.assert_allclose(softmax_cross_entropy(logits, label), [expected], rtol=1e-6)
  np.testing.assert_allclose(
      softmax_cross_entropy(logits, label, divide_by_classes=True), [expected / 2], rtol=1e-6)


def test_gradients(check_gradient):
  random = np.random.default_rng(2)
  logits = random.normal(size=(2, 3, 4, 4))
  target = (random.uniform(size=logits.shape) < 0.4).astype(float)
  label = random.integers(0, 4, (2, 3, 4))
  check_gradient(lambda x: binary_cross_entropy(x, jnp.asarray(target)), logits)
  check_gradient(
      lambda x: weighted_binary_cross_entropy(x, jnp.asarray(target), 7.0), logits)
  check_gradient(lambda x: softmax_cross_entropy(x, jnp.asarray(label)), logits)


@pytest.mark.parametrize('size', [1e4, -1e4])
def test_huge_logits(size):
  """A wrong pixel costs its logit, a right one nothing; gradients are those of p - t."""
  logits, target = jnp.full((1, 2), size, jnp.float32), jnp.array([[0, 1]], jnp.float32)
  value, gradient = jax.value_and_grad(
      lambda x: jnp.sum(binary_cross_entropy(x, target)))(logits)
  np.testing.assert_allclose(value, 0.5e4)
  np.testing.assert_allclose(gradient, [[0.5, 0] if size > 0 else [0, -0.5]], atol=1e-7)

  logits = jnp.array([[[size, 0], [size, 0]]], jnp.float32)
  value, gradient = jax.value_and_grad(
      lambda x: jnp.sum(softmax_cross_entropy(x, jnp.array([[0, 1]], jnp.int32))))(logits)
  np.testing.assert_allclose(value, 0.5e4)
  assert np.isfinite(gradient).all()


def test_binary_reference(golden):
  value = binary_cross_entropy(jnp.asarray(logit(golden['p'])), jnp.asarray(golden['t']))
  np.testing.assert_allclose(np.mean(value), golden['bce'], rtol=1e-5)


def test_softmax_reference(golden):
  logits = jnp.asarray(golden['logits']).transpose(0, 2, 3, 1)
  label = jnp.asarray(golden['labels'], jnp.int32)
  np.testing.assert_allclose(
      np.mean(softmax_cross_entropy(logits, label)), golden['ce_mean'], rtol=1e-5)
  np.testing.assert_allclose(
      np.mean(softmax_cross_entropy(logits, label, divide_by_classes=True)),
      golden['ce_eq5'], rtol=1e-5)


def test_label_outside_the_classes_counts_as_a_pixel_of_no_loss(golden):
  """The reference's averaging of ignored pixels (value 255)."""
  logits = jnp.asarray(golden['logits']).transpose(0, 2, 3, 1)
  label = jnp.asarray(golden['labels_ignore'], jnp.int32)
  np.testing.assert_allclose(
      np.mean(softmax_cross_entropy(logits, label)), golden['ce_mmseg_ignore255'], rtol=1e-5)
