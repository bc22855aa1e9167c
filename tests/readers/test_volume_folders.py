"""Folders of volumes: read, checked, built, split and prepared like folders of images."""
import json
import os
import shlex
import shutil

import numpy as np
import pytest
from rich.console import Console

from spinejax.data import build, datasets, examples, preparation, resize
from spinejax.readers import landmarks, orientation, volumes
from spinejax.readers.records import Record
from tests.readers import folders
from tests.readers.folders import sentence

CLASSES = ('background', 'lamina')
ARRAYS = {'image': np.float32, 'label': np.uint8, 'spacing': np.float32, 'landmarks': np.float32,
          'region': np.int8}


def load(directory, **fields):
  return datasets.load_dataset(folders.volume_config(directory, **fields))


def builds(directory, output='', **options):
  """Builds the dataset; returns what was printed."""
  console = Console(record=True, width=120, file=open(os.devnull, 'w'))
  build.build(directory, output, CLASSES, console=console,
              **{**dict(num_validation=1, num_test=1), **options})
  return console.export_text()


@pytest.mark.parametrize('labels', ['inside', 'masks', 'landmarks'])
def test_a_folder_gives_records_on_the_grid_of_the_network(tmp_path, labels):
  names = folders.write_volumes(tmp_path, 4, labels=labels)
  dataset = load(tmp_path, num_validation=1, num_test=1)
  assert sorted(sum((source.names for source in dataset.values()), ())) == names
  for source in dataset.values():
    for i, record in enumerate(source):
      assert record.name == record.patient == source.names[i]
      assert {name: getattr(record, name).dtype for name in ARRAYS} == ARRAYS
      with np.load(tmp_path / 'images' / f'{record.name}.npz') as stored:
        np.testing.assert_array_equal(record.image[..., 0], stored['image'])
        points = np.argwhere(stored['image'] == 200)
      np.testing.assert_array_equal(record.landmarks, points)
      np.testing.assert_array_equal(record.label, landmarks.cubes(points, (12, 8, 6)))
      np.testing.assert_array_equal(record.spacing, np.float32([1.5] * 3))
      assert record.region.tolist() == ([0, 1] if labels == 'inside' else [-1, -1])


def test_preparation_of_the_config(tmp_path):
  folders.write_volumes(tmp_path, 2)
  fields = dict(image_size=(6, 8, 4), preparation=('crop_top_layer', 'rescale', 'z_score'),
                top_layer=3.0)
  record = load(tmp_path, **fields)['train'][0]
  with np.load(tmp_path / f'images/{record.name}.npz') as stored:
    image, points = stored['image'][..., 2:], stored['landmarks'] - [0, 0, 2]
  expected = resize.resize_bilinear(image, (6, 8, 4))
  np.testing.assert_array_equal(record.image[..., 0], expected)  # no z-score yet
  points = (points + 0.5) * [0.5, 1, 1] - 0.5
  np.testing.assert_allclose(record.landmarks, points, atol=1e-6)
  np.testing.assert_array_equal(record.label, landmarks.cubes(points, (6, 8, 4)))
  np.testing.assert_allclose(record.spacing, [3, 1.5, 1.5])
  case = examples.prepare_case(record, folders.volume_config(tmp_path, **fields))
  assert abs(case['image'].mean()) < 1e-5 and abs(case['image'].std() - 1) < 1e-4
  np.testing.assert_array_equal(case['label'], record.label)
  folders.write_volumes(tmp_path / 'masks_of', 2, labels='masks')
  record = load(tmp_path / 'masks_of', labels='mask')['train'][0]
  assert record.label.sum() == 2


@pytest.mark.parametrize('labels', ['inside', 'masks', 'landmarks'])
def test_a_built_dataset_equals_its_folder(tmp_path, labels):
  folders.write_volumes(tmp_path / 'in', 6, labels=labels, patients='aabbcd')
  text = builds(tmp_path / 'in', tmp_path / 'out')
  assert 'voxels down x across x deep' in text and '12 x 8 x 6' in text
  line, = [line for line in text.replace('\n', ' ').split('spinejax train ')[1:]]
  words = shlex.split(line)
  assert '--config=c_unet' in words and '--config.data.name=built' in words
  assert not any(word.startswith('--config.model') for word in words)
  fields = dict(image_size=(6, 8, 6), num_validation=1, num_test=1)
  dataset = load(tmp_path / 'out', name='built', **fields)
  from_files = load(tmp_path / 'in', **fields)
  assert datasets.describe(dataset) == datasets.describe(from_files)
  assert [len(set(source.patients)) for source in dataset.values()] == [2, 1, 1]
  content = json.loads((tmp_path / 'out/splits.json').read_text())
  assert content == {name: sorted(set(source.patients)) for name, source in dataset.items()}
  for name, source in dataset.items():
    assert len(source)
    for record, twin in zip(source, from_files[name], strict=True):
      for key in ARRAYS:
        assert getattr(record, key).dtype == getattr(twin, key).dtype
        np.testing.assert_array_equal(getattr(record, key), getattr(twin, key))


@pytest.mark.parametrize('suffix', ['.nii.gz', '.nrrd', '.mha'])
def test_files_of_scanners_in_their_own_axes(tmp_path, suffix):
  sitk = pytest.importorskip('SimpleITK')
  for kind in ('images', 'landmarks'):
    (tmp_path / kind).mkdir()
  array = np.random.default_rng(0).uniform(size=(9, 8, 7)).astype(np.float32)  # k, j, i
  image = sitk.GetImageFromArray(array)
  image.SetSpacing((0.5, 1.0, 2.0))
  image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS
  place = np.array(image.TransformIndexToPhysicalPoint((2, 3, 4))) * [-1, -1, 1]  # in RAS
  for name in 'ab':
    sitk.WriteImage(image, str(tmp_path / f'images/{name}{suffix}'))
    (tmp_path / f'landmarks/{name}.mrk.json').write_text(json.dumps({'markups': [{
        'coordinateSystem': 'RAS', 'controlPoints': [
            {'position': place.tolist(), 'label': 'L1'}]}]}))
  record = load(tmp_path, image_size=(9, 7, 8))['train'][0]
  # I, L, A are -k, -i, j.
  np.testing.assert_array_equal(record.image[..., 0], array.transpose(0, 2, 1)[::-1, ::-1])
  np.testing.assert_allclose(record.landmarks, [[4, 4, 3]], atol=1e-5)
  np.testing.assert_array_equal(record.spacing, [2, 0.5, 1])
  assert record.region.tolist() == [1] and record.label.sum() == 27
  turned = load(tmp_path, image_size=(7, 9, 8), axes='IAL')['train'][0]  # i, j, k
  np.testing.assert_array_equal(turned.image[..., 0], array.transpose(2, 0, 1))
  builds(tmp_path, tmp_path / 'out', num_test=0, axes='IAL')
  again = load(tmp_path / 'out', name='built', image_size=(7, 9, 8))['train'][0]
  np.testing.assert_array_equal(again.image, turned.image)
  np.testing.assert_array_equal(again.landmarks, turned.landmarks)


def test_the_published_layout_and_its_own_sets(tmp_path):
  names = folders.write_volumes(tmp_path / 'flat', 3, labels='masks')
  for name, split in zip(names, ('train', 'train', 'test')):
    for kind, folder, end in (('images', 'dataset', ''), ('masks', 'groundtruth', '_bone_3')):
      (tmp_path / 'in' / folder / split).mkdir(parents=True, exist_ok=True)
      shutil.copy(tmp_path / f'flat/{kind}/{name}.npz',
                  tmp_path / f'in/{folder}/{split}/{name}{end}.npz')
  dataset = load(tmp_path / 'in')
  assert [source.names for source in dataset.values()] == [tuple(names[:2]), (), (names[2],)]


def change(path, **arrays):
  """Replaces arrays of an NPZ file; None takes one away."""
  with np.load(path) as archive:
    stored = {**archive, **arrays}
  np.savez(path, **{name: array for name, array in stored.items() if array is not None})


def test_the_fingerprint_follows_voxels_landmarks_spacing_and_preparation(tmp_path):
  folders.write_volumes(tmp_path, 3)
  fingerprint = lambda **fields: load(tmp_path, **fields)['train'].fingerprint
  first, path = fingerprint(), tmp_path / 'images/case_00.npz'
  with np.load(path) as stored:
    image, points = stored['image'], stored['landmarks']
  found = {first, fingerprint(image_size=(6, 8, 6)), fingerprint(top_layer=0.0),
           fingerprint(preparation=('crop_top_layer', 'rescale'))}
  image[0, 0, 0] += 1
  for field, value in (('image', image), ('landmarks', points + [0, 0.01, 0]),
                       ('spacing', np.array([1.5, 1.5, 1.6])), ('region', np.array([1, 1]))):
    change(path, **{field: value})
    found.add(fingerprint())
  assert len(found) == 8


def test_every_fault_is_one_line(tmp_path):
  folders.write_volumes(tmp_path / 'in', 9)
  images = tmp_path / 'in/images'
  with np.load(images / 'case_00.npz') as stored:
    image = stored['image']
  nan = image.copy()
  nan[1, 1, 1] = np.nan
  for i, arrays in enumerate((
      dict(image=nan), dict(image=image * 0), dict(image=image[None]),
      dict(landmarks=None, region=None), dict(landmarks=np.zeros((0, 3)), region=None),
      dict(spacing=np.zeros(3)), dict(landmarks=np.full((2, 3), 99)))):
    change(images / f'case_{i:02d}.npz', **arrays)
  (images / 'case_07.npz').write_bytes((images / 'case_07.npz').read_bytes()[:500])
  with pytest.raises(ValueError) as error:
    builds(tmp_path / 'in', tmp_path / 'out')
  lines = str(error.value).split('\n')
  assert lines[0] == f'8 faults in {tmp_path / "in"}, nothing was written:'
  for i, (line, words) in enumerate(zip(lines[1:], (
      '1 of the 576 voxels are not finite', 'every voxel is 0; a constant volume',
      'of 3 axes, but the file has 4 axes', 'the volume has no laminae', 'there is no lamina in it',
      'must be positive along every axis', 'lie outside of the image', 'truncated or corrupt'),
      strict=True)):
    assert words in line and line.startswith(str(images / f'case_{i:02d}.npz'))
  assert os.listdir(tmp_path) == ['in']
  with pytest.raises(ValueError, match='There are 7 more faults; spinejax build'):
    load(tmp_path / 'in')


def test_pairs_that_do_not_fit(tmp_path):
  folders.write_volumes(tmp_path, 2, labels='masks')
  path = tmp_path / 'masks/case_00.npz'
  for arrays, words in ((dict(label=np.ones((12, 8, 5), bool)), 'has (12, 8, 5) voxels'),
                        (dict(label=np.zeros((12, 8, 6), bool)), 'there is no lamina in it'),
                        (dict(label=np.full((12, 8, 6), 0.5)), 'has the values 0.5')):
    change(path, **arrays)
    assert words in sentence(load, tmp_path)
  path.rename(tmp_path / 'masks/other.npz')
  (tmp_path / 'images/case_00.npz').rename(tmp_path / 'images/case_00.nii.gz')
  message = sentence(load, tmp_path)
  assert 'the volume has no laminae; expected a mask ' in message
  assert 'case_00.nii.gz or a table of landmarks case_00.csv. There are 1 more' in message
  (tmp_path / 'landmarks').mkdir()
  (tmp_path / 'landmarks/case_01.csv').write_text('i,j,k\n')
  assert 'the name case_01 is already taken by case_01.npz' in sentence(load, tmp_path)


def test_images_and_volumes_are_kept_apart(tmp_path):
  folders.write_folder(tmp_path / 'images_only', 3, num_classes=2)
  folders.write_volumes(tmp_path / 'volumes_only', 3)
  builds(tmp_path / 'images_only', tmp_path / 'built_images')
  builds(tmp_path / 'volumes_only', tmp_path / 'built_volumes')
  for name, folder in (('folder', 'images_only'), ('built', 'built_images')):
    assert ('holds images, but data.image_size (12, 8, 6) is that of volumes; choose a config for '
            'images') in sentence(load, tmp_path / folder, name=name)
  for name, folder in (('folder', 'volumes_only'), ('built', 'built_volumes')):
    assert 'holds volumes, but data.image_size (64, 32) is that' in sentence(
        datasets.load_dataset, folders.data_config(tmp_path / folder, name=name, classes=CLASSES))
    for other in (dict(channels=3), dict(classes=('a', 'b', 'c'))):
      assert 'volumes have one channel and 2 labels' in sentence(
          load, tmp_path / folder, name=name, **other)
  assert 'volumes have one channel and 2 labels' in sentence(
      build.build, tmp_path / 'volumes_only', '', ('background', 'a', 'b'))
  for name, size in (('vpi_phantom', (12, 8, 6)), ('volume_phantom', (64, 32))):
    assert 'choose a config for' in sentence(load, '', name=name, image_size=size)
  for kind in ('images', 'masks'):
    folders.save(tmp_path / f'volumes_only/{kind}/x.png', np.zeros((64, 32), np.uint8))
  assert 'mixes volumes, such as case_02.npz, and images, such as x' in sentence(
      load, tmp_path / 'volumes_only')


def test_a_preparation_that_fails_names_the_case(tmp_path):
  folders.write_volumes(tmp_path, 2)
  for name in ('case_00', 'case_01'):
    change(tmp_path / f'images/{name}.npz', spacing=None)
  for fields, words in (
      (dict(preparation=('crop_to_column', 'rescale')), 'case_0[01]: the spacing of the volume is'),
      (dict(preparation=('crop_top_layer', 'rescale'), top_layer=3.0), 'unknown, so a layer in mm'),
      (dict(preparation=(), image_size=(6, 8, 6)), "case_0.*add 'rescale' to data.preparation")):
    with pytest.raises(ValueError, match=words):
      load(tmp_path, **fields)['train'][0]
  assert np.isnan(load(tmp_path)['train'][0].spacing).all()


def test_a_prediction_goes_back_to_the_file_it_came_from(tmp_path):
  """What predict does: the file, the grid of the network, and the way back."""
  folders.write_volumes(tmp_path, 1, shape=(24, 16, 12))
  volume = volumes.read_volume(tmp_path / 'images/case_00.npz')
  config = folders.volume_config(tmp_path, preparation=preparation.STEPS, top_layer=1.5)
  record = Record('', '', volume.array[..., None], None, volume.spacing)
  prepared, done = preparation.prepare_record(record, config)
  assert prepared.image.shape == (12, 8, 6, 1)
  mask = landmarks.cubes([[4, 4, 3]], (12, 8, 6))
  volumes.write_mask(tmp_path / 'm.npz', preparation.from_grid(mask, done), volume.geometry)
  stored = volumes.read_mask(tmp_path / 'm.npz', volume.geometry)
  centroid = landmarks.landmarks_of_mask(stored).points
  np.testing.assert_allclose(
      centroid, preparation.points_from_grid([[4, 4, 3]], done), atol=0.5)
  landmarks.write_landmarks(tmp_path / 'm.csv', centroid, volume.geometry)
  found = landmarks.read_landmarks(tmp_path / 'm.csv', volume.geometry).points
  np.testing.assert_allclose(orientation.to_physical(found, volume.geometry),
                             orientation.to_physical(centroid, volume.geometry), atol=1e-5)


def test_layouts_that_are_not(tmp_path):
  (tmp_path / 'images').mkdir()
  assert 'or volumes images/NAME.nii.gz with' in sentence(load, tmp_path)
  folders.write_volumes(tmp_path, 1)
  (tmp_path / 'images/x.png').write_bytes(b'x')
  message = sentence(load, tmp_path)
  assert 'x.png: the image has no mask; expected' in message and 'masks/x.png' in message
