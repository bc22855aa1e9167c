"""Layers by hand and against those of Flax."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.models import layers
from spinejax.models import resizing
from tests.models.arrays import assert_same_function, random


@pytest.mark.parametrize('module, plain, shape', [
    (layers.Conv(4, 7, 2), nn.Conv(4, (7, 7), (2, 2), ((3, 3),) * 2), (2, 9, 8, 3)),
    (layers.Conv(4, dilation=4), nn.Conv(4, (3, 3), padding=((4, 4),) * 2, kernel_dilation=4),
     (2, 9, 8, 3)),
    (layers.Conv(4), nn.Conv(4, (3, 3, 3), padding=((1, 1),) * 3), (1, 4, 5, 6, 2)),
])
def test_convolution(module, plain, shape):
  x = random(*shape)
  params = plain.init(jax.random.key(1), x)['params']
  params['bias'] = jnp.arange(4.0)
  assert_same_function(lambda x, k: module.apply({'params': {**params, 'kernel': k}}, x),
                       lambda x, k: plain.apply({'params': {**params, 'kernel': k}}, x),
                       x, params['kernel'])


@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_padding_as_tensorflow(stride, dilation):
  plain = nn.Conv(4, (3, 3), (stride, stride), 'SAME', kernel_dilation=(dilation, dilation))
  module = layers.Conv(4, 3, stride, dilation, padding='same')
  images = [random(2, *size, 3) for size in ((6, 8), (7, 5), (1, 2))]
  variables = plain.init(jax.random.key(1), images[0])
  for y, expected in jax.jit(lambda images: [
      (module.apply(variables, x), plain.apply(variables, x)) for x in images])(images):
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize('size, expected', [
    ((4, 4), [[9, 6], [6, 4]]), ((5, 5), [[4, 6, 4], [6, 9, 6], [4, 6, 4]])])
def test_padding_as_tensorflow_by_hand(size, expected):
  # Of even sizes all zeros come after the pixels, of odd sizes half of them before.
  conv = layers.Conv(1, stride=2, padding='same', use_bias=False)
  y = conv.apply({'params': {'kernel': jnp.ones((3, 3, 1, 1))}}, jnp.ones((1, *size, 1)))
  np.testing.assert_array_equal(y[0, ..., 0], expected)


def test_a_separable_convolution_is_one_of_a_kernel_that_is_a_product():
  x = random(2, 6, 5, 3)
  module = layers.SeparableConv(4)
  params = module.init(jax.random.key(1), x)['params']
  params['pointwise']['bias'] = jnp.arange(4.0)
  depthwise, pointwise = params['depthwise']['kernel'], params['pointwise']['kernel']
  kernel = jnp.einsum('ijc,cf->ijcf', depthwise[:, :, 0], pointwise[0, 0])
  expected = layers.Conv(4).apply({'params': {'kernel': kernel, 'bias': jnp.arange(4.0)}}, x)
  np.testing.assert_allclose(module.apply({'params': params}, x), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_of_an_upsampled_image():
  x, module = random(2, 5, 4, 3), layers.UpsampleConv(2)
  variables = module.init(jax.random.key(1), x)
  variables['params']['bias'] = jnp.arange(2.0)
  np.testing.assert_allclose(
      module.apply(variables, x),
      layers.Conv(2).apply(variables, resizing.upsample_nearest(x)), rtol=1e-5, atol=1e-5)


def test_a_transposed_convolution_adds_its_bias():
  x, module = random(1, 3, 2, 3), layers.ConvTranspose(5)
  variables = module.init(jax.random.key(1), x)
  assert variables['params']['kernel'].shape == (2, 2, 3, 5)
  biased = {'params': {**variables['params'], 'bias': jnp.arange(5.0)}}
  np.testing.assert_allclose(module.apply(biased, x) - module.apply(variables, x),
                             np.broadcast_to(np.arange(5.0), (1, 6, 4, 5)), atol=1e-5)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('slope', [0.0, 0.1, 1.0])
def test_a_bias_before_the_norm_is_that_of_the_plain_composition(train, slope):
  x = random(2, 6, 5, 3)
  module = layers.ConvNorm(4, use_bias=True, negative_slope=slope)
  variables = module.init(jax.random.key(1), x, train=True)
  variables = jax.tree.map(lambda v: v + 0.3 * random(*v.shape, seed=7) ** 2, variables)

  norm_variables = {key: value['bn'] for key, value in variables.items()}
  conv = nn.Conv(4, (3, 3), padding=((1, 1), (1, 1)))
  expected, expected_updated = layers.BatchNorm().apply(
      norm_variables, conv.apply({'params': variables['params']['conv']}, x), train=train,
      mutable=['batch_stats'])
  y, updated = module.apply(variables, x, train=train, mutable=['batch_stats'])
  np.testing.assert_allclose(y, jnp.where(expected > 0, expected, slope * expected),
                             rtol=1e-4, atol=1e-5)
  for name, value in expected_updated['batch_stats'].items():
    np.testing.assert_allclose(updated['batch_stats']['bn'][name], value, rtol=1e-5, atol=1e-6)


def test_batch_norm_by_hand():
  norm = layers.BatchNorm(momentum=0.9, epsilon=1e-5)
  x = 3 + 2 * random(2, 4, 3, 5)
  variables = norm.init(jax.random.key(0), x, train=True)
  np.testing.assert_array_equal(variables['batch_stats']['var'], np.ones(5))
  y, updated = norm.apply(variables, x, train=True, mutable=['batch_stats'])
  flat = np.asarray(x).reshape(-1, 5).astype(np.float64)
  np.testing.assert_allclose(
      y.reshape(-1, 5), (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(updated['batch_stats']['mean'], 0.1 * flat.mean(0), rtol=1e-5)
  np.testing.assert_allclose(updated['batch_stats']['var'], 0.9 + 0.1 * flat.var(0, ddof=1),
                             rtol=1e-5)
  moved = {'params': {'scale': jnp.full(5, 2.0), 'bias': jnp.full(5, 1.0)},
           'batch_stats': {'mean': jnp.full(5, 3.0), 'var': jnp.full(5, 4.0)}}
  np.testing.assert_allclose(norm.apply(moved, x, train=False),
                             1 + 2 * (x - 3) / np.sqrt(4 + 1e-5), rtol=1e-4, atol=1e-5)


def test_batch_norm_over_mapped_devices_is_that_of_the_whole_batch():
  x = random(4, 3, 3, 2)
  variables = layers.BatchNorm().init(jax.random.key(0), x, train=True)
  whole = layers.BatchNorm().apply(variables, x, train=True, mutable=['batch_stats'])
  mapped = jax.pmap(
      lambda x: layers.BatchNorm('d').apply(variables, x, train=True, mutable=['batch_stats']),
      axis_name='d', out_axes=(0, None))(x.reshape(2, 2, 3, 3, 2))
  np.testing.assert_allclose(mapped[0].reshape(x.shape), whole[0], rtol=1e-5, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mapped[1], whole[1])


def test_constant_input_has_finite_gradients():
  norm = layers.BatchNorm()
  x = jnp.full((2, 4, 4, 3), 7.0)
  variables = norm.init(jax.random.key(0), x, train=True)
  gradient = jax.grad(lambda x: jnp.sum(
      norm.apply(variables, x, train=True, mutable=['batch_stats'])[0] ** 2))(x)
  assert np.isfinite(gradient).all()


class Classifier(nn.Module):

  @nn.compact
  def __call__(self, x, *, train):
    return layers.classify(x, 1, 0.5, train=train, name='conv_seg')


def test_the_classifier_drops_whole_channels():
  x = jnp.ones((8, 5, 4, 1))
  classifier = Classifier()
  variables = classifier.init({'params': jax.random.key(0), 'dropout': jax.random.key(0)}, x,
                              train=True)
  y = classifier.apply(variables, x, train=True, rngs={'dropout': jax.random.key(3)})
  assert len(np.unique(y)) == 2                   # kept (doubled) or dropped
  assert (np.ptp(np.asarray(y), axis=(1, 2, 3)) == 0).all()  # alike within an example
