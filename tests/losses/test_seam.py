"""SEAM's structure supervision: by hand, against explicit loops, and as something to descend."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from spinejax.losses import seam

center_regression = jax.jit(seam.center_regression, static_argnames=('center', 'unit'))
UNITS = ('image', 'pixel', 'bone')


def components(label, index):
  return ndimage.label(label == index, structure=np.ones((3, 3)))


def nearest_cells(label, num_classes):
  """uint8 [H, W, K-1]: id of the nearest component of each class, by distance to every pixel."""
  height, width = label.shape
  grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), -1)
  cells = np.zeros((height, width, num_classes - 1), np.uint8)
  for index in range(1, num_classes):
    ids, count = components(label, index)
    if count:
      owners = np.argwhere(ids)
      distance = np.square(grid[:, :, None] - owners[None, None]).sum(-1)
      nearest = owners[distance.argmin(-1).ravel()]
      cells[..., index - 1] = ids[tuple(nearest.T)].reshape(height, width)
  return cells


def slow_center_regression(key_logits, label, cells, unit='image', epsilon=1e-6):
  """Equation 7 of one example by loops over classes, components, pixels and axes."""
  height, width, num_classes = key_logits.shape
  probs = np.exp(key_logits - key_logits.max(-1, keepdims=True))
  probs /= probs.sum(-1, keepdims=True)
  total, foreground = 0.0, 0
  for index in range(1, num_classes):
    for component in np.unique(cells[..., index - 1]):
      mass, moment, area, position = 0.0, np.zeros(2), 0, np.zeros(2)
      for i in range(height):
        for j in range(width):
          if cells[i, j, index - 1] != component:
            continue
          point = np.array([(i + 0.5) / height, (j + 0.5) / width])
          mass += probs[i, j, index]
          moment += probs[i, j, index] * point
          if label[i, j] == index:
            area += 1
            position += point
      if area:
        length = {'image': 1, 'pixel': [height, width],
                  'bone': [height / area ** 0.5, width / area ** 0.5]}[unit]
        for error in length * np.abs(moment / max(mass, epsilon) - position / area):
          total += area * (error ** 2 / 2 if error < 1 else error - 0.5)
      foreground += area
  return total / max(foreground, 1)


def blob_label(height=16, width=16):
  """A left and a right bone of class 1 and one of class 2."""
  label = np.zeros((height, width), np.int32)
  label[2:5, 1:4] = 1
  label[2:5, 11:14] = 1
  label[9:13, 6:9] = 2
  return label


def blob_logits(label, num_classes, shift=(0, 0), strength=12.0):
  """Key map sure of the labels moved by `shift` pixels."""
  moved = np.roll(label, shift, axis=(0, 1))
  return (strength * np.eye(num_classes)[moved]).astype(np.float32)


def batched(*arrays):
  return [jnp.asarray(array)[None] for array in arrays]


def test_class_supervision_by_hand():
  """At stride 4 rows and columns 2, 6, ... of the labels are read."""
  key = jnp.asarray([[[[0.0, np.log(3.0)]]]], jnp.float32)
  label = jnp.zeros((1, 4, 4), jnp.int32).at[0, 2, 2].set(1)
  np.testing.assert_allclose(seam.class_supervision(key, label), [np.log(4 / 3)], rtol=1e-6)


def test_resize_nearest():
  for size, rows in {8: [2, 6], 6: [1, 4], 2: [0, 1], 7: [1, 5], 1: [0, 0], 5: [1, 3]}.items():
    array = np.arange(size)[None, :, None]
    np.testing.assert_array_equal(seam.resize_nearest(array, (2, 1))[0, :, 0], rows)


def test_center_regression_by_hand():
  """A bone in the left of two pixels, half the key's mass in the right: center off by 1/4."""
  key = jnp.zeros((1, 1, 2, 2))
  label = jnp.array([[[1, 0]]], jnp.int32)
  cells = jnp.ones((1, 1, 2, 1), jnp.uint8)
  np.testing.assert_allclose(center_regression(key, label, cells), [0.25 ** 2 / 2], rtol=1e-6)


@pytest.mark.parametrize('unit, expected', [
    ('image', 0.25 ** 2 / 2), ('pixel', 2 - 0.5), ('bone', 0.5 ** 2 / 2)])
def test_units_by_hand(unit, expected):
  """A bone of 4x4 pixels in the left half of 4x8, the key's mass everywhere: 2 pixels off."""
  label = jnp.zeros((1, 4, 8), jnp.int32).at[:, :, :4].set(1)
  cells = jnp.ones((1, 4, 8, 1), jnp.uint8)
  value = center_regression(jnp.zeros((1, 4, 8, 2)), label, cells, unit=unit)
  np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_share_of_the_gradient_by_unit():
  """Of 24 bones that are found one row too low. As printed the term does next to nothing."""
  label = np.tile(blob_label(), (4, 2))
  key, label, cells = batched(
      blob_logits(label, 3, (1, 0), strength=4.0), label, nearest_cells(label, 3))

  @jax.jit
  def norms(key):
    terms = [lambda k: seam.class_supervision(k, label)[0], *(
        lambda k, unit=unit: seam.center_regression(k, label, cells, unit=unit)[0]
        for unit in UNITS)]
    return [jnp.linalg.norm(jax.grad(term)(key)) for term in terms]

  supervision, image, pixel, bone = norms(key)
  assert 0 < image < 0.01 * supervision
  assert 0.02 * supervision < bone < supervision < pixel


def test_bones_weigh_by_their_area():
  """Two bones of 3 and 1 pixels with errors of 0 and 1/8 along y."""
  label = jnp.array([1, 1, 1, 0, 0, 0, 1, 0], jnp.int32)[None, :, None]
  cells = jnp.array([1, 1, 1, 1, 2, 2, 2, 2], jnp.uint8)[None, :, None, None]
  mass = np.array([1, 1, 1, 0, 0, 0, 0, 1]) * 40.0
  key = jnp.asarray(np.stack([20 * np.ones(8), mass], -1), jnp.float32)[None, :, None]
  np.testing.assert_allclose(
      center_regression(key, label, cells), [(1 / 8) ** 2 / 2 * 1 / 4], rtol=1e-5)


@pytest.mark.parametrize('seed', range(2))
def test_equals_explicit_loops(seed):
  """Random ragged masks at full size, one class absent, read at stride 4."""
  random = np.random.default_rng(seed)
  label = random.integers(0, 4, (2, 6, 5)).repeat(6, axis=1).repeat(6, axis=2).astype(np.int32)
  label[random.uniform(size=label.shape) < 0.3] = 0
  label[0][label[0] == 2] = 0
  label = label[:, :36, :28]
  cells = np.stack([nearest_cells(one, 4) for one in label])
  key = random.normal(0, 3, (2, 9, 7, 4)).astype(np.float32)
  for unit in UNITS:
    slow = [slow_center_regression(*one, unit)
            for one in zip(key, label[:, 2::4, 2::4], cells[:, 2::4, 2::4])]
    value = center_regression(*map(jnp.asarray, (key, label, cells)), unit=unit)
    np.testing.assert_allclose(value, slow, rtol=1e-4)
  one_each = np.broadcast_to(label.any(), cells.shape).astype(np.uint8)
  slow = [slow_center_regression(*one)
          for one in zip(key, label[:, 2::4, 2::4], one_each[:, 2::4, 2::4])]
  value = center_regression(jnp.asarray(key), jnp.asarray(label), center='class')
  np.testing.assert_allclose(value, slow, rtol=1e-4)


def test_gradient(check_gradient):
  random = np.random.default_rng(3)
  label = np.stack([blob_label(), np.roll(blob_label(), 2, axis=1)])
  cells = jnp.asarray(np.stack([nearest_cells(one, 3) for one in label]))
  key = random.normal(size=(2, 4, 4, 3))
  for unit in UNITS:
    check_gradient(lambda k, unit=unit: seam.center_regression(
        k, jnp.asarray(label), cells, unit=unit), key)
  check_gradient(lambda k: seam.center_regression(k, jnp.asarray(label), center='class'), key)
  check_gradient(lambda k: seam.class_supervision(k, jnp.asarray(label)), key)


@pytest.mark.parametrize('mode, unit', [
    ('component', 'image'), ('component', 'pixel'), ('class', 'bone')])
def test_extremes_are_finite(mode, unit):
  """Without foreground value and gradient are 0; a bone whose mass is exactly 0 has a finite error.
  """
  def evaluate(label, key):
    arrays = batched(key.astype(np.float32), label, nearest_cells(label, 3))
    return jax.value_and_grad(lambda k, *rest: jnp.sum(
        center_regression(k, *rest, center=mode, unit=unit)))(*arrays)

  value, gradient = evaluate(np.zeros((16, 16), np.int32), np.zeros((16, 16, 3)))
  assert value == 0 and not np.any(gradient)
  value, gradient = evaluate(blob_label(), 1e4 * np.eye(3)[np.zeros((16, 16), int)])
  assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all()


def test_bone_lost_at_stride_four_adds_nothing():
  """The label's pixel (0, 0) is none of rows 2, 6, ...; the other bone alone is left."""
  label = blob_label()
  speck = label.copy()
  speck[0, 15] = 1
  key = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
  cells = nearest_cells(label, 3)
  alone = cells.copy()
  alone[0, 15, 0] = 3
  np.testing.assert_array_equal(center_regression(*batched(key, speck, alone)),
                                center_regression(*batched(key, label, cells)))


def test_descent_moves_the_centers():
  """From blobs 2 pixels off, descent on the key map brings the mass to the truth."""
  label = blob_label()
  key, *rest = batched(blob_logits(label, 3, (2, 0), strength=4.0), label, nearest_cells(label, 3))

  def offset(key):
    """Rows between the mass of class 2 and its bone."""
    mass = jax.nn.softmax(key)[0, ..., 2].sum(axis=1)
    return float(jnp.sum(mass * jnp.arange(16, dtype=jnp.float32)) / mass.sum() - 10.5)

  def descend(_, key):
    """Polyak's step, for a loss whose minimum is 0."""
    value, gradient = jax.value_and_grad(
        lambda k: seam.center_regression(k, *rest)[0])(key)
    return key - value / jnp.maximum(jnp.sum(jnp.square(gradient)), 1e-12) * gradient

  moved = jax.jit(lambda key: jax.lax.fori_loop(0, 20, descend, key))(key)
  before, after = center_regression(key, *rest)[0], center_regression(moved, *rest)[0]
  assert after < before / 100
  assert abs(offset(moved)) < abs(offset(key)) / 5


def test_one_center_per_class_falls_between_a_pair():
  """Why 'class' is only an ablation: mass midway between two bones has no error."""
  label = np.zeros((8, 16), np.int32)
  label[3:5, 1:4] = 1
  label[3:5, 12:15] = 1
  middle = np.zeros_like(label)
  middle[3:5, 6:10] = 1
  arrays = batched(blob_logits(middle, 2, strength=40.0), label, nearest_cells(label, 2))
  np.testing.assert_allclose(center_regression(*arrays, center='class'), [0], atol=1e-9)
  assert center_regression(*arrays)[0] > 0.01


def test_two_devices_agree_with_one():
  """Sharding the batch leaves the values as they are and gathers no map."""
  label = np.stack([blob_label(), blob_label().T])
  cells = np.stack([nearest_cells(one, 3) for one in label])
  key = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
  mesh = jax.sharding.Mesh(jax.devices()[:2], ('data',))
  batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  sharded = jax.jit(seam.center_regression, in_shardings=(batch,) * 3, out_shardings=batch)
  arrays = [jax.device_put(array, batch) for array in (key, label, cells)]
  assert len(arrays[0].sharding.device_set) == 2
  assert 'all-gather' not in sharded.lower(*arrays).compile().as_text()
  np.testing.assert_allclose(
      sharded(*arrays), center_regression(*map(jnp.asarray, (key, label, cells))), rtol=1e-6)


def test_errors():
  key, label = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4), jnp.int32)
  with pytest.raises(ValueError, match="center must be 'component' or 'class', got 'bone'"):
    seam.center_regression(key, label, center='bone')
  with pytest.raises(ValueError, match="unit must be 'image' or 'pixel' or 'bone', got 'mm'"):
    seam.center_regression(key, label, unit='mm')
  with pytest.raises(ValueError, match='needs cells, got None'):
    seam.center_regression(key, label)
