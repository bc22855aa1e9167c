"""Convolutions on CPU equal XLA's own in values and gradients, and elsewhere are XLA's own."""
import functools
import re

import flax.linen as nn
import jax
from jax import export
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax.models import attention
from spinejax.models import convolutions
from spinejax.models import cpu_kernels
from spinejax.models import resizing
from tests.models.arrays import assert_same_function, random, shapes


def native(x, kernel, stride=1, dilation=1, groups=1):
  rank, pad = x.ndim - 2, dilation * (kernel.shape[0] - 1) // 2
  axes = 'DHW'[-rank:]
  return lax.conv_general_dilated(
      x, kernel, (stride,) * rank, ((pad, pad),) * rank, rhs_dilation=(dilation,) * rank,
      dimension_numbers=('N' + axes + 'C', axes + 'IO', 'N' + axes + 'C'),
      feature_group_count=groups)


@pytest.mark.parametrize('shape, features, size, stride, dilation', [
    ((2, 9, 8, 3), 4, 1, 1, 1), ((2, 9, 8, 3), 4, 1, 2, 1), ((2, 9, 8, 3), 4, 3, 2, 1),
    ((2, 9, 8, 3), 4, 3, 1, 4), ((2, 9, 8, 3), 4, 7, 2, 1),
    # Kernel gradients by matrix products, the last two in blocks of rows.
    ((2, 12, 10, 8), 11, 3, 1, 1), ((3, 7, 5, 9), 11, 3, 1, 2), ((1, 8, 1, 8), 11, 3, 1, 4),
    ((2, 6, 9, 8), 11, 5, 1, 1), ((1, 256, 256, 8), 8, 3, 1, 1), ((2, 130, 128, 33), 8, 3, 1, 2),
    # A kernel larger than the image, at dilation 4 reaching beyond it.
    ((2, 5, 3, 8), 16, 3, 1, 1), ((2, 5, 3, 8), 16, 3, 1, 4),
    # Volumes by depth.
    ((2, 5, 6, 7, 3), 4, 3, 1, 1), ((1, 3, 4, 2, 1), 5, 3, 1, 1), ((1, 1, 1, 3, 16), 8, 3, 1, 2),
    ((2, 2, 5, 4, 8), 1, 3, 1, 2), ((1, 5, 4, 6, 2), 3, 3, 2, 1)])
def test_convolution(shape, features, size, stride, dilation):
  x = random(*shape) / max(1, np.sqrt(shape[1] * shape[2]) / 12)
  kernel = random(*(size,) * (len(shape) - 2), shape[-1], features, seed=1)
  assert_same_function(lambda x, k: convolutions.convolve(x, k, stride, dilation),
                       lambda x, k: native(x, k, stride, dilation), x, kernel)


@pytest.mark.parametrize('shape, size', [
    ((2, 16, 10, 8), 3), ((3, 7, 5, 3), 3), ((1, 1, 1, 2), 3), ((2, 9, 3, 1), 5), ((1, 3, 4, 2), 1),
    ((1, 5, 4, 3, 2), 3)])
def test_depthwise_convolution(shape, size):
  kernel = random(*(size,) * (len(shape) - 2), 1, shape[-1], seed=1)
  assert_same_function(convolutions.convolve_depthwise,
                       lambda x, k: native(x, k, groups=shape[-1]), random(*shape), kernel)


def test_depthwise_convolution_by_hand():
  x = jnp.arange(1.0, 7).reshape(1, 3, 1, 2)  # columns of two channels: 1, 3, 5 and 2, 4, 6
  kernel = jnp.zeros((3, 3, 1, 2)).at[:, 1, 0].set(jnp.float32([[1, 0], [10, 1], [100, 0]]))
  y, pullback = jax.vjp(convolutions.convolve_depthwise, x, kernel)
  np.testing.assert_array_equal(y[0, :, 0], [[310, 2], [531, 4], [53, 6]])
  dx, dk = pullback(jnp.float32([1, 0, 0, 0, 0, 1]).reshape(1, 3, 1, 2))
  np.testing.assert_array_equal(dx[0, :, 0], [[10, 0], [100, 0], [0, 1]])
  np.testing.assert_array_equal(dk[:, 1, 0], [[0, 4], [1, 6], [3, 0]])
  assert not np.any(dk[:, ::2])


@pytest.mark.parametrize('shape, features', [((2, 5, 4, 3), 2), ((1, 1, 1, 8), 3)])
def test_convolution_of_an_upsampled_image(shape, features):
  assert_same_function(
      convolutions.convolve_upsampled, lambda x, k: native(resizing.upsample_nearest(x), k),
      random(*shape), random(3, 3, shape[-1], features, seed=1))


@pytest.mark.parametrize('shape', [(2, 5, 4, 3), (1, 3, 2, 4, 3)])
def test_transposed_convolution(shape):
  rank = len(shape) - 2
  plain = nn.ConvTranspose(5, (2,) * rank, (2,) * rank, use_bias=False)

  def apply_plain(x, kernel):
    return plain.apply({'params': {'kernel': jnp.flip(kernel, range(rank))}}, x)

  assert_same_function(convolutions.convolve_transposed, apply_plain, random(*shape),
                       random(*(2,) * rank, 3, 5, seed=1))


@pytest.mark.parametrize('convolve, kernel', [
    (convolutions.convolve, (3, 3, 8, 8)), (convolutions.convolve_depthwise, (3, 3, 1, 8))])
def test_kernel_gradients_in_half_precision_are_summed_in_float32(convolve, kernel):
  x = jnp.ones((1, 32, 32, 8), jnp.bfloat16)
  gradient = jax.grad(lambda kernel: convolve(x, kernel).astype(jnp.float32).sum())(
      jnp.zeros(kernel, jnp.bfloat16))
  assert gradient.dtype == jnp.bfloat16
  assert (gradient[1, 1] == 1024).all()  # a running sum of ones in bfloat16 stops at 256


def test_an_unknown_padding_is_one_sentence():
  with pytest.raises(ValueError, match="padding must be 'symmetric' or 'same', not 'valid'"):
    convolutions.convolve(random(1, 4, 4, 1), random(3, 3, 1, 1), padding='valid')


# The form of each platform


def lowered(function, platforms, *args):
  """StableHLO of a function, made on this CPU."""
  exported = export.export(jax.jit(function), platforms=platforms)(*args)
  return exported.mlir_module()


def operations(text, name):
  """Shapes and settings of every operation of a kind, such as 'convolution'."""
  lines = re.findall(rf'= "?stablehlo\.{name}\b.*', text)
  return [re.sub(r'%\w+(#\d+)?|loc\(.*\)', '', line) for line in lines]


NETWORKS = {
    'unet': (dict(name='unet', features=4, levels=1), (16, 16, 1)),
    'volumes': (dict(name='unet', features=4, levels=1, upsample='nearest'), (8, 8, 8, 1)),
    'xception_unet': (dict(name='xception_unet', features=4, levels=1), (16, 16, 1)),
    'unet_s5d16': (dict(name='unet_s5d16', features=4), (16, 16, 1)),
}


def programs(name):
  """Functions of an image: prediction and gradient of the parameters in training."""
  fields, shape = NETWORKS[name]
  model = models.create_model({**fields, 'num_classes': 2})
  image = jnp.zeros((1, *shape))
  variables = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes(model, image.shape)[1])

  def gradient(image):
    def objective(params):
      outputs, _ = model.apply({**variables, 'params': params}, image, train=True,
                               mutable=['batch_stats'], rngs={'dropout': jax.random.key(2)})
      return jnp.mean(jnp.square(outputs['logits']))
    return jax.grad(objective)(variables['params'])

  return image, {'predict': lambda image: model.apply(variables, image, train=False)['logits'],
                 'gradient': gradient}


@pytest.mark.parametrize('name', NETWORKS)
def test_other_platforms_have_native_operations(monkeypatch, name):
  """A module made on a CPU for CUDA has the operations of one without any fast form."""
  image, functions = programs(name)
  for_cuda = {key: lowered(function, ['cuda'], image) for key, function in functions.items()}
  for_cpu = {key: lowered(function, ['cpu'], image) for key, function in functions.items()}
  monkeypatch.setattr(cpu_kernels, 'dispatch', lambda *, cpu, default: default)
  jax.clear_caches()  # `max_pool` is compiled with the form of its first call
  for key, function in programs(name)[1].items():
    plain = lowered(function, ['cuda'], image)
    for kind in ('convolution', 'dot_general', 'reduce_window', 'select_and_scatter', 'while'):
      found, expected = operations(for_cuda[key], kind), operations(plain, kind)
      assert set(found) == set(expected)
      assert len(found) == len(expected) or kind != 'convolution'
    assert set(operations(for_cpu[key], 'convolution')) != set(operations(plain, 'convolution'))
  jax.clear_caches()


def test_an_export_holds_the_form_of_every_platform():
  x, kernel = random(1, 6, 5, 4, 8), random(3, 3, 3, 8, 8)
  text = lowered(convolutions.convolve, ['cpu', 'cuda', 'tpu'], x, kernel)
  # One convolution computes the three depth taps of 8 features, the other is the layer itself. JAX
  # repeats each for every platform.
  by_depth, whole = sorted(set(operations(text, 'convolution')), key=len)
  assert 'tensor<3x3x8x24xf32>' in by_depth and 'tensor<3x3x3x8x8xf32>' in whole
  assert operations(lowered(convolutions.convolve, ['cuda'], x, kernel), 'convolution') == [whole]


def test_no_form_of_another_platform_is_compiled():
  """A program for one platform has no branch left, in the forward and the backward pass."""
  x, kernel = random(1, 6, 5, 4, 8), random(3, 3, 3, 8, 8)
  gradient = jax.grad(lambda x, k: convolutions.convolve(x, k).sum(), (0, 1))
  text = jax.jit(gradient).lower(x, kernel).compile().as_text()
  assert 'conditional' not in text and '3x3x3x8x8' not in text


@pytest.mark.parametrize('platform, largest', [('cpu', 1448), ('cuda', 4096), ('tpu', 4096)])
def test_attention_is_computed_in_chunks_on_large_maps(platform, largest):
  def has_loop(positions):
    x = jax.ShapeDtypeStruct((1, positions, 64), jnp.float32)
    return 'stablehlo.while' in lowered(
        functools.partial(attention.attend, scale=1.0), [platform], x, x, x)
  assert has_loop(largest + 1) and not has_loop(largest)
