"""C-U-net's preparation: steps by hand, there and back, on the phantom and a real volume."""
import numpy as np
import pytest

from spinejax import phantoms
from spinejax.data import datasets, preparation, resize
from spinejax.metrics import laminae
from spinejax.readers import volumes
from spinejax.readers.records import Record
from tests.readers import folders

UNKNOWN = np.full(3, np.nan)
CROPS = ('crop_top_layer', 'crop_to_column', 'rescale')


def config(steps, shape, top_layer='interface', column_width=60.0, labels='cubes'):
  return dict(preparation=steps, image_size=shape, top_layer=top_layer, column_width=column_width,
              labels=labels)


def column_volume(center=20, shape=(60, 40, 8), swept=slice(None)):
  """Speckle with a column three voxels wide that is dark over the whole depth."""
  rng = np.random.default_rng(0)
  image = np.zeros(shape, np.float32)
  image[:, swept] = rng.uniform(90, 110, image[:, swept].shape)
  rows = np.broadcast_to(center, shape[:1])
  for row, middle in enumerate(rows):
    image[row, middle - 1:middle + 2] = 10
  return image


@pytest.mark.parametrize('layer, spacing, kept', [
    (3.0, 0.5, 14), (0, 0.5, 20), (0, np.nan, 20), (0.7, 0.5, 19), ('2', 1.0, 18)])
def test_a_top_layer_in_mm(layer, spacing, kept):
  image = np.random.default_rng(0).uniform(size=(4, 5, 20))
  cropped, step = preparation.crop_top_layer(image, [1, 1, spacing], layer)
  np.testing.assert_array_equal(cropped, image[:, :, 20 - kept:])
  assert (step.start, step.size, step.note) == ((0, 0, 20 - kept), (4, 5, kept), '')


def test_the_interface_is_cut_halfway_down():
  """Bright 200 over 4 of 60 voxels, then 100, 40, 40...: halfway from 200 to 40 is 120."""
  profile = np.array([200.0] * 4 + [100.0] + [40.0] * 55)
  image = np.broadcast_to(profile, (6, 5, 60)).copy()
  image[:2] = 0  # not swept
  cropped, step = preparation.crop_top_layer(image, UNKNOWN)
  assert step.start == (0, 0, 4) and step.note == '' and cropped[3, 0, 0] == 100
  flat, step = preparation.crop_top_layer(np.full((6, 5, 60), 7.0), UNKNOWN)
  assert flat.shape == (6, 5, 60) and 'no bright top layer' in step.note


def test_the_region_about_a_straight_column():
  image = column_volume(center=18)
  path, contrast = preparation.find_column(image, (1, 1, 1))
  np.testing.assert_array_equal(path, 18)
  assert contrast > 0.42
  cropped, step = preparation.crop_to_column(image, (1, 1, 1), 11.0)  # 18 - 5 to 18 + 5
  assert (step.start, step.size) == ((0, 13, 0), (60, 11, 8))
  np.testing.assert_array_equal(cropped, image[:, 13:24])
  _, step = preparation.crop_to_column(image, (1, 0.5, 1), 200.0)
  assert step.size == image.shape and not step.note


def test_the_region_about_a_bent_column():
  center = np.round(20 + 5 * np.sin(np.arange(60) / 59 * np.pi)).astype(int)  # 20 to 25
  image = column_volume(center)
  path, _ = preparation.find_column(image, (1, 1, 1))
  assert np.abs(path - center).max() <= 2 and np.abs(path - center)[5:-5].mean() < 0.5
  _, step = preparation.crop_to_column(image, (1, 1, 1), 10.0)
  assert step.start[1] <= 17 and step.start[1] + step.size[1] >= 29  # 11 of a straight one


def test_outside_of_the_sweep_and_in_speckle_is_no_column():
  image = column_volume(center=24, shape=(60, 60, 8), swept=slice(10, 50))
  path, contrast = preparation.find_column(image, (1, 1, 1))
  np.testing.assert_array_equal(path, 24)
  assert contrast > 0.42
  empty, contrast = preparation.find_column(image * 0, (1, 1, 1))
  assert contrast == 0 and (empty == 30).all()
  image = np.random.default_rng(0).uniform(50, 150, (60, 40, 8)).astype(np.float32)
  cropped, step = preparation.crop_to_column(image, (1, 1, 1), 10.0)
  assert cropped.shape == image.shape and 'no dark spinous column' in step.note


@pytest.mark.parametrize('steps, fields, spacing, words', [
    (('crop_top_layer',), dict(top_layer=3.0), np.nan,
     'the spacing of the volume is unknown, so a layer in mm'),
    (('crop_top_layer',), dict(top_layer=19.0), 1.0,
     'a top layer of 19 mm leaves nothing of a volume of 20 mm'),
    (('crop_top_layer',), dict(top_layer='skin'), 1.0,
     "data.top_layer must be a number of at least 0, not 'skin'"),
    (('crop_top_layer',), dict(top_layer=-1), 1.0, 'must be a number of at least 0'),
    (('crop_to_column',), {}, np.nan,
     'the spacing of the volume is unknown, so a region cannot be given in mm'),
    (('crop_to_column',), dict(column_width=0), 1.0, 'data.column_width must be positive'),
    (('crop_to_column',), dict(column_width=None), 1.0, 'must be a number of at least 0'),
    ((), {}, 1.0, r"takes \(4, 4, 5\); add 'rescale' to data.preparation")])
def test_volumes_that_cannot_be_prepared(steps, fields, spacing, words):
  with pytest.raises(ValueError, match=words):
    preparation.prepare(np.ones((4, 5, 20)), [1, spacing, spacing],
                        config(steps, (4, 4, 5), **fields))


@pytest.mark.parametrize('fields, words', [
    (dict(preparation=('crop',)),
     'must name steps out of crop_top_layer, crop_to_column, rescale, z_score, each once at most'),
    (dict(preparation=('rescale', 'rescale')), 'each once at most'),
    (dict(labels='points'), "data.labels must be 'cubes' or 'mask', not 'points'")])
def test_settings_that_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    datasets.check_settings(folders.volume_config('', name='volume_phantom', **fields))


def test_points_by_hand():
  """Crop 4 of 20 in depth, then 16 -> 8: voxel z becomes (z - 4 + 1/2) / 2 - 1/2."""
  image = np.random.default_rng(0).uniform(size=(6, 10, 20)).astype(np.float32)
  prepared, done = preparation.prepare(
      image, (1, 2, 0.5), config(('crop_top_layer', 'rescale'), (12, 5, 8), top_layer=2.0))
  np.testing.assert_array_equal(
      prepared, resize.resize_bilinear(image[:, :, 4:], (12, 5, 8)))
  np.testing.assert_allclose(done.spacing, [0.5, 4, 1])
  points = preparation.points_to_grid([[0, 0, 4], [5, 9, 19], [2, 3, 0]], done)
  np.testing.assert_allclose(
      points, [[0.5, -0.25, -0.25], [10.5, 4.25, 7.25], [4.5, 1.25, -2.25]])
  np.testing.assert_allclose(
      preparation.points_from_grid(points, done), [[0, 0, 4], [5, 9, 19], [2, 3, 0]], atol=1e-12)


def test_a_mask_there_and_back():
  image = column_volume(18)
  mask = np.random.default_rng(0).integers(1, 3, image.shape).astype(np.uint8)
  _, done = preparation.prepare(
      image, (1, 1, 1), config(CROPS, (120, 22, 16), column_width=11.0))
  start, size = done.steps[1].start[1], done.steps[1].size[1]
  assert (start, size) == (13, 11)  # twice as fine: the way back is exact
  grid = preparation.to_grid(mask, done)
  assert grid.shape == (120, 22, 16) and grid.dtype == np.uint8
  back = preparation.from_grid(grid, done)
  inside = np.zeros(mask.shape, bool)
  inside[:, start:start + size] = True
  np.testing.assert_array_equal(back[inside], mask[inside])
  assert (back[~inside] == 0).all() and back.shape == mask.shape
  scores = preparation.from_grid(np.full((120, 22, 16), 0.25, np.float32), done)
  np.testing.assert_allclose(scores, np.where(inside, 0.25, 0))


def record_of(image, points, spacing=(1, 1, 1), label=None):
  label = np.zeros(image.shape, np.uint8) if label is None else label
  return Record('a', 'b', image[..., None], label, np.float32(spacing), np.float32(points),
                np.zeros(len(points), np.int8))


def test_cubes_on_the_scaled_grid_by_hand():
  """9 -> 6 voxels an axis: voxel 4 goes to 2.5 and so to voxel 3, 0 to -1/6, 8 to 5 1/6."""
  image = np.random.default_rng(0).uniform(size=(9, 9, 9))
  record, _ = preparation.prepare_record(
      record_of(image, [[4, 4, 4], [0, 8, 0]], (1, 2, 3)), config(('rescale',), (6, 6, 6)))
  expected = np.zeros((6, 6, 6), np.uint8)
  expected[2:5, 2:5, 2:5] = 1
  expected[0:2, 4:6, 0:2] = 1
  np.testing.assert_array_equal(record.label, expected)
  np.testing.assert_allclose(record.landmarks, [[2.5] * 3, [-1 / 6, 31 / 6, -1 / 6]], rtol=1e-6)
  np.testing.assert_allclose(record.spacing, [1.5, 3, 4.5])
  assert record.image.shape == (6, 6, 6, 1) and record.name == 'a'
  assert record.image.dtype == record.landmarks.dtype == record.spacing.dtype == np.float32


def test_masks_on_the_scaled_grid():
  label = np.zeros((4, 4, 4), np.uint8)
  label[:2, :2, 2:] = 1
  record, _ = preparation.prepare_record(
      record_of(np.ones((4, 4, 4)), [[0.5, 0.5, 2.5]], label=label),
      config(('rescale',), (2, 2, 2), labels='mask'))
  assert np.argwhere(record.label).tolist() == [[0, 0, 1]]


def test_a_lamina_outside_of_the_crop_has_no_cube():
  image = np.random.default_rng(0).uniform(size=(8, 8, 8))
  options = config(('crop_top_layer', 'rescale'), (8, 8, 4), top_layer=4)
  record, _ = preparation.prepare_record(record_of(image, [[4, 4, 1], [4, 4, 6]]), options)
  np.testing.assert_array_equal(record.landmarks, [[4, 4, -3], [4, 4, 2]])
  assert record.label.sum() == 27
  with pytest.raises(ValueError, match='none of the 1 laminae is left after crop_top_layer, resc'):
    preparation.prepare_record(record_of(image, [[4, 4, 1]]), options)


def test_a_volume_to_predict_has_no_label():
  image = np.ones((4, 4, 4))
  record, _ = preparation.prepare_record(
      Record('a', 'b', image[..., None], None, UNKNOWN), config(('rescale',), (2, 2, 2)))
  assert record.label is None and record.image.shape == (2, 2, 2, 1)
  assert np.isnan(record.spacing).all()


def test_the_phantom_keeps_its_laminae():
  case = phantoms.volume(1, (96, 48, 24))
  spacing, points = np.float32(case.truth.spacing), case.landmarks
  record, done = preparation.prepare_record(
      record_of(case.image, points, spacing), config(CROPS, (48, 24, 12), column_width=50.0))
  top, column, _ = done.steps
  assert top.start[2] * spacing[2] < points[:, 2].min() * spacing[2]
  assert not column.note and column.size[1] < case.image.shape[1]
  inside = (record.landmarks > -0.5) & (record.landmarks < np.array([47.5, 23.5, 11.5]))
  assert inside.all()
  np.testing.assert_allclose(
      preparation.points_from_grid(record.landmarks, done), points, atol=1e-4)
  path, _ = preparation.find_column(preparation.crop_top_layer(case.image, spacing)[0], spacing)
  middle = 0.5 * (points[0::2] + points[1::2])
  apart = np.abs(path[np.round(middle[:, 0]).astype(int)] - middle[:, 1]) * spacing[1]
  assert np.median(apart) < 6  # mm; the laminae of a pair are 20 mm apart


def test_phantoms_are_prepared_like_files():
  """Labels are cubes about the annotated centers, on the cropped and scaled grid."""
  fields = dict(name='volume_phantom', num_train=3.0, render_size=(192, 48, 24),
                image_size=(192, 48, 24))
  plain, cropped = (datasets.load_dataset(folders.volume_config('', **fields, preparation=steps))
                    for steps in (('rescale', 'z_score'), (*CROPS, 'z_score')))
  assert plain['train'].fingerprint != cropped['train'].fingerprint
  for seed, (record, small) in enumerate(zip(plain['train'], cropped['train'])):
    case = phantoms.volume(seed, (192, 48, 24))
    np.testing.assert_array_equal(record.image[..., 0], case.image)
    np.testing.assert_array_equal(record.label, case.label)
    np.testing.assert_array_equal(record.landmarks, case.annotated)
    assert small.image.shape == (192, 48, 24, 1) and (small.spacing < case.truth.spacing)[2]
    assert small.true_angles == record.true_angles
    components = laminae.find_components(small.label)
    assert (components.sizes == 27).sum() >= 30
    nearest = np.abs(components.centroids[:, None] - small.landmarks).max(-1)
    assert len(components.sizes) == 34 and nearest.min(1).max() <= 1 and nearest.min(0).max() <= 1


def test_the_real_volume(tmp_path, shared):
  """Below 18 mm of tissue the column stands out, dark between two rows of laminae."""
  sitk = pytest.importorskip('SimpleITK')
  path = shared / 'data/plus_spine_phantom_us/SpinePhantomFreehandReconstructed.mha'
  volume = volumes.read_volume(path, 'RIA')
  prepared, done = preparation.prepare(
      volume.array, volume.spacing,
      config(CROPS, (48, 24, 16), top_layer=18.0, column_width=25.0))
  top, column, *_ = done.steps
  assert top.start == (0, 0, 36) and not column.note
  assert column.start[1] in range(50, 57) and column.size[1] in range(50, 56)
  coronal = volume.array[20:55, :, 36:].max(2).mean(0)  # bright, dark, bright
  assert coronal[77] < 0.5 * min(coronal[62:66].max(), coronal[90:100].max())
  assert prepared.shape == (48, 24, 16)
  volumes.write_mask(tmp_path / 'm.mha', preparation.from_grid(prepared > prepared.mean(), done),
                     volume.geometry)
  mask, image = (sitk.ReadImage(str(p)) for p in (tmp_path / 'm.mha', path))
  for get in ('GetSize', 'GetSpacing', 'GetOrigin', 'GetDirection'):
    assert getattr(mask, get)() == getattr(image, get)()
  back = volumes.read_mask(tmp_path / 'm.mha', volume.geometry)
  assert back[:, :, 36:].any() and not back[:, :, :36].any()
  assert volume.array[back == 1].mean() > 2 * volume.array[:, :, 36:][back[:, :, 36:] == 0].mean()
