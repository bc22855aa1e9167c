"""Crops, flips and affine maps: what moves together, what stays, what depends on what."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from spinejax.data import augment

STILL = dict(flip_horizontal=0.0, flip_vertical=0.0, rotation=0.0, translation=0.0,
             scale=(1.0, 1.0))
AFFINE = dict(flip_horizontal=0.5, flip_vertical=0.5, rotation=20.0, translation=0.1,
              scale=(0.8, 1.25))
FLIPS = {**STILL, 'flip_horizontal': 0.5, 'flip_vertical': 0.5}


@functools.cache
def compiled(patch_size, **config):
  return jax.jit(functools.partial(augment.augment, config=config, patch_size=patch_size))


def run(batch, patch_size, seed=0, **config):
  return compiled(patch_size, **{**STILL, **config})(jax.random.key(seed), batch)


def noise(n=4, size=(40, 24), channels=1):
  rng = np.random.default_rng(0)
  return dict(image=rng.integers(0, 256, (n, *size, channels)).astype(np.uint8),
              label=rng.integers(0, 4, (n, *size)).astype(np.uint8),
              cells=rng.integers(0, 9, (n, *size, 3)).astype(np.uint8))


def spot(size, center, sigma=3.0):
  """A smooth spot [*size] of height 200 at a position between pixels."""
  grid = np.meshgrid(*map(np.arange, size), indexing='ij')
  return 200 * np.exp(-sum((axis - c)**2 for axis, c in zip(grid, center)) / (2 * sigma**2))


def centroid(image):
  grid = np.meshgrid(*map(np.arange, image.shape), indexing='ij')
  return np.array([(axis * image).sum() for axis in grid]) / image.sum()


def test_without_augmentation_the_crop_is_the_crop():
  batch = noise()
  position = np.array([[0, 0], [8, 4], [16, 8], [3, 1]], np.int32)
  result = run({**batch, 'position': position, 'valid': np.float32([1, 0, 1, 1])}, (24, 16))
  np.testing.assert_array_equal(result.pop('valid'), [1, 0, 1, 1])  # other entries pass through
  for i, (y, x) in enumerate(position):
    for name in batch:
      np.testing.assert_array_equal(result[name][i], batch[name][i, y:y + 24, x:x + 16])
  assert {name: str(array.dtype) for name, array in result.items()} == {
      'image': 'float32', 'label': 'int32', 'cells': 'uint8'}


@pytest.mark.parametrize('field, axis', [('flip_vertical', 1), ('flip_horizontal', 2)])
def test_flips_are_involutions_of_everything(field, axis):
  batch = noise()
  batch.update(image=batch['image'].astype(np.float32), label=batch['label'].astype(np.int32),
               landmarks=np.random.default_rng(1).uniform(0, 20, (4, 5, 2)).astype(np.float32))
  once = run(batch, (40, 24), **{field: 1.0})
  for name in ('image', 'label', 'cells'):
    np.testing.assert_array_equal(once[name], np.flip(batch[name], axis))
  expected = batch['landmarks'].copy()
  expected[..., axis - 1] = (39 if axis == 1 else 23) - expected[..., axis - 1]
  np.testing.assert_allclose(once['landmarks'], expected, atol=1e-5)
  twice = run(once, (40, 24), **{field: 1.0})
  for name in ('image', 'label', 'cells'):
    np.testing.assert_array_equal(twice[name], batch[name])
  np.testing.assert_allclose(twice['landmarks'], batch['landmarks'], atol=1e-5)


def test_random_crops_reach_every_position_with_all_arrays():
  rows, columns = np.mgrid[:10, :9]
  code = (rows * 9 + columns).astype(np.uint8)
  n = 400
  batch = dict(image=np.repeat(code[None, ..., None], n, 0), label=np.repeat(code[None], n, 0),
               landmarks=np.full((n, 1, 2), 5, np.float32))
  result = run(batch, (8, 6))
  corner = np.asarray(result['label'])[:, 0, 0]
  assert {(c // 9, c % 9) for c in corner.tolist()} == {(y, x) for y in range(3) for x in range(4)}
  np.testing.assert_array_equal(result['image'][..., 0], result['label'].astype(jnp.float32))
  np.testing.assert_allclose(result['landmarks'][:, 0],
                             np.stack([5 - corner // 9, 5 - corner % 9], 1))


def test_each_flip_happens_as_often_as_asked():
  code = np.arange(4, dtype=np.uint8).reshape(1, 2, 2).repeat(2000, 0)
  result = run(dict(image=code[..., None], label=code), (2, 2), flip_horizontal=0.25,
               flip_vertical=0.5)
  corner = np.asarray(result['label'])[:, 0, 0]  # 1: horizontal, 2: vertical, 3: both
  np.testing.assert_allclose(
      np.bincount(corner, minlength=4) / 2000, [0.375, 0.125, 0.375, 0.125], atol=0.03)


def test_normalize():
  image = jnp.array([[0, 128, 255]], jnp.uint8)
  np.testing.assert_allclose(augment.normalize(image, 128.0, 2.0), [[-64, 0, 63.5]])
  assert np.isfinite(augment.normalize(image, 3.0, 0.0)).all()
  np.testing.assert_allclose(
      augment.normalize(image, (0.0, 28.0, 55.0), (1.0, 2.0, 4.0)), [[0, 50, 50]])


def test_image_label_cells_and_landmarks_move_together():
  size, n = (80, 60), 24
  rng = np.random.default_rng(0)
  center = rng.uniform((35, 26), (45, 34), (n, 2))
  image = np.stack([spot(size, c) for c in center]).astype(np.float32)
  disc = (image > 100).astype(np.uint8)
  batch = dict(image=image[..., None], label=3 * disc, cells=np.stack([disc, 2 * disc], -1),
               landmarks=center[:, None].astype(np.float32),
               position=np.tile(np.int32([8, 6]), (n, 1)))
  result = jax.tree.map(np.asarray, run(batch, (64, 48), **AFFINE))
  moved = np.linalg.norm(result['landmarks'][:, 0] - (center - [8, 6]), axis=-1)
  assert moved.max() > 5
  for i in range(n):
    where = result['landmarks'][i, 0]
    np.testing.assert_allclose(centroid(result['image'][i, ..., 0]), where, atol=0.05)
    np.testing.assert_allclose(centroid(result['label'][i] == 3), where, atol=0.35)
    np.testing.assert_array_equal(result['cells'][i, ..., 0], result['label'][i] // 3)
    np.testing.assert_array_equal(result['cells'][i, ..., 1], result['label'][i] // 3 * 2)
  width = np.sqrt([(image > 100).sum() for image in result['image']] / disc.sum((1, 2)))
  assert 0.75 < width.min() < 0.9 and 1.1 < width.max() < 1.3  # the magnification


def test_a_rotation_is_the_rotation_scipy_makes():
  """Follows three corners to find the map, then resamples with it."""
  image = noise(1, (50, 40))['image'].astype(np.float32)
  corners = np.float32([[[0, 0], [39, 0], [0, 29]]])
  batch = dict(image=image, label=image[..., 0].astype(np.uint8), landmarks=corners,
               position=np.int32([[5, 5]]))
  result = jax.tree.map(np.asarray, run(batch, (40, 30), seed=2, **{**AFFINE, 'rotation': 40.0}))
  moved = result['landmarks'][0].astype(np.float64)
  forward = np.stack([(moved[1] - moved[0]) / 39, (moved[2] - moved[0]) / 29], 1)
  matrix = np.linalg.inv(forward)
  assert abs(matrix[0, 1]) > 0.05
  expected = [ndimage.affine_transform(
      array, matrix, -matrix @ moved[0], (40, 30), order=order, mode='grid-constant')
      for array, order in ((image[0, ..., 0], 1), (batch['label'][0], 0))]
  np.testing.assert_allclose(result['image'][0, ..., 0], expected[0], atol=0.1)
  assert (result['label'][0] != expected[1]).mean() < 0.002  # ties of order 0


def test_a_rotation_of_no_degrees_is_a_copy():
  batch = noise()
  batch['position'] = np.array([[0, 0], [8, 4], [16, 8], [3, 1]], np.int32)
  exact = run(batch, (24, 16), seed=5, **FLIPS)
  resampled = run(batch, (24, 16), seed=5, **{**FLIPS, 'rotation': 1e-9})
  np.testing.assert_allclose(resampled['image'], exact['image'], atol=1e-3)
  for name in ('label', 'cells'):
    np.testing.assert_array_equal(resampled[name], exact[name])


def test_a_constant_stays_inside_and_is_background_outside():
  batch = dict(image=np.full((16, 64, 64, 3), 100, np.uint8),
               label=np.full((16, 64, 64), 2, np.uint8))
  inside = {**batch, 'position': np.full((16, 2), 20, np.int32)}
  result = run(inside, (24, 24), rotation=45.0)
  np.testing.assert_allclose(result['image'], 100, rtol=1e-5)
  np.testing.assert_array_equal(result['label'], 2)
  whole = run(batch, (64, 64), rotation=45.0)
  outside = np.asarray(whole['label']) == 0
  assert outside.any((1, 2)).all() and set(np.unique(whole['label'])) == {0, 2}
  assert np.asarray(whole['image'])[outside].max() <= 50.1  # halfway between pixel and nothing
  assert np.asarray(whole['image']).min() == 0


def test_magnification_and_translation_alone():
  center = (30.0, 22.0)
  batch = dict(image=spot((64, 48), center)[None, ..., None].astype(np.float32),
               label=np.zeros((1, 64, 48), np.uint8), landmarks=np.float32([[center]]))
  result = run(batch, (64, 48), scale=(1.5, 1.5))
  middle = np.array([31.5, 23.5])
  np.testing.assert_allclose(result['landmarks'][0, 0], 1.5 * (center - middle) + middle, atol=1e-4)
  np.testing.assert_allclose(centroid(np.asarray(result['image'])[0, ..., 0]),
                             result['landmarks'][0, 0], atol=0.05)
  many = jax.tree.map(lambda x: np.repeat(x, 60, 0), batch)
  shifts = np.asarray(run(many, (64, 48), translation=0.1)['landmarks'])[:, 0] - center
  assert (np.abs(shifts) <= [6.4, 4.8]).all() and (np.abs(shifts).max(0) > [5, 3.8]).all()


def test_three_dimensions_are_the_same_code():
  center = np.array([15.0, 12.0, 9.0])
  size = (32, 24, 20)
  batch = dict(image=spot(size, center, 2.0)[None, ..., None].astype(np.float32),
               label=(spot(size, center, 2.0) > 100)[None].astype(np.uint8),
               landmarks=center[None, None].astype(np.float32))
  batch = jax.tree.map(lambda x: np.repeat(x, 6, 0), batch)
  result = jax.tree.map(np.asarray, run(batch, (30, 22, 18), **AFFINE))
  assert result['image'].shape == (6, 30, 22, 18, 1)
  for i in range(6):
    where = result['landmarks'][i, 0]
    np.testing.assert_allclose(centroid(result['image'][i, ..., 0]), where, atol=0.1)
    np.testing.assert_allclose(centroid(result['label'][i]), where, atol=0.4)
  flipped = run(batch, size, flip_horizontal=1.0)
  np.testing.assert_array_equal(flipped['label'], np.flip(batch['label'], 2))


@pytest.mark.parametrize('config', [FLIPS, AFFINE], ids=['copy', 'affine'])
def test_same_key_same_batch_other_key_other_batch(config):
  batch = noise(8)
  first, again, other = (run(batch, (24, 16), seed=seed, **config) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first['image'], again['image'])
  different = (np.asarray(first['image']) != np.asarray(other['image'])).any((1, 2, 3))
  assert different.sum() >= 7
  twins = run(jax.tree.map(lambda x: np.repeat(x[:1], 8, 0), batch), (24, 16), **config)
  assert len(np.unique(np.asarray(twins['image']).reshape(8, -1), axis=0)) >= 7


@pytest.mark.parametrize('config', [FLIPS, AFFINE], ids=['copy', 'affine'])
def test_devices_and_processes_do_not_change_a_batch(config):
  batch = noise(4)
  batch['slot'] = np.arange(4, dtype=np.int32)
  step, key = compiled((24, 16), **config), jax.random.key(0)
  whole = step(key, batch)
  mesh = Mesh(np.array(jax.devices()[:2]), ('data',))
  split = NamedSharding(mesh, PartitionSpec('data'))
  program = jax.jit(step, in_shardings=(NamedSharding(mesh, PartitionSpec()), split),
                    out_shardings=split).lower(key, batch).compile()
  for collective in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'):
    assert collective not in program.as_text()
  sharded = program(key, jax.device_put(batch, split))
  parts = [step(key, jax.tree.map(lambda x: x[part], batch))
           for part in (slice(0, 2), slice(2, 4))]
  for name in ('image', 'label', 'cells'):
    np.testing.assert_array_equal(sharded[name], whole[name])
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
  del batch['slot']
  np.testing.assert_array_equal(step(key, batch)['image'], whole['image'])
