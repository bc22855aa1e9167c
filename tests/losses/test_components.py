"""Labels on the device give scipy's partition; regions and centroids equal slow ones."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from spinejax.losses import components


def spiral(size):
  """One path of one pixel's width from the border to the center."""
  mask = np.zeros((size, size), bool)
  y, x, dy, dx = 0, 0, 0, 1
  mask[0, 0] = True
  turns = 0
  while turns < 2:
    ahead, further = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
    inside = 0 <= ahead[0] < size and 0 <= ahead[1] < size
    free = inside and not (0 <= further[0] < size and 0 <= further[1] < size and mask[further])
    if free:
      y, x, turns = *ahead, 0
      mask[y, x] = True
    else:
      dy, dx, turns = dx, -dy, turns + 1
  return mask


def masks():
  random = np.random.default_rng(0)
  for shape in ((13, 17), (8, 9, 7), (1, 6), (5,)):
    for density in (0.0, 0.3, 0.6, 0.8, 1.0):
      yield random.random(shape) < density
  yield spiral(33)
  yield np.indices((16, 15)).sum(0) % 2 == 0  # a checkerboard
  yield np.indices((6, 5, 4)).sum(0) % 2 == 0


label_components = jax.jit(components.label_components, static_argnames='connectivity')


@pytest.mark.parametrize('connectivity', ['face', 'full'])
@pytest.mark.parametrize('mask', list(masks()), ids=lambda mask: str(mask.shape))
def test_the_partition_is_that_of_scipy(mask, connectivity):
  structure = np.ones((3,) * mask.ndim) if connectivity == 'full' else None
  expected, count = ndimage.label(mask, structure)
  roots = np.asarray(label_components(mask, connectivity=connectivity))
  assert roots.dtype == np.int32 and (roots[~mask] == mask.size).all()
  pairs = set(zip(roots[mask].tolist(), expected[mask].tolist()))
  assert len(pairs) == count == len({root for root, _ in pairs})
  for root, label in pairs:  # the root is the first pixel of its component
    assert root == np.flatnonzero(expected == label)[0]


def test_labels_under_vmap_are_those_of_each():
  random = np.random.default_rng(1).random((4, 12, 11)) < 0.55
  together = jax.jit(jax.vmap(components.label_components))(random)
  for mask, roots in zip(random, together):
    np.testing.assert_array_equal(roots, label_components(mask))


def test_another_connectivity_is_refused():
  with pytest.raises(ValueError, match="connectivity must be 'face' or 'full', got 'edge'"):
    components.label_components(np.ones((2, 2), bool), connectivity='edge')


@pytest.mark.parametrize('radius', [0, 1, 3])
def test_regions_grow_to_the_nearest_component(radius):
  mask = np.random.default_rng(2).random((15, 14)) < 0.06
  roots = np.asarray(label_components(mask))
  grown = np.asarray(jax.jit(components.grow_components, static_argnums=1)(roots, radius))
  places = np.argwhere(mask)
  for place in np.ndindex(mask.shape):
    squares = ((places - place) ** 2).sum(1)
    if squares.min() > radius ** 2:
      assert grown[place] == mask.size
    else:
      nearest = places[squares == squares.min()]
      assert grown[place] == min(roots[tuple(p)] for p in nearest)


def test_centroids_stand_at_their_roots():
  mask = np.zeros((5, 6), bool)
  mask[0, 0:2] = mask[3:5, 3:6] = True
  centroids = jax.jit(lambda mask: components.centroids(components.label_components(mask)))
  centers, present = centroids(mask)
  assert np.flatnonzero(present).tolist() == [0, 3 * 6 + 3]
  np.testing.assert_allclose(centers[0], [0, 0.5])
  np.testing.assert_allclose(centers[21], [3.5, 4])
  assert np.isfinite(centers).all()
  assert not centroids(np.zeros_like(mask))[1].any()
  assert components.label_components(jnp.zeros((0, 3), bool)).shape == (0, 3)
