"""WaveCT-style: wavelets by hand, styles that are taken, two halves that do not touch."""
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax import losses
from spinejax import models
from spinejax.data import resize
from spinejax.phantoms import vpi
from spinejax.models import wave_ct
from tests.models.arrays import init, random

pytestmark = pytest.mark.xdist_group('test_wave_ct')  # its runs are made once, by one worker

SMALL = dict(num_classes=3, backbone='shallow', backbone_width=4, neck_features=8, head_features=8)
FIELDS = dict(SMALL, name='wave_ct', autoencoder_features=4)


def create(fields):
  model = models.create_model(fields)
  return model, init(model, (1, 32, 32, 1))


def compiled(model, variables, method='__call__'):
  return jax.jit(functools.partial(model.apply, variables, method=method),
                 static_argnames=('train', 'mutable'))


@pytest.fixture(scope='module')
def images():
  """Five phantoms, float32 [5, 48, 32, 1], normalized."""
  phantoms = [vpi(seed, shape=(96, 64)).image[..., None] for seed in range(5)]
  images = np.stack([resize.resize_bilinear(image, (48, 32), True) for image in phantoms])
  return (np.float32(images) - 76) / 84


@pytest.fixture(scope='module')
def learned(images):
  """An autoencoder after 120 steps on three of the images, as a function, and its losses.

  The function maps an image and optionally a style to the result and the statistics of its codes.
  """
  model = wave_ct.WaveletAutoencoder(features=8)
  batch, tx = jnp.asarray(images[:3]), optax.adam(1e-2)

  def step(state, _):
    params, opt_state = state
    loss, gradients = jax.value_and_grad(
        lambda params: jnp.mean(jnp.square(model.apply(params, batch)[0] - batch)))(params)
    updates, opt_state = tx.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), opt_state), loss

  @jax.jit
  def train():
    params = model.init(jax.random.key(0), batch)
    (params, _), found = lax.scan(step, (params, tx.init(params)), length=120)
    return params, found

  with jax.numpy_dtype_promotion('standard'):  # Optax mixes types
    params, found = train()

  @jax.jit
  def run(*inputs):
    image, codes = model.apply(params, *inputs)
    return image, tuple(wave_ct.statistics(code) for code in codes)

  return run, np.asarray(found)


def test_haar_by_hand():
  block = jnp.float32([[1, 2], [5, 10]])[None, ..., None]
  assert [float(part.squeeze()) for part in wave_ct.haar_pool(block)] == [9, 3, 6, 2]
  parts = [jnp.full((1, 1, 1, 1), value) for value in (9.0, 3.0, 6.0, 2.0)]
  np.testing.assert_array_equal(wave_ct.haar_unpool(*parts), block)


def test_haar_filters_are_outer_products_and_orthonormal():
  low, high = np.float32([1, 1]) / np.sqrt(2), np.float32([-1, 1]) / np.sqrt(2)
  filters = np.stack([np.outer(rows, columns) for rows in (low, high) for columns in (low, high)])
  x = random(2, 6, 8, 1)
  convolved = lax.conv_general_dilated(
      x, jnp.float32(filters.transpose(1, 2, 0)[:, :, None]), (2, 2), 'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(jnp.concatenate(wave_ct.haar_pool(x), -1), convolved, atol=1e-6)
  # Rows: what each of the four filters answers to each of the four pixels of a block.
  blocks = jnp.eye(4).reshape(4, 2, 2, 1)
  matrix = jnp.stack(wave_ct.haar_pool(blocks))[:, :, 0, 0, 0]
  np.testing.assert_allclose(matrix, filters.reshape(4, 4), atol=1e-6)
  np.testing.assert_allclose(matrix @ matrix.T, jnp.eye(4), atol=1e-6)


@pytest.mark.parametrize('shape', [(2, 8, 6, 3), (1, 2, 2, 1)])
def test_unpooling_is_the_inverse_and_the_transpose(shape):
  x = random(*shape)
  parts = wave_ct.haar_pool(x)
  np.testing.assert_allclose(wave_ct.haar_unpool(*parts), x, atol=1e-6)
  np.testing.assert_allclose(sum(jnp.sum(part ** 2) for part in parts), jnp.sum(x ** 2), rtol=1e-5)
  transpose, = jax.linear_transpose(wave_ct.haar_pool, x)(parts)
  np.testing.assert_allclose(transpose, x, atol=1e-6)


def test_adapt_by_hand():
  code = jnp.float32([[1, 7], [3, 7]]).reshape(1, 2, 1, 2)  # means 2 and 7, deviations 1 and 0
  style = jnp.float32([[[10, 20], [4, 5]]])
  np.testing.assert_allclose(wave_ct.adapt(code, style).ravel(), [6, 20, 14, 20], atol=1e-3)
  np.testing.assert_allclose(wave_ct.statistics(code)[0], [[2, 7], [1, 1e-5 ** 0.5]], atol=1e-4)
  assert wave_ct.adapt(code.astype(jnp.bfloat16), style).dtype == jnp.bfloat16


def test_the_own_style_is_the_identity_of_the_autoencoder():
  model, variables = create(FIELDS)
  image = random(2, 27, 30, 1)
  style = compiled(model, variables, 'style_statistics')(image)
  assert [x.shape for x in style] == [(2, 2, 4), (2, 2, 8), (2, 2, 16)]
  reconstruction = jax.jit(lambda image: model.bind(variables).autoencoder(image)[0])(image)
  np.testing.assert_allclose(compiled(model, variables, 'transfer')(image, style), reconstruction,
                             atol=1e-4)


def test_codes_on_their_way_down_have_the_statistics_of_the_style():
  # Of every level, after the transfer there and above, where the variance of the image's own code
  # is large against the epsilon of `statistics`; not of the styled image encoded again.
  model, image = wave_ct.WaveletAutoencoder(4), random(2, 32, 24, 1)
  params = jax.jit(model.init)(jax.random.key(0), image)
  params = jax.tree.map(lambda x: x + 3 if x.ndim == 1 else jnp.abs(x), params)  # none is dead
  statistics_of = jax.jit(lambda *inputs: [
      wave_ct.statistics(code) for code in model.apply(params, *inputs)[1]])
  own = statistics_of(image)
  style = statistics_of(2 * random(2, 32, 24, 1, seed=3) + 1)
  for found, wanted, before in zip(statistics_of(image, style), style, own):
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(before - wanted).max() > 0.5


def test_the_reconstruction_is_learned(learned, images):
  run, found = learned
  assert np.isfinite(found).all() and found[-1] < 0.1 * found[0]
  unseen = images[3:]
  residual = run(unseen)[0] - unseen
  assert np.mean(np.square(residual)) < 0.2 * np.mean(np.square(unseen))


@pytest.mark.parametrize('gain, offset', [(0.5, -0.45), (0.6, 0.6), (1.5, 0.3)])
def test_a_transfer_takes_back_brightness_and_contrast(learned, images, gain, offset):
  run, _ = learned
  (_, bank), unseen = run(images[:3]), images[3:]
  shifted = gain * unseen + offset
  _, own = run(shifted)
  nearest = jax.jit(wave_ct.nearest_style)(bank, own)
  style = tuple(level[nearest] for level in bank)
  styled, _ = run(shifted, style)
  # The picture comes closer to the one before the shift,
  error = lambda image: np.mean(np.abs(image - unseen))
  assert error(styled) < 0.75 * error(shifted)
  # and its statistics, encoded anew, to the style.
  distance = lambda codes: sum(float(jnp.sum(jnp.square(a - b))) for a, b in zip(codes, style))
  assert distance(run(styled)[1]) < 0.4 * distance(own)


def test_the_nearest_style_is_measured_in_deviations_of_the_bank():
  # Deviations 2 and 200 in turn, the third statistic tells nothing apart.
  bank = jnp.float32([[0, 0, 5], [4, 400, 5], [4, 0, 5], [0, 400, 5]])
  own = jnp.float32([[3, 90, 5], [1.9, 390, -400], [2, 200, 5]])
  split = lambda x: (x[:, None, :1], x[:, None, 1:])
  np.testing.assert_array_equal(wave_ct.nearest_style(split(bank), split(own)), [2, 3, 0])
  assert wave_ct.nearest_style(split(bank[:1]), split(own)).tolist() == [0, 0, 0]


def test_the_segmenter_is_trained_as_an_fpn():
  model, variables = create(FIELDS)
  plain, plain_variables = create({**SMALL, 'name': 'fpn'})
  params = dict(variables['params'])
  autoencoder = {'autoencoder': params.pop('autoencoder')}
  jax.tree.map(np.testing.assert_array_equal, params, plain_variables['params'])
  jax.tree.map(np.testing.assert_array_equal, variables['batch_stats'],
               plain_variables['batch_stats'])
  image, label = random(2, 32, 32, 1), jnp.arange(2048, dtype=jnp.int32).reshape(2, 32, 32) % 3

  def train(model, params):
    outputs, updated = model.apply(
        {'params': params, 'batch_stats': variables['batch_stats']}, image, train=True,
        mutable=['batch_stats'], rngs={'dropout': jax.random.key(2)})
    return outputs, updated

  outputs, updated = jax.jit(lambda params: train(model, params))({**params, **autoencoder})
  expected = jax.jit(lambda params: train(plain, params))(params)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, ({'logits': outputs['logits']}, updated), expected)

  def gradient(name, changing, fixed):
    """Of one part of the loss, by one half's parameters."""
    def part(changing):
      outputs, _ = train(model, {**changing, **fixed})
      return jnp.mean(losses.LOSSES['wave_ct'](outputs, {'label': label})[1][name])
    return jax.tree.leaves(jax.jit(jax.grad(part))(changing))

  assert not any(np.any(x) for x in gradient('cross_entropy', autoencoder, params))
  assert not any(np.any(x) for x in gradient('reconstruction', params, autoencoder))


@pytest.mark.parametrize('size', [(33, 20), (9, 1)])
def test_any_size_and_constant_images_are_finite(size):
  model = wave_ct.WaveletAutoencoder(4)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  transfer = jax.jit(lambda image, style: model.apply(params, image, style))
  style = tuple(1 + jnp.abs(random(2, 2, features)) for features in (4, 8, 16))
  for image in (random(2, *size, 1), jnp.full((2, *size, 1), 3.0), jnp.zeros((2, *size, 1))):
    _, codes = transfer(image, style)
    for taken in (style, tuple(wave_ct.statistics(code) for code in codes)):
      styled, _ = transfer(image, taken)
      assert styled.shape == image.shape and np.isfinite(styled).all()


def test_a_style_changes_what_is_segmented():
  model, variables = create(FIELDS)
  image, style_image = random(1, 33, 1, 1), 2 * random(1, 33, 1, 1, seed=3) + 1
  run = compiled(model, variables)
  style = compiled(model, variables, 'style_statistics')(style_image)
  styled = compiled(model, variables, 'transfer')(image, style)
  with_style = run(image, train=False, style=style)['logits']
  assert with_style.shape == (1, 33, 1, 3)
  np.testing.assert_allclose(with_style, run(styled, train=False)['logits'], atol=1e-5)
  assert np.abs(with_style - run(image, train=False)['logits']).max() > 1e-3
