"""Tiles: they cover, agree inside and blend to the whole."""
import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from spinejax.inference import tiles
from spinejax.models import unet


@pytest.mark.parametrize('size, tile, expected', [
    ((64,), (32,), [0, 16, 32]), ((70,), (32,), [0, 16, 32, 38]), ((32,), (32,), [0]),
    ((10,), (4,), [0, 2, 4, 6]), ((5,), (1,), [0, 1, 2, 3, 4]), ((200,), (100,), [0, 48, 96, 100])])
def test_starts_by_hand(size, tile, expected):
  assert tiles.tile_starts(size, tile) == [(start,) for start in expected]
  assert tiles.tile_starts((8, *size), (8, *tile)) == [(0, start) for start in expected]


@pytest.mark.parametrize('tile', [(4,), (4, 4, 4), (0, 4), (4, 9), (-1, 4)])
def test_tiles_that_do_not_fit_are_one_sentence(tile):
  with pytest.raises(ValueError, match=r'2 sizes from 1 to those of the network\'s image \(8, 8\)'):
    tiles.tile_starts((8, 8), tile)


@pytest.mark.parametrize('size, expected', [
    ((512, 128), [(512, 128), (256, 128), (128, 128), (64, 128), (64, 64), (32, 64), (32, 32)]),
    ((150, 24), [(150, 24), (80, 24), (48, 24), (32, 24)]),
    ((33,), [(33,), (32,)]), ((7, 5), [(7, 5)])])
def test_ever_smaller_tiles_by_hand(size, expected):
  assert tiles.tile_sizes(size) == expected


def test_weights_by_hand():
  np.testing.assert_allclose(tiles.blend_weights((0,), (8,), (20,)), [1, 1, 1, 1, 1, .75, .25, 0])
  np.testing.assert_allclose(tiles.blend_weights((4,), (8,), (20,)),
                             [0, .25, .75, 1, 1, .75, .25, 0])
  np.testing.assert_allclose(tiles.blend_weights((12, 0), (8, 1), (20, 1)).ravel(),
                             [0, .25, .75, 1, 1, 1, 1, 1])
  np.testing.assert_allclose(tiles.blend_weights((0, 3), (3, 1), (3, 9)), [[.5 * .5]] * 3)


@pytest.mark.parametrize('size, tile', [
    ((70,), (32,)), ((23,), (9,)), ((6,), (1,)), ((9,), (2,)), ((40, 22), (16, 8)),
    ((12, 10, 9), (5, 10, 4))])
def test_tiles_of_what_looks_at_single_pixels_are_the_whole(size, tile):
  images = np.random.default_rng(0).normal(size=(2, *size, 1)).astype(np.float32)
  predict = lambda x: np.concatenate([2 * x, x ** 2], -1)
  result = tiles.predict_in_tiles(predict, images, tile)
  assert result.dtype == np.float32
  np.testing.assert_allclose(result, predict(images), rtol=1e-5, atol=1e-6)


def test_what_sees_no_farther_than_an_eighth_of_a_tile_is_the_whole():
  image = np.random.default_rng(1).normal(size=(1, 96, 40, 1)).astype(np.float32)
  blur = lambda size: lambda x: ndimage.uniform_filter(x, (1, size, size, 1), mode='constant')
  difference = lambda size: np.abs(
      blur(size)(image) - tiles.predict_in_tiles(blur(size), image, (32, 40))).max((0, 2, 3))
  assert difference(9).max() < 1e-5  # 4 pixels to each side
  assert difference(13)[:4].max() < 1e-5  # one tile sees these rows and what is around them
  assert 0 < difference(13).max() < 0.1


def noise(*size):
  return np.random.default_rng(0).normal(size=(1, *size, 1)).astype(np.float32)


@pytest.fixture(scope='module')
def network():
  """Logits of a U-Net of one level with random weights."""
  model = unet.UNet(num_classes=2, features=2, levels=1)
  variables = jax.jit(functools.partial(model.init, train=True))(
      {'params': jax.random.key(0), 'dropout': jax.random.key(0)}, noise(96, 45))
  apply = jax.jit(lambda images: model.apply(variables, images, train=False)['logits'])
  return lambda images: np.asarray(apply(images))


@pytest.mark.xdist_group('test_tiles')  # one worker compiles the network
@pytest.mark.parametrize('tile', [(64, 45), (32, 45)])
def test_tiles_of_a_network_are_the_whole(network, tile):
  calls = []

  def predict(images):
    calls.append(images.shape[1:-1])
    return network(images)

  result = tiles.predict_in_tiles(predict, noise(96, 45), tile)
  assert set(calls) == {tile} and len(calls) > 1
  # Two convolutions, two at half the size and two more see 8 pixels; 8 of 64 and 4 of 32 are cut.
  difference = np.abs(result - network(noise(96, 45)))
  assert difference[:, :8].max() < 1e-5 and difference[:, -8:].max() < 1e-5
  assert difference.max() < 1e-5 if tile[0] == 64 else 1e-5 < difference.max() < 1e-2


@pytest.mark.xdist_group('test_tiles')
def test_tiles_smaller_than_the_stride_of_a_network_pass(network):
  result = tiles.predict_in_tiles(network, noise(7, 5), (1, 1))
  assert result.shape == (1, 7, 5, 2) and np.isfinite(result).all()
  np.testing.assert_array_equal(
      tiles.predict_in_tiles(network, noise(7, 5), (7, 5)), network(noise(7, 5)))
