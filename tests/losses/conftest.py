"""Checks shared by the tests of losses."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def check_gradient(loss: Callable, *arrays: np.ndarray, step: float = 1e-5) -> None:
  """Gradients of sum(loss) equal central differences in float64, each array in three directions."""
  with jax.enable_x64(True):
    arrays = [jnp.asarray(array, np.float64) for array in arrays]
    total = jax.jit(lambda *args: jnp.sum(loss(*args)))
    gradients = jax.jit(jax.grad(total, argnums=tuple(range(len(arrays)))))(*arrays)
    random = np.random.default_rng(7)
    for index, gradient in enumerate(gradients):
      for _ in range(3):
        direction = jnp.asarray(random.normal(size=gradient.shape))
        move = lambda amount: total(
            *[a + amount * direction if i == index else a for i, a in enumerate(arrays)])
        difference = (move(step) - move(-step)) / (2 * step)
        product = jnp.sum(gradient * direction)
        assert abs(difference) > 1e-9, 'the direction does not test the gradient'
        np.testing.assert_allclose(product, difference, rtol=1e-5, atol=1e-9)


@pytest.fixture(name='check_gradient')
def check_gradient_fixture() -> Callable:
  return check_gradient


@pytest.fixture(scope='session')
def golden(shared) -> dict[str, np.ndarray]:
  """Reference values of pixel losses; images there are [N, C, H, W]."""
  with np.load(shared / 'golden' / 'losses_ops.npz') as arrays:
    return dict(arrays)
