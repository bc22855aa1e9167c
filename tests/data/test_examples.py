"""Arrays of the network's size: resizing against JAX and pillow, prepared cases, cells."""
import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from spinejax.data import datasets, examples, resize
from tests.readers import folders

SIZES = [(57, 33), (20, 11), (100, 70), (57, 10), (19, 66), (1, 1)]


@pytest.fixture
def image():
  return np.random.default_rng(0).uniform(0, 255, (57, 33)).astype(np.float32)


def test_hand_computed():
  row = np.float32([[0, 4]])
  np.testing.assert_array_equal(resize.resize_bilinear(row, (1, 4)), [[0, 1, 3, 4]])
  wide = np.float32([[0, 4, 8, 12]])
  np.testing.assert_array_equal(resize.resize_bilinear(wide, (1, 2)), [[2, 10]])
  np.testing.assert_allclose(  # triangle of half width 2: weights 1 3 3 1, cut at the border
      resize.resize_bilinear(wide, (1, 2), antialias=True),
      [[(3 * 0 + 3 * 4 + 1 * 8) / 7, (1 * 4 + 3 * 8 + 3 * 12) / 7]], rtol=1e-6)
  np.testing.assert_array_equal(resize.resize_nearest(np.array([[1, 2, 3]]), (2, 6)),
                                [[1, 1, 2, 2, 3, 3]] * 2)


@pytest.mark.parametrize('size', SIZES)
def test_equals_jax_and_pillow(image, size):
  linear = jax.image.resize(image, size, 'linear', antialias=False)
  np.testing.assert_allclose(resize.resize_bilinear(image, size), linear, atol=1e-3)
  smooth = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
  np.testing.assert_allclose(resize.resize_bilinear(image, size, antialias=True), smooth, atol=1e-3)
  nearest = jax.image.resize(image, size, 'nearest')
  np.testing.assert_array_equal(resize.resize_nearest(image, size), nearest)


@pytest.mark.parametrize('size', SIZES)
def test_bytes_are_rounded_and_channels_apart(image, size):
  pixels = np.stack([image, 255 - image], -1).astype(np.uint8)
  result, exact, first = (resize.resize_bilinear(array, size, antialias=True)
                          for array in (pixels, pixels.astype(np.float32), pixels[..., :1]))
  assert (result.dtype, exact.dtype, result.shape) == (np.uint8, np.float32, (*size, 2))
  np.testing.assert_array_equal(result, np.floor(exact + 0.5))
  np.testing.assert_array_equal(result[..., :1], first)
  constant = np.full((9, 7, 1), 200, np.uint8)
  np.testing.assert_array_equal(resize.resize_bilinear(constant, size, antialias=True), 200)


def test_prepared_cases(tmp_path):
  folders.write_folder(tmp_path, 1, size=(80, 50))
  config = folders.data_config(tmp_path)
  record = datasets.load_dataset(config)['train'][0]
  case = examples.prepare_case(record, config, cells=True)
  np.testing.assert_array_equal(
      case['image'], resize.resize_bilinear(record.image, (64, 32), antialias=True))
  np.testing.assert_array_equal(case['label'], resize.resize_nearest(record.label, (64, 32)))
  np.testing.assert_array_equal(case['cells'], examples.component_cells(case['label'], 4))
  assert all(array.dtype == np.uint8 for array in case.values())
  alone = examples.prepare_case(dataclasses.replace(record, label=None), config, cells=True)
  assert set(alone) == {'image'}


def test_hand_computed_cells():
  label = np.array([[1, 0, 0, 0, 1],
                    [0, 1, 0, 0, 1],
                    [0, 0, 0, 0, 2]])
  cells = examples.component_cells(label, 4)
  assert cells.shape == (3, 5, 3) and cells.dtype == np.uint8
  np.testing.assert_array_equal(cells[..., 0], [[1, 1, 1, 2, 2],   # diagonal neighbors are one
                                                [1, 1, 1, 2, 2],
                                                [1, 1, 1, 2, 2]])
  np.testing.assert_array_equal(cells[..., 1], 1)
  np.testing.assert_array_equal(cells[..., 2], 0)


def test_components_are_their_own_cells_and_others_belong_to_the_nearest():
  label = (np.random.default_rng(0).random((40, 30)) < 0.03).astype(np.int32)
  cells = examples.component_cells(label, 2)[..., 0]
  seeds = [np.argwhere((label == 1) & (cells == m)) for m in range(1, cells.max() + 1)]
  assert len(seeds) > 5
  for point in np.ndindex(*label.shape):
    distances = [((members - point)**2).sum(-1).min() for members in seeds]
    assert distances[cells[point] - 1] == min(distances)


def test_at_most_255_components_and_the_small_ones_join():
  label = np.zeros((80, 80), np.uint8)
  label[::4, ::4] = 1            # 400 single pixels
  label[0:2, 0:2] = 1            # one larger, first
  label[76:78, 76:78] = 1        # one larger, last
  cells = examples.component_cells(label, 2)[..., 0]
  assert sorted(np.unique(cells)) == list(range(1, 256))
  assert cells[0, 0] == 1 and cells[77, 77] == 255


def test_cells_in_three_dimensions():
  label = np.zeros((3, 4, 5), np.uint8)
  label[0, 0, 0] = label[2, 3, 4] = 1
  cells = examples.component_cells(label, 2)
  assert cells.shape == (3, 4, 5, 1)
  assert cells[0, 0, 1, 0] == 1 and cells[2, 3, 3, 0] == 2
