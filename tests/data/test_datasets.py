"""Datasets by name: own folders, phantoms, and what is refused."""
import types

import numpy as np
import pytest
from PIL import Image

from spinejax.data import datasets
from spinejax import phantoms
from tests.readers import folders


def load(directory, **fields):
  return datasets.load_dataset(folders.data_config(directory, **fields))


def test_folder_gives_the_files_bit_for_bit(tmp_path):
  names = folders.write_folder(tmp_path, 5, patients=list('aabcd'), spacing=0.2)
  dataset = load(tmp_path, num_validation=1, num_test=1)
  assert sorted(sum((source.names for source in dataset.values()), ())) == names
  patients = [set(source.patients) for source in dataset.values()]
  assert set().union(*patients) == set('abcd') and sum(map(len, patients)) == 4
  for source in dataset.values():
    for i, record in enumerate(source):
      assert (record.name, record.patient) == (source.names[i], source.patients[i])
      for key, kind in (('image', 'images'), ('label', 'masks')):
        stored = np.asarray(Image.open(tmp_path / kind / f'{record.name}.png'))
        assert getattr(record, key).dtype == np.uint8
        np.testing.assert_array_equal(np.squeeze(getattr(record, key)), stored)
      np.testing.assert_array_equal(record.spacing, np.float32([0.2, 0.2]))
  assert datasets.describe(dataset) == {
      'split': {name: list(source.names) for name, source in dataset.items()},
      'patients': {name: sorted(set(source.patients)) for name, source in dataset.items()},
      'fingerprint': {name: source.fingerprint for name, source in dataset.items()}}
  assert dataset['train'][-1].name == dataset['train'].names[-1]
  with pytest.raises(IndexError):
    dataset['train'][len(dataset['train'])]


def test_own_sets_and_split_files(tmp_path):
  folders.write_folder(tmp_path, 5, layout='dataset', num_test=2)
  dataset = load(tmp_path, num_validation=1, num_train=80, num_test=29)
  assert [len(dataset[name]) for name in ('train', 'validation', 'test')] == [2, 1, 2]
  assert dataset['test'].names == ('case_03', 'case_04')
  path = folders.write_split(tmp_path / 's.json', train=['case_02'], test=['case_01', 'case_00'])
  dataset = load(tmp_path, split_file=path)
  assert dataset['train'].names == ('case_02',)
  assert dataset['test'].names == ('case_00', 'case_01') and len(dataset['validation']) == 0
  path = folders.write_split(tmp_path / 's.json', test=['case_01'])
  with pytest.raises(ValueError, match='has no training case'):
    load(tmp_path, split_file=path)


def test_sixteen_bits_make_every_record_float(tmp_path):
  folders.write_folder(tmp_path, 3, bits=16)
  eight = np.arange(64 * 32, dtype=np.uint16).reshape(64, 32) % 256
  Image.fromarray(eight.astype(np.uint8)).save(tmp_path / 'images/case_01.png')
  records = list(load(tmp_path)['train'])
  assert [record.image.dtype for record in records] == [np.float32] * 3
  np.testing.assert_array_equal(records[1].image[..., 0], eight)
  stored = np.asarray(Image.open(tmp_path / 'images/case_00.png'))
  np.testing.assert_array_equal(records[0].image[..., 0], stored.astype(np.float32) / 257)
  for path in (tmp_path / 'masks').iterdir():
    Image.new('L', (32, 64)).save(path)
  assert all(record.label.max() == 0 for record in load(tmp_path)['train'])  # all background


@pytest.mark.parametrize('coding, palette', [
    ('color', '000000,e63c28,28c85a,3250dc'), ('color', folders.PALETTE[:4]), ('palette', '')])
def test_palette_label_map_and_channels(tmp_path, coding, palette):
  folders.write_folder(tmp_path / 'index', 2)
  folders.write_folder(tmp_path / 'other', 2, coding=coding)
  fields = dict(classes=('background', 'bone'), label_map=(0, 1, 1, 1), channels=3)
  expected = load(tmp_path / 'index')['train']
  found = load(tmp_path / 'other', palette=palette, **fields)['train']
  for record, other in zip(expected, found):
    np.testing.assert_array_equal(other.label, record.label > 0)
    np.testing.assert_array_equal(other.image, np.repeat(record.image, 3, -1))


def test_fingerprint_follows_pixels_names_patients_and_options(tmp_path):
  folders.write_folder(tmp_path, 3, patients='abc')
  fingerprint = lambda **fields: load(tmp_path, **fields)['train'].fingerprint
  first = fingerprint()
  assert fingerprint() == first
  found = {first, fingerprint(channels=3), fingerprint(label_map=(0, 1, 1, 1)),
           fingerprint(num_test=1)}
  table = tmp_path / 'cases.csv'
  table.write_text(table.read_text().replace(',a,', ',d,'))
  found.add(fingerprint())
  path = tmp_path / 'masks/case_00.png'
  label = np.array(Image.open(path))
  label[0, 0] = 3
  Image.fromarray(label).save(path)
  found.add(fingerprint())
  assert len(found) == 6


@pytest.mark.parametrize('fields, error, words', [
    (dict(name='vip'), ValueError,
     "one of vpi_phantom, volume_phantom, xray_phantom, folder, built, not 'vip'"),
    (dict(directory=''), ValueError, 'needs config.data.directory'),
    (dict(directory='absent'), FileNotFoundError, 'absent: there is no such folder'),
    (dict(classes=('a', 'b')), ValueError, 'values 2, 3, but the labels are 0 to 1. There are 2 '
     'more faults; spinejax build'),
    (dict(label_map=(0, 1, 2, 9)), ValueError, 'has a class outside of the 4 classes'),
    (dict(palette='000000'), ValueError, '1 colors for 4 labels'),
    (dict(palette='zz'), ValueError, 'hexadecimal'),
    (dict(channels=2), ValueError, 'must be 1'),
    (dict(strengths=dict(speckle=-1)), ValueError,
     'config.data.strengths: the strength of speckle must be a number from 0 to 100, not -1'),
    (dict(strengths=dict(noise=1.0)), ValueError,
     "strengths has no artifact 'noise'; it has speckle, mottling, gain, holes, false_bones"),
    (dict(num_train=80, num_test=29), ValueError, 'too few patients, 3, for 80 for training'),
    (dict(split_file='absent.json'), FileNotFoundError, 'no such split file'),
])
def test_refusals(tmp_path, fields, error, words):
  folders.write_folder(tmp_path, 3)
  with pytest.raises(error, match=words) as raised:
    load(**{'directory': tmp_path, **fields})
  assert '\n' not in str(raised.value)


@pytest.fixture
def rendered(monkeypatch):
  """A phantom that is quick to draw; the seeds it was asked for."""
  seeds = []

  def vpi(seed, shape=(1024, 256), difficulty=1.0):
    seeds.append(seed)
    rng = np.random.default_rng(seed)
    image, label = folders.draw_case(rng, shape, 4)
    truth = types.SimpleNamespace(spacing=(0.2 * difficulty, 0.4))
    return types.SimpleNamespace(image=image, label=label, truth=truth)

  monkeypatch.setattr(phantoms, 'vpi', vpi)
  return seeds


def phantom(**fields):
  return load('', **{**dict(name='vpi_phantom', num_train=4, num_test=2), **fields})


def test_phantoms_are_one_patient_each_and_rendered_once(rendered):
  dataset = phantom(num_validation=1)
  assert [len(dataset[name]) for name in ('train', 'validation', 'test')] == [4, 1, 2]
  record = dataset['train'][2]
  assert record.image.shape == (128, 32, 1) and record.label.shape == (128, 32)
  assert record.name == record.patient == dataset['train'].names[2]
  np.testing.assert_array_equal(record.spacing, np.float32([0.2, 0.4]))
  count = len(rendered)
  assert dataset['train'][2] is record and len(rendered) == count
  for source in dataset.values():
    list(source)
  assert len(set(rendered)) == 7 == len(rendered)


def test_test_phantoms_do_not_depend_on_the_training_set(rendered):
  sources = [phantom(), phantom(num_train=2), phantom(split_seed=1)]
  names = [source['test'].names for source in sources]
  assert names[0] == names[1] and not set(names[0]) & set(names[2])
  assert sources[0]['test'].fingerprint == sources[1]['test'].fingerprint
  assert sources[0]['test'].fingerprint != phantom(difficulty=2.0)['test'].fingerprint


@pytest.mark.parametrize('fields, words', [
    (dict(num_train=0.5), 'num_train must be a whole number of phantoms'),
    (dict(num_test=-1), 'num_test must be'), (dict(num_train=0), 'has no training case'),
    (dict(classes=('background', 'bone')), 'the phantom has 4 labels'),
    (dict(label_map=(0, 1)), 'the phantom has 4 labels')])
def test_phantoms_that_do_not_fit(rendered, fields, words):
  with pytest.raises(ValueError, match=words):
    phantom(**fields)


@pytest.mark.parametrize('name, size, angle', [
    ('vpi_phantom', (128, 32), 'uca'), ('xray_phantom', (128, 32), 'centerline_cobb'),
    ('volume_phantom', (48, 16, 8), 'center_of_lamina')])
def test_records_of_phantoms(name, size, angle):
  config = folders.volume_config if len(size) == 3 else folders.data_config
  fields = dict(classes=('background', 'bone'), label_map=(0, 1, 1, 1)[:3 + (name[0] == 'v')],
                channels=3) if len(size) == 2 else dict(image_size=size)
  record = datasets.load_dataset(config(
      '', name=name, num_train=1, render_size=size, strengths={'holes': 2}, **fields))['train'][0]
  assert record.image.shape == (*size, fields.get('channels', 1)) and record.label.shape == size
  assert np.unique(record.label).tolist() == [0, 1]
  assert record.spacing.shape == (len(size),) and (record.spacing > 0).all()
  assert record.true_angles[angle] >= 0
  assert (record.hole_fraction is not None) == (name == 'vpi_phantom')
  assert (record.landmarks is None) == (record.region is None) == (len(size) == 2)
