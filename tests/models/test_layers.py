"""The fast forms equal the plain ones in values and gradients."""
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.models import layers


def random(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def assert_same_function(f, g, *args):
  """Equal values and equal gradients of a random projection."""
  cotangent = random(*jax.eval_shape(f, *args).shape, seed=9)

  def values_and_gradients(function):
    y, pullback = jax.vjp(function, *args)
    return y, pullback(cotangent)

  (y, pulled), (z, expected) = jax.jit(
      lambda: (values_and_gradients(f), values_and_gradients(g)))()
  np.testing.assert_allclose(y, z, rtol=2e-5, atol=2e-5)
  for a, b in zip(pulled, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(2, 8, 6, 3), (1, 7, 5, 2), (2, 4, 6, 8, 2), (1, 3, 5, 4, 1)])
def test_max_pool_by_two(shape):
  rank = len(shape) - 2
  assert_same_function(lambda x: layers.max_pool(x),
                       lambda x: nn.max_pool(x, (2,) * rank, (2,) * rank), random(*shape))


def test_max_pool_with_padding_of_minus_infinity():
  x = -1 - jnp.abs(random(2, 9, 7, 3))  # zeros in the padding would win
  assert_same_function(
      lambda x: layers.max_pool(x, 3, 2, 1),
      lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)


def test_ties_of_the_pool_give_the_first_the_whole_gradient():
  gradient = jax.grad(lambda x: jnp.sum(layers.max_pool(x)))(jnp.zeros((1, 4, 4, 1)))
  expected = np.zeros((4, 4))
  expected[::2, ::2] = 1
  np.testing.assert_array_equal(gradient[0, ..., 0], expected)


@pytest.mark.parametrize('shape', [(2, 5, 4, 3), (1, 3, 2, 4, 3)])
def test_transposed_convolution(shape):
  rank = len(shape) - 2
  x = random(*shape)
  plain = nn.ConvTranspose(5, (2,) * rank, (2,) * rank)
  fast = layers.ConvTranspose(5)
  variables = fast.init(jax.random.key(1), x)
  window = tuple(range(rank))

  def apply_plain(x, kernel):
    flipped = {'kernel': jnp.flip(kernel, window), 'bias': jnp.arange(5.0)}
    return plain.apply({'params': flipped}, x)

  def apply_fast(x, kernel):
    return fast.apply({'params': {'kernel': kernel, 'bias': jnp.arange(5.0)}}, x)

  assert variables['params']['kernel'].shape == (2,) * rank + (3, 5)
  assert_same_function(apply_fast, apply_plain, x, variables['params']['kernel'])


@pytest.mark.parametrize('window, stride, dilation', [
    (1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4), (7, 2, 1)])
def test_convolution(window, stride, dilation):
  x = random(2, 9, 8, 3)
  pad = dilation * (window - 1) // 2
  plain = nn.Conv(4, (window, window), (stride, stride), ((pad, pad), (pad, pad)),
                  kernel_dilation=(dilation, dilation))
  fast = layers.Conv(4, window, stride, dilation)
  params = plain.init(jax.random.key(1), x)['params']
  assert_same_function(lambda x, k: fast.apply({'params': {**params, 'kernel': k}}, x),
                       lambda x, k: plain.apply({'params': {**params, 'kernel': k}}, x),
                       x, params['kernel'])


@pytest.mark.parametrize('size', [(4, 4), (5, 5)])
def test_padding_as_tensorflow_by_hand(size):
  # Of even sizes all zeros come after the pixels, of odd ones as many before: count what is read.
  ones = jnp.ones((1, *size, 1))
  conv = layers.Conv(1, stride=2, same=True, use_bias=False)
  y = conv.apply({'params': {'kernel': jnp.ones((3, 3, 1, 1))}}, ones)[0, ..., 0]
  even = size == (4, 4)
  np.testing.assert_array_equal(y, [[9, 6], [6, 4]] if even else [[4, 6, 4], [6, 9, 6], [4, 6, 4]])
  ramp = -1.0 - jnp.arange(size[0] * size[1], dtype=jnp.float32).reshape(1, *size, 1)
  pooled = layers.max_pool(ramp, 3, 2, same=True)[0, ..., 0]  # zeros in the padding would win
  np.testing.assert_array_equal(
      pooled, [[-1, -3], [-9, -11]] if even else [[-1, -2, -4], [-6, -7, -9], [-16, -17, -19]])


@pytest.mark.parametrize('size', [(6, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_padding_as_tensorflow(size, stride, dilation):
  x = random(2, *size, 3)
  plain = nn.Conv(4, (3, 3), (stride, stride), 'SAME', kernel_dilation=(dilation, dilation))
  fast = layers.Conv(4, 3, stride, dilation, same=True)
  variables = plain.init(jax.random.key(1), x)
  np.testing.assert_allclose(fast.apply(variables, x), plain.apply(variables, x), atol=1e-5)
  np.testing.assert_array_equal(layers.max_pool(x, 3, stride, same=True),
                                nn.max_pool(x, (3, 3), (stride, stride), 'SAME'))


@pytest.mark.parametrize('shape, features', [((2, 5, 4, 3), 2), ((1, 1, 1, 8), 3)])
def test_a_convolution_of_doubled_pixels(shape, features):
  x, kernel = random(*shape), random(3, 3, shape[-1], features, seed=1)
  params = {'params': {'kernel': kernel, 'bias': jnp.arange(1.0, features + 1)}}
  assert_same_function(
      lambda x, kernel: layers.convolve_doubled(x, kernel),
      lambda x, kernel: layers._convolve(layers.upsample_nearest(x), kernel, 1, 1), x, kernel)
  np.testing.assert_allclose(layers.Conv(features, doubled=True).apply(params, x),
                             layers.Conv(features).apply(params, layers.upsample_nearest(x)),
                             rtol=1e-5, atol=1e-5)


def native_depthwise(x, kernel):
  rank, pad = x.ndim - 2, kernel.shape[0] // 2
  layout = ('N' + 'DHW'[-rank:] + 'C', 'DHW'[-rank:] + 'IO', 'N' + 'DHW'[-rank:] + 'C')
  return jax.lax.conv_general_dilated(
      x, kernel, (1,) * rank, ((pad, pad),) * rank, dimension_numbers=layout,
      feature_group_count=x.shape[-1])


@pytest.mark.parametrize('shape, window', [
    ((2, 16, 10, 8), 3), ((3, 7, 5, 3), 3), ((1, 1, 1, 2), 3), ((2, 9, 3, 1), 5), ((1, 3, 4, 2), 1),
    ((1, 5, 4, 3, 2), 3)])
def test_depthwise_forms_are_equal(shape, window):
  x = random(*shape)
  kernel = random(*(window,) * (len(shape) - 2), 1, shape[-1], seed=1)
  cotangent = random(*shape, seed=2)

  def values_and_gradients(function):
    y, pullback = jax.vjp(function, x, kernel)
    return y, *pullback(cotangent)

  with jax.default_matmul_precision('highest'):
    found, expected = jax.jit(lambda: (values_and_gradients(layers.convolve_depthwise),
                                       values_and_gradients(native_depthwise)))()
  for a, b in zip(found, expected, strict=True):
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_depthwise_by_hand():
  x = jnp.arange(1.0, 7).reshape(1, 3, 1, 2)  # columns of two channels: 1, 3, 5 and 2, 4, 6
  kernel = jnp.zeros((3, 3, 1, 2)).at[:, 1, 0].set(jnp.float32([[1, 0], [10, 1], [100, 0]]))
  y, pullback = jax.vjp(layers.convolve_depthwise, x, kernel)
  np.testing.assert_array_equal(y[0, :, 0], [[310, 2], [531, 4], [53, 6]])
  dx, dk = pullback(jnp.float32([1, 0, 0, 0, 0, 1]).reshape(1, 3, 1, 2))
  np.testing.assert_array_equal(dx[0, :, 0], [[10, 0], [100, 0], [0, 1]])
  np.testing.assert_array_equal(dk[:, 1, 0], [[0, 4], [1, 6], [3, 0]])
  assert not np.any(dk[:, ::2])


@pytest.mark.parametrize('backend, groups', [('cpu', []), ('gpu', [4]), ('tpu', [4])])
def test_the_backend_chooses_the_depthwise_form(monkeypatch, backend, groups):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  program = jax.make_jaxpr(lambda x, k: layers.convolve_depthwise(x, k))(
      random(1, 5, 5, 4), random(3, 3, 1, 4))
  assert [equation.params['feature_group_count'] for equation in program.eqns
          if equation.primitive.name == 'conv_general_dilated'] == groups
  if groups:
    x, kernel = random(2, 5, 6, 4), random(3, 3, 1, 4)
    np.testing.assert_allclose(layers.convolve_depthwise(x, kernel), native_depthwise(x, kernel),
                               atol=1e-6)


def test_depthwise_kernel_gradient_in_half_precision_sums_in_float32():
  x = jnp.ones((1, 32, 32, 2), jnp.bfloat16)
  total = lambda kernel: layers.convolve_depthwise(x, kernel).astype(jnp.float32).sum()
  gradient = jax.grad(total)(jnp.zeros((3, 3, 1, 2), jnp.bfloat16))
  assert gradient.dtype == jnp.bfloat16 and (gradient[1, 1] == 1024).all()


def test_a_separable_convolution_is_one_of_a_kernel_that_is_a_product():
  x = random(2, 6, 5, 3)
  module = layers.SeparableConv(4)
  params = module.init(jax.random.key(1), x)['params']
  params['pointwise']['bias'] = jnp.arange(4.0)
  depthwise, pointwise = params['depthwise']['kernel'], params['pointwise']['kernel']
  kernel = jnp.einsum('ijc,cf->ijcf', depthwise[:, :, 0], pointwise[0, 0])
  expected = layers._convolve(x, kernel, 1, 1)
  np.testing.assert_allclose(module.apply({'params': params}, x),
                             expected + jnp.arange(4.0)[None, None, None], rtol=1e-4, atol=1e-5)
  y, bias = layers.SeparableConv(4, defer_bias=True).apply({'params': params}, x)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(bias, np.arange(4.0))


@pytest.mark.parametrize('large', [2 ** 19, 1])
@pytest.mark.parametrize('shape, window, dilation', [
    ((2, 12, 10, 8), 3, 1), ((3, 7, 5, 9), 3, 2), ((1, 8, 1, 8), 3, 4), ((2, 6, 9, 8), 5, 1)])
def test_kernel_gradient_by_matrix_products(monkeypatch, shape, window, dilation, large):
  monkeypatch.setattr(layers, '_LARGE_EXAMPLE', large)  # 1: sums over blocks of rows
  monkeypatch.setattr(layers, '_BLOCK_PIXELS', 30)
  pad = dilation * (window - 1) // 2
  assert_same_function(
      lambda x, kernel: layers.convolve(x, kernel, dilation=dilation),
      lambda x, kernel: jax.lax.conv_general_dilated(
          x, kernel, (1, 1), ((pad, pad), (pad, pad)), rhs_dilation=(dilation, dilation),
          dimension_numbers=('NHWC', 'HWIO', 'NHWC')),
      random(*shape), random(window, window, shape[-1], 11, seed=1))


def test_kernel_gradient_in_half_precision_keeps_its_type_and_sums_in_float32():
  x = jnp.ones((1, 32, 32, 8), jnp.bfloat16)
  kernel = jnp.zeros((3, 3, 8, 8), jnp.bfloat16)
  gradient = jax.grad(lambda kernel: layers.convolve(x, kernel).astype(jnp.float32).sum())(kernel)
  assert gradient.dtype == jnp.bfloat16
  assert (gradient[1, 1] == 1024).all()  # a running sum of ones in bfloat16 stops at 256


@pytest.mark.parametrize('train', [True, False])
def test_a_bias_before_the_norm_is_that_of_the_plain_composition(train):
  x = random(2, 6, 5, 3)
  module = layers.ConvNorm(4, use_bias=True, negative_slope=0.1)
  variables = module.init(jax.random.key(1), x, train=True)
  variables = jax.tree.map(lambda v: v + 0.3 * random(*v.shape, seed=7) ** 2, variables)

  norm_variables = {key: value['bn'] for key, value in variables.items()}
  conv = nn.Conv(4, (3, 3), padding=((1, 1), (1, 1)))
  expected, expected_updated = layers.BatchNorm().apply(
      norm_variables, conv.apply({'params': variables['params']['conv']}, x), train=train,
      mutable=['batch_stats'])
  y, updated = module.apply(variables, x, train=train, mutable=['batch_stats'])
  np.testing.assert_allclose(y, nn.leaky_relu(expected, 0.1), rtol=1e-4, atol=1e-5)
  for name, value in expected_updated['batch_stats'].items():
    np.testing.assert_allclose(updated['batch_stats']['bn'][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('shape, features', [((2, 5, 6, 7, 3), 4), ((1, 3, 4, 2, 1), 5),
                                             ((1, 1, 1, 3, 16), 8), ((2, 2, 5, 4, 8), 1)])
def test_volumes_convolve_by_depth_as_in_one(shape, features, dilation):
  x, kernel = random(*shape), random(3, 3, 3, shape[-1], features, seed=1)
  assert_same_function(
      lambda x, kernel: layers.convolve(x, kernel, dilation=dilation),
      lambda x, kernel: layers._convolve(x, kernel, 1, dilation), x, kernel)


def test_a_list_is_convolved_as_its_concatenation():
  parts = random(2, 6, 5, 3), random(2, 6, 5, 2, seed=1)
  conv = layers.Conv(4)
  variables = conv.init(jax.random.key(1), list(parts))
  assert variables['params']['kernel'].shape == (3, 3, 5, 4)
  assert_same_function(lambda a, b: conv.apply(variables, [a, b]),
                       lambda a, b: conv.apply(variables, jnp.concatenate([a, b], -1)), *parts)


@pytest.mark.parametrize('shape', [(2, 5, 4, 3), (1, 1, 7, 2), (1, 3, 2, 4, 2)])
def test_bilinear_and_nearest_doubling(shape):
  doubled = (shape[0], *(2 * n for n in shape[1:-1]), shape[-1])
  x = random(*shape)
  assert_same_function(layers.upsample_bilinear,
                       lambda x: jax.image.resize(x, doubled, 'linear', antialias=False), x)
  assert_same_function(layers.upsample_nearest,
                       lambda x: jax.image.resize(x, doubled, 'nearest'), x)


@pytest.mark.parametrize('shape, factor', [
    ((2, 3, 5, 2), 4), ((1, 1, 4, 1), 3), ((1, 4, 3, 2, 1), 4)])
def test_bilinear_by_other_factors(shape, factor):
  size = [factor * n for n in shape[1:-1]]
  assert_same_function(lambda x: layers.upsample_bilinear(x, factor),
                       lambda x: jax.image.resize(x, (shape[0], *size, shape[-1]), 'linear',
                                                  antialias=False), random(*shape))


def test_resizing_with_aligned_corners_by_hand():
  x = jnp.asarray([[0.0, 3.0], [6.0, 9.0], [30.0, 33.0]])[None, ..., None]
  larger = layers.resize_bilinear(x, (5, 4), align_corners=True)[0, ..., 0]
  np.testing.assert_allclose(larger, np.add.outer([0, 3, 6, 18, 30], [0, 1, 2, 3]), atol=1e-5)
  odd = random(2, 7, 5, 3)  # halved with its corners kept, an odd size is every other pixel
  np.testing.assert_allclose(layers.resize_bilinear(odd, (4, 3), align_corners=True),
                             odd[:, ::2, ::2], rtol=1e-6)


@pytest.mark.parametrize('before, after', [((1, 4), (3, 1)), ((5, 1), (1, 1)), ((2, 1), (1, 2))])
def test_aligned_corners_of_a_single_pixel_are_the_first(before, after):
  x = random(1, *before, 2)
  rows = [0] if after[0] == 1 else np.round(np.linspace(0, before[0] - 1, after[0])).astype(int)
  columns = [0] * after[1]
  np.testing.assert_allclose(layers.resize_bilinear(x, after, align_corners=True),
                             np.asarray(x)[:, rows][:, :, columns], rtol=1e-6)


@pytest.mark.parametrize('shape', [(2, 7, 5, 3), (1, 1, 12, 2), (1, 2, 1, 1), (1, 5, 4, 3, 2)])
@pytest.mark.parametrize('bins', [1, 2, 3, 6])
def test_adaptive_pooling_is_the_mean_of_every_bin(shape, bins):
  x = np.asarray(random(*shape), np.float64)
  size = shape[1:-1]
  expected = np.empty((shape[0], *(bins,) * len(size), shape[-1]))
  for place in np.ndindex(*(bins,) * len(size)):
    window = tuple(slice(math.floor(b * n / bins), math.ceil((b + 1) * n / bins))
                   for b, n in zip(place, size))
    expected[(slice(None), *place)] = x[(slice(None), *window)].mean(
        tuple(range(1, len(size) + 1)))
  np.testing.assert_allclose(layers.adaptive_average_pool(jnp.float32(x), bins), expected,
                             rtol=1e-5, atol=1e-6)


def test_pooling_and_aligned_corners_equal_the_reference(shared):
  path = shared / 'golden' / 'losses_ops.npz'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  reference = np.load(path)
  image = jnp.moveaxis(jnp.asarray(reference['im']), 1, -1)
  actual = {f'aap{bins}': layers.adaptive_average_pool(image, bins) for bins in (1, 2, 3, 6)}
  actual['bilinear_ac'] = layers.resize_bilinear(
      image, reference['bilinear_ac'].shape[2:], align_corners=True)
  for name, array in actual.items():
    np.testing.assert_allclose(jnp.moveaxis(array, -1, 1), reference[name], rtol=1e-5, atol=1e-5)


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


def test_padding_repeats_the_border_and_cropping_undoes_it():
  x = random(1, 5, 1, 2)
  padded = layers.pad_to_multiple(x, 4)
  assert padded.shape == (1, 8, 4, 2)
  np.testing.assert_array_equal(padded[:, 5:], jnp.repeat(padded[:, 4:5], 3, 1))
  np.testing.assert_array_equal(layers.crop(padded, (5, 1)), x)
  assert layers.pad_to_multiple(padded, 4) is padded


@pytest.mark.parametrize('dilation', [1, 2, 4])
def test_input_gradient_of_a_kernel_larger_than_its_input(dilation):
  """The shifted matrix product against the transposed convolution; 4 reaches beyond the image."""
  keys = jax.random.split(jax.random.key(dilation), 3)
  x, dy = (jax.random.normal(key, (2, 5, 3, features)) for key, features in zip(keys, (8, 16)))
  kernel = jax.random.normal(keys[2], (3, 3, 8, 16))
  assert kernel.size >= layers._LARGE_KERNEL * dy.size
  transpose = jax.linear_transpose(lambda x: layers._convolve(x, kernel, 1, dilation), x)
  np.testing.assert_allclose(layers._input_gradient(x.shape, kernel, dy, dilation),
                             transpose(dy)[0], rtol=1e-5, atol=1e-5)
  _, pullback = jax.vjp(lambda x: layers.convolve(x, kernel, 1, dilation), x)
  np.testing.assert_allclose(pullback(dy)[0], transpose(dy)[0], rtol=1e-5, atol=1e-5)
