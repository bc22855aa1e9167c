"""Random arrays and the comparison of two functions, shared by the tests of networks."""
import jax
import jax.numpy as jnp
import numpy as np

from spinejax.models import attention


def random(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def assert_same_function(f, g, *args):
  """Equal values and equal gradients of a random projection."""
  cotangent = random(*jax.eval_shape(f, *args).shape, seed=9)

  def values_and_gradients(function):
    y, pullback = jax.vjp(function, *args)
    return y, pullback(cotangent)

  with jax.default_matmul_precision('highest'):
    (y, pulled), (z, expected) = jax.jit(
        lambda: (values_and_gradients(f), values_and_gradients(g)))()
  np.testing.assert_allclose(y, z, rtol=2e-5, atol=2e-5)
  for a, b in zip(pulled, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def psa_affinity(mask, mask_size, direction):
  """All affinities [N,HW,HW] of point-wise attention, targets first: mask [N,H,W,mh*mw]."""
  n, height, width, _ = mask.shape
  windows = mask.reshape(n, height, width, *mask_size)
  rows = [attention.affinity_of_row(windows, jnp.int32(row), direction == 'collect')
          for row in range(height)]
  return jnp.concatenate(rows, 1)
