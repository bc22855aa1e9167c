"""Total variation: numbers by hand, differences, reference values."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.losses.total_variation import total_variation


def test_by_hand():
  """[[0, 1, 1], [1, 1, 0]] has two vertical and two horizontal steps of 1 among 3 and 4 pairs."""
  probs = jnp.array([[[0, 1, 1], [1, 1, 0]], [[1, 1, 1], [0, 0, 0]]], jnp.float32)
  np.testing.assert_allclose(total_variation(probs), [2 / 3 + 2 / 4, 3 / 3], rtol=1e-6)
  np.testing.assert_allclose(
      total_variation(probs, normalization='paper'), [2 / 4 + 2 / 3, 3 / 4], rtol=1e-6)


@pytest.mark.parametrize('normalization, name', [
    ('terms', 'tv_pixel_normalised'), ('paper', 'tv_as_printed')])
def test_reference(golden, normalization, name):
  value = total_variation(jnp.asarray(golden['p'][:, 0]), normalization=normalization)
  np.testing.assert_allclose(np.mean(value), golden[name], rtol=1e-6)


@pytest.mark.parametrize('normalization', ['terms', 'paper'])
def test_gradient(check_gradient, normalization):
  probs = np.random.default_rng(0).uniform(size=(2, 4, 5))
  check_gradient(lambda x: total_variation(x, normalization=normalization), probs)


@pytest.mark.parametrize('normalization, expected', [('terms', (0, 1, 1)), ('paper', (0, 2, 2))])
def test_single_row_column_and_pixel(normalization, expected):
  """A lone direction of n = 2 steps of 1; as printed, its divisor is the other's 0, taken as 1."""
  probs = [np.reshape(np.float32([0, 1, 0])[:height * width], (1, height, width))
           for height, width in ((1, 1), (1, 3), (3, 1))]
  total = jax.value_and_grad(lambda x: jnp.sum(total_variation(x, normalization=normalization)))
  values, gradients = zip(*jax.jit(lambda probs: [total(x) for x in probs])(probs))
  np.testing.assert_allclose(values, expected, rtol=1e-6)
  assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_speckle_costs_more_than_a_block_of_its_area():
  block, speckle = np.zeros((2, 1, 8, 8), np.float32)
  block[0, 2:4, 2:4] = 1
  speckle[0, [0, 2, 4, 6], [1, 3, 5, 7]] = 1
  assert total_variation(jnp.asarray(speckle))[0] > total_variation(jnp.asarray(block))[0]


def test_unknown_normalization():
  with pytest.raises(ValueError, match="must be 'terms' or 'paper', got 'pixels'"):
    total_variation(jnp.zeros((1, 2, 2)), normalization='pixels')
