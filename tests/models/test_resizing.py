"""Pooling, resizing and padding by hand and against Flax, JAX and PyTorch."""
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.models import resizing
from tests.models.arrays import assert_same_function, random


@pytest.mark.parametrize('shape', [(2, 8, 6, 3), (1, 7, 5, 2), (2, 4, 6, 8, 2), (1, 3, 5, 4, 1)])
def test_max_pool_by_two(shape):
  rank = len(shape) - 2
  assert_same_function(lambda x: resizing.max_pool(x),
                       lambda x: nn.max_pool(x, (2,) * rank, (2,) * rank), random(*shape))


def test_max_pool_with_padding_of_minus_infinity():
  x = -1 - jnp.abs(random(2, 9, 7, 3))  # zeros in the padding would win
  assert_same_function(
      lambda x: resizing.max_pool(x, 3, 2, 1),
      lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)


@pytest.mark.parametrize('size, stride', [((6, 8), 1), ((7, 5), 2), ((1, 2), 3)])
def test_max_pool_padded_as_tensorflow(size, stride):
  x = -1 - jnp.abs(random(2, *size, 3))
  assert_same_function(lambda x: resizing.max_pool(x, 3, stride, padding='same'),
                       lambda x: nn.max_pool(x, (3, 3), (stride, stride), 'SAME'), x)


def test_ties_of_the_pool_give_the_first_the_whole_gradient():
  gradient = jax.grad(lambda x: jnp.sum(resizing.max_pool(x)))(jnp.zeros((1, 4, 4, 1)))
  expected = np.zeros((4, 4))
  expected[::2, ::2] = 1
  np.testing.assert_array_equal(gradient[0, ..., 0], expected)


@pytest.mark.parametrize('shape', [(2, 5, 4, 3), (1, 1, 7, 2), (1, 3, 2, 4, 2)])
def test_bilinear_and_nearest_doubling(shape):
  doubled = (shape[0], *(2 * n for n in shape[1:-1]), shape[-1])
  x = random(*shape)
  assert_same_function(resizing.upsample_bilinear,
                       lambda x: jax.image.resize(x, doubled, 'linear', antialias=False), x)
  assert_same_function(resizing.upsample_nearest,
                       lambda x: jax.image.resize(x, doubled, 'nearest'), x)


@pytest.mark.parametrize('shape, factor', [
    ((2, 3, 5, 2), 4), ((1, 1, 4, 1), 3), ((1, 4, 3, 2, 1), 4)])
def test_bilinear_by_other_factors(shape, factor):
  size = [factor * n for n in shape[1:-1]]
  assert_same_function(lambda x: resizing.upsample_bilinear(x, factor),
                       lambda x: jax.image.resize(x, (shape[0], *size, shape[-1]), 'linear',
                                                  antialias=False), random(*shape))


def test_resizing_with_aligned_corners_by_hand():
  x = jnp.asarray([[0.0, 3.0], [6.0, 9.0], [30.0, 33.0]])[None, ..., None]
  larger = resizing.resize_bilinear(x, (5, 4), align_corners=True)[0, ..., 0]
  np.testing.assert_allclose(larger, np.add.outer([0, 3, 6, 18, 30], [0, 1, 2, 3]), atol=1e-5)
  odd = random(2, 7, 5, 3)  # halved with its corners kept, an odd size is every other pixel
  np.testing.assert_allclose(resizing.resize_bilinear(odd, (4, 3), align_corners=True),
                             odd[:, ::2, ::2], rtol=1e-6)


@pytest.mark.parametrize('before, after', [((1, 4), (3, 1)), ((5, 1), (1, 1)), ((2, 1), (1, 2))])
def test_aligned_corners_of_a_single_pixel_are_the_first(before, after):
  x = random(1, *before, 2)
  rows = [0] if after[0] == 1 else np.round(np.linspace(0, before[0] - 1, after[0])).astype(int)
  columns = [0] * after[1]
  np.testing.assert_allclose(resizing.resize_bilinear(x, after, align_corners=True),
                             np.asarray(x)[:, rows][:, :, columns], rtol=1e-6)


@pytest.mark.parametrize('shape', [(2, 7, 5, 3), (1, 1, 12, 2), (1, 2, 1, 1), (1, 5, 4, 3, 2)])
def test_adaptive_pooling_is_the_mean_of_every_bin(shape):
  x = np.asarray(random(*shape), np.float64)
  size = shape[1:-1]
  all_bins = (1, 2, 3, 6)
  pooled = jax.jit(lambda x: [resizing.adaptive_average_pool(x, bins) for bins in all_bins])(
      jnp.float32(x))
  for bins, actual in zip(all_bins, pooled):
    expected = np.empty((shape[0], *(bins,) * len(size), shape[-1]))
    for place in np.ndindex(*(bins,) * len(size)):
      window = tuple(slice(math.floor(b * n / bins), math.ceil((b + 1) * n / bins))
                     for b, n in zip(place, size))
      expected[(slice(None), *place)] = x[(slice(None), *window)].mean(
          tuple(range(1, len(size) + 1)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_pooling_and_aligned_corners_equal_the_reference(shared):
  path = shared / 'golden' / 'losses_ops.npz'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  reference = np.load(path)
  image = jnp.moveaxis(jnp.asarray(reference['im']), 1, -1)
  actual = {f'aap{bins}': resizing.adaptive_average_pool(image, bins) for bins in (1, 2, 3, 6)}
  actual['bilinear_ac'] = resizing.resize_bilinear(
      image, reference['bilinear_ac'].shape[2:], align_corners=True)
  for name, array in actual.items():
    np.testing.assert_allclose(jnp.moveaxis(array, -1, 1), reference[name], rtol=1e-5, atol=1e-5)


def test_padding_repeats_the_border_and_cropping_undoes_it():
  x = random(1, 5, 1, 2)
  padded = resizing.pad_to_multiple(x, 4)
  assert padded.shape == (1, 8, 4, 2)
  np.testing.assert_array_equal(padded[:, 5:], jnp.repeat(padded[:, 4:5], 3, 1))
  np.testing.assert_array_equal(resizing.crop(padded, (5, 1)), x)
  assert resizing.pad_to_multiple(padded, 4) is padded
