"""Order, shards and contents of training batches."""
import collections

import jax
import numpy as np
import pytest

from spinejax.data import batches, datasets, examples
from tests.readers import folders


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('folder')
  folders.write_folder(path, 5, size=(80, 50))
  return path


def make(directory, batch_size=4, **fields):
  """A config and its training set."""
  config = dict(seed=3, batch_size=batch_size, data=folders.data_config(directory, **fields))
  return config, datasets.load_dataset(config['data'])['train']


def assert_equal(batch, other):
  assert set(batch) == set(other)
  for name in batch:
    assert batch[name].dtype == other[name].dtype
    np.testing.assert_array_equal(batch[name], other[name])


def test_the_last_patches_are_flush_and_a_stride_of_zero_is_random():
  positions = batches.patch_positions((1024, 256), (512, 256), (128, 256))  # of SEAM
  np.testing.assert_array_equal(positions, [[row, 0] for row in (0, 128, 256, 384, 512)])
  assert positions.dtype == np.int32
  positions = batches.patch_positions((10, 7), (4, 3), (4, 3))
  np.testing.assert_array_equal(positions, [[y, x] for y in (0, 4, 6) for x in (0, 3, 4)])
  np.testing.assert_array_equal(batches.patch_positions((5, 5), (5, 5), (2, 9)), [[0, 0]])
  assert batches.patch_positions((10, 7), (4, 3), (0, 0)) is None


@pytest.mark.parametrize('patch, stride, words', [
    ((11, 3), (1, 1), 'within data.image_size'), ((0, 3), (1, 1), 'within data.image_size'),
    ((4, 3), (0, 3), 'above 0 along each axis'), ((4, 3), (-1, 3), 'above 0 along each axis')])
def test_patches_that_do_not_fit(patch, stride, words):
  with pytest.raises(ValueError, match=words):
    batches.patch_positions((10, 7), patch, stride)


def test_every_epoch_shows_every_example_once_in_another_order():
  batch_at = batches.train_indices(5, 3, 4, seed=0)
  stream = [tuple(pair) for step in range(15) for pair in batch_at(step)]
  everything = [(case, position) for case in range(5) for position in range(3)]
  epochs = [stream[start:start + 15] for start in range(0, 60, 15)]
  assert all(sorted(epoch) == everything for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_depend_on_seed_and_step_alone():
  batch_at = batches.train_indices(7, 2, 4, seed=1)
  late = batch_at(10**7)
  first = batch_at(0)
  again = batches.train_indices(7, 2, 4, seed=1)
  np.testing.assert_array_equal(again(0), first)
  np.testing.assert_array_equal(again(10**7), late)
  assert first.dtype == np.int32
  orders = {batches.train_indices(50, 1, 50, seed)(epoch)[:, 0].tobytes()
            for seed in (-1, 0, 1, 2) for epoch in range(4)}
  assert len(orders) == 16  # also not the next epoch of the seed before


def test_a_set_smaller_than_the_batch_repeats_in_it():
  batch_at = batches.train_indices(3, 1, 8, seed=0)
  count = collections.Counter(case for step in range(6) for case in batch_at(step)[:, 0].tolist())
  assert all(batch_at(step).shape == (8, 2) for step in range(6))
  assert count == {case: 16 for case in range(3)}
  for sizes in ((0, 1, 4), (3, 1, 0)):
    with pytest.raises(ValueError, match='a batch needs a case'):
      batches.train_indices(*sizes, seed=0)


def test_processes_share_a_batch_in_contiguous_parts():
  indices = batches.train_indices(9, 4, 6, seed=0)(5)
  positions = np.arange(8, dtype=np.int32).reshape(4, 2)
  whole = batches.index_batch(indices, positions)
  np.testing.assert_array_equal(whole['case'], indices[:, 0])
  np.testing.assert_array_equal(whole['position'], positions[indices[:, 1]])
  np.testing.assert_array_equal(whole['slot'], np.arange(6))
  parts = [batches.index_batch(indices, positions, process, 3) for process in range(3)]
  assert_equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)
  assert 'position' not in batches.index_batch(indices, None)
  with pytest.raises(ValueError, match='6 is not a multiple of the 4 processes'):
    batches.index_batch(indices, positions, 0, 4)


@pytest.mark.parametrize('stride, cells, process', [((16, 32), True, 0), ((16, 32), False, 1),
                                                    ((0, 0), False, 0)])
def test_memory_and_stream_give_the_same_batches(directory, stride, cells, process):
  """The second process streams; its batches are a part of those of one process in memory."""
  config, source = make(directory, patch_stride=stride, cache='device')
  device = batches.create_feed(source, config, cells=cells)
  config['data']['cache'] = 'stream'
  stream = batches.create_feed(
      source, config, cells=cells, process_index=process, process_count=1 + process)
  part = slice(2 * process, 4)
  assert (device.cache, stream.cache) == ('device', 'stream')
  assert (device.mean, device.std) == (stream.mean, stream.std)
  assert device.steps_per_epoch == stream.steps_per_epoch == (4 if stride[0] else 2)
  for step in (0, 1, 2, 7, 8, 3):  # forward, then anywhere
    batch = device.batch_at(step)
    assert_equal({name: array[part] for name, array in batch.items()}, stream.batch_at(step))
    assert ('cells' in batch) == cells and ('position' in batch) == (stride != (0, 0))
    names = device.names_at(step)
    assert names == stream.names_at(step)
    for i, name in enumerate(names):
      case = examples.prepare_case(source[source.names.index(name)], config['data'], cells)
      for array in case:
        np.testing.assert_array_equal(batch[array][i], case[array])


def test_only_what_is_needed_is_read(directory):
  config, source = make(directory, cache='stream')
  config['data'].update(mean=1.0, std=2.0)
  read = []
  watched = datasets.Source(
      source.names, source.patients, lambda i: (read.append(i), source[i])[1], source.fingerprint)
  feed = batches.create_feed(watched, config)
  assert not read and (feed.mean, feed.std) == ((1.0,), (2.0,))
  config['data']['cache'] = 'device'
  steps = []
  feed = batches.create_feed(watched, config, progress=lambda: steps.append(1))
  assert sorted(read) == [0, 1, 2, 3, 4] and len(steps) == 5
  feed.batch_at(0)
  assert len(read) == 5


def test_statistics_of_the_training_images(directory):
  config, source = make(directory)
  pixels = np.stack([examples.prepare_case(record, config['data'])['image'] for record in source])
  feed = batches.create_feed(source, config)
  np.testing.assert_allclose([*feed.mean, *feed.std], [pixels.mean(), pixels.std()], rtol=1e-12)
  config['data'].update(mean=10.0, std=(2.0,))
  assert batches.create_feed(source, config)[:2] == ((10.0,), (2.0,))
  config['data']['mean'] = (1.0, 2.0)
  with pytest.raises(ValueError, match='data.mean must have one value, or one for each of 1 chan'):
    batches.create_feed(source, config)
  assert batches.image_statistics([np.full((3, 3, 1), 7, np.uint8)]) == (7.0, 0.0)
  assert batches.image_statistics([]) == (0.0, 0.0)


def test_the_cache_follows_the_size(directory, monkeypatch):
  config, source = make(directory)
  size = 5 * 64 * 32 * (1 + 1 + 3)
  assert batches.create_feed(source, config, cells=True).cache == 'device'
  for pages, cache in ((4 * size, 'device'), (4 * size - 1, 'stream')):
    memory = {'SC_PAGE_SIZE': 1, 'SC_PHYS_PAGES': pages}
    monkeypatch.setattr(batches.os, 'sysconf', memory.__getitem__)
    assert batches.create_feed(source, config, cells=True).cache == cache


def test_one_case_and_sixteen_bits(tmp_path):
  folders.write_folder(tmp_path, 1, bits=16)
  config, source = make(tmp_path, batch_size=6, patch_stride=(0, 0))
  batch = batches.create_feed(source, config).batch_at(4)
  assert batch['image'].shape == (6, 64, 32, 1) and batch['image'].dtype == np.float32
  assert isinstance(batch['image'], jax.Array)
  np.testing.assert_array_equal(batch['image'][5], source[0].image)


@pytest.mark.parametrize('cache', ['device', 'stream'])
def test_a_file_that_breaks_after_the_check_is_one_sentence(tmp_path, cache):
  folders.write_folder(tmp_path, 3)
  config, source = make(tmp_path, cache=cache, mean=0.0, std=1.0)
  (tmp_path / 'images/case_01.png').write_bytes(b'')
  with pytest.raises(ValueError, match='case_01.png: the file is empty.'):
    feed = batches.create_feed(source, config)
    for step in range(3):
      feed.batch_at(step)
