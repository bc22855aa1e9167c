"""Resizing on the host against JAX, pillow and hand-computed numbers."""
import jax
import numpy as np
import pytest
from PIL import Image

from spinejax.data import resize

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
  result = resize.resize_image(pixels, size)
  assert result.dtype == np.uint8 and result.shape == (*size, 2)
  exact = resize.resize_image(pixels.astype(np.float32), size)
  assert exact.dtype == np.float32
  np.testing.assert_array_equal(result, np.floor(exact + 0.5))
  np.testing.assert_array_equal(result[..., 0], resize.resize_image(pixels[..., :1], size)[..., 0])


def test_constant_stays_and_same_size_copies(image):
  constant = np.full((9, 7, 1), 200, np.uint8)
  np.testing.assert_array_equal(resize.resize_image(constant, (4, 31)), 200)
  np.testing.assert_array_equal(resize.resize_bilinear(image, image.shape, antialias=True), image)


def test_labels_keep_their_values_there_and_back():
  label = np.random.default_rng(1).integers(0, 4, (13, 9)).astype(np.uint8)
  large = resize.resize_nearest(label, (39, 45))
  assert large.dtype == np.uint8
  np.testing.assert_array_equal(resize.resize_nearest(large, (13, 9)), label)


def test_centroid_does_not_move():
  rows, columns = np.mgrid[:90, :60]
  blob = np.exp(-((rows - 40.3)**2 + (columns - 22.8)**2) / 60).astype(np.float32)
  small = resize.resize_bilinear(blob, (30, 20), antialias=True)
  rows, columns = np.mgrid[:30, :20]
  center = [(axis * small).sum() / small.sum() for axis in (rows, columns)]
  np.testing.assert_allclose([3 * (center[0] + 0.5) - 0.5, 3 * (center[1] + 0.5) - 0.5],
                             [40.3, 22.8], atol=0.02)
