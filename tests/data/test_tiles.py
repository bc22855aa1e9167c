"""Tiles: they cover, agree inside and blend to the whole."""
import numpy as np
import pytest
from scipy import ndimage

from spinejax.data import memory
from spinejax.data import tiles


@pytest.mark.parametrize('size, tile, expected', [
    ((64,), (32,), [0, 16, 32]), ((70,), (32,), [0, 16, 32, 38]), ((32,), (32,), [0]),
    ((10,), (4,), [0, 2, 4, 6]), ((5,), (1,), [0, 1, 2, 3, 4]), ((200,), (100,), [0, 48, 96, 100])])
def test_starts_by_hand(size, tile, expected):
  assert tiles.tile_starts(size, tile) == [(start,) for start in expected]


def test_starts_of_a_volume_are_the_product_of_its_axes():
  assert tiles.tile_starts((8, 6, 4), (8, 4, 2)) == [
      (0, y, x) for y in (0, 2) for x in (0, 1, 2)]


@pytest.mark.parametrize('tile', [(4,), (4, 4, 4), (0, 4), (4, 9), (-1, 4)])
def test_tiles_that_do_not_fit_are_one_sentence(tile):
  with pytest.raises(ValueError, match=r'2 sizes from 1 to those of the network\'s image \(8, 8\)'):
    tiles.tile_starts((8, 8), tile)


def test_weights_by_hand():
  np.testing.assert_allclose(tiles.blend_weights((4,)), [0.5, 1, 1, 0.5])
  np.testing.assert_allclose(tiles.blend_weights((3, 1)), [[0.5], [1], [0.5]])
  assert (tiles.blend_weights((7, 6, 5)) > 0).all()


@pytest.mark.parametrize('size, tile', [((40, 22), (16, 8)), ((12, 10, 9), (5, 10, 4))])
def test_tiles_of_what_looks_at_single_pixels_are_the_whole(size, tile):
  images = np.random.default_rng(0).normal(size=(2, *size, 1)).astype(np.float32)
  predict = lambda x: np.concatenate([2 * x, x ** 2], -1)
  result = tiles.predict_in_tiles(predict, images, tile)
  assert result.dtype == np.float32
  np.testing.assert_allclose(result, predict(images), rtol=1e-5, atol=1e-6)


def test_what_sees_no_farther_than_the_overlap_differs_near_tile_borders_only():
  image = np.random.default_rng(1).normal(size=(1, 96, 40, 1)).astype(np.float32)
  blur = lambda x: ndimage.uniform_filter(x, (1, 3, 3, 1), mode='constant')  # sees one pixel
  whole, tiled = blur(image), tiles.predict_in_tiles(blur, image, (32, 40))
  difference = np.abs(whole - tiled).max((0, 2, 3))
  borders = [16, 31, 32, 47, 48, 63, 64, 79]  # first and last rows of tiles
  assert difference[np.setdiff1d(np.arange(96), borders)].max() < 1e-5
  assert 0 < difference[borders].max() < 0.1  # the tile that has it inside weighs more


def test_too_little_memory_is_one_sentence():
  memory.require(10, 'a thing', 'wait', 10)
  with pytest.raises(ValueError, match='a thing needs 3 GiB of memory and 2 GiB are left; wait.'):
    memory.require(3 * 2**30, 'a thing', 'wait', 2 * 2**30)
  with pytest.raises(ValueError, match=r'needs 1.13e\+15 GiB'):
    memory.require(2**80, 'all', 'wait')
