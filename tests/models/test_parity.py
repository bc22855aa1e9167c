"""Values and gradients of PyTorch reference modules (evaluation mode, float32)."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.models import attention
from spinejax.models import dilated
from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import pretrained
from spinejax.models import resizing
from spinejax.models import resnet
from tests.models.arrays import GOLDEN, assert_within, nchw, nhwc, psa_affinity

def load(name, folder=GOLDEN):
  path = folder / f'{name}.npz'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return dict(np.load(path))


def numbered(reference, prefix):
  return [nhwc(reference[f'{prefix}{i}']) for i in range(9) if f'{prefix}{i}' in reference]


def compare(reference, function):
  """Outputs to 1e-4 and input gradients of sum(y r) to 1e-3 of the largest magnitude."""
  @jax.jit
  def run(inputs, cotangents):
    outputs, pullback = jax.vjp(function, *inputs)
    return outputs, pullback(cotangents)

  outputs, gradients = run(numbered(reference, 'x'), tuple(numbered(reference, 'r')))
  assert len(outputs) == len(numbered(reference, 'y'))
  for i, output in enumerate(outputs):
    assert_within(nchw(output), reference[f'y{i}'], 1e-4)
  for i, gradient in enumerate(gradients):
    expected = reference.get(f'gx{i}', np.zeros_like(reference[f'x{i}']))
    assert_within(nchw(gradient), expected, 1e-3)


def check(reference, model, call=lambda model, *inputs: (model(*inputs),)):
  """As `compare`, with the weights of the reference; `call` makes the outputs a tuple."""
  weights = {name[2:]: array for name, array in reference.items() if name.startswith('w/')}
  template = jax.eval_shape(lambda: model.init(
      jax.random.key(0), *numbered(reference, 'x'), method=call))
  variables = pretrained.initialize(template, weights, ('',))
  compare(reference, lambda *inputs: model.apply(variables, *inputs, method=call))


def test_resnet50_v1c_at_output_stride_8(shared):
  check(load('resnet50_v1c_d8_w8', shared / 'golden'),
        resnet.ResNet('resnet50_v1c', width=8, output_stride=8),
        lambda model, x: tuple(model(x, train=False)))


def test_fpn_neck():
  check(load('fpn_neck'), fpn.FPNNeck(features=16), lambda model, *inputs: tuple(model(inputs)))


def test_fcn_head():
  check(load('fcn_aux_head'),
        dilated.FCNHead(num_classes=4, features=8),
        lambda model, x: (model(x, train=False)['logits'],))


@pytest.mark.parametrize('name, model', [
    ('cca', attention.CrissCrossAttention(query_features=8)),
    ('pam', attention.PositionAttention(query_features=4)),
    ('cam', attention.ChannelAttention()),
])
def test_attention(name, model):
  check(load(name), model)


def test_expectation_maximization_and_that_it_has_no_gradient():
  check(load('emamodule'), attention.ExpectationMaximization(num_bases=8),
        lambda model, x: (model(x, train=False),))


class StructureAffinityHead(nn.Module):
  """The reference's reading of SADANet's head: classes and key map."""

  @nn.compact
  def __call__(self, x):
    x = layers.ConvNorm(16, name='reduce')(x, train=False)
    z, key = attention.StructureAffinity(4, 4, 'printed', name='affinity')(x, train=False)
    return layers.Conv(4, 1, name='cls')(z), key


def test_structure_affinity():
  reference = load('saa_head_reading')
  own = ('w/theta', 'w/phi', 'w/delta', 'w/rho')
  check({f'w/affinity.{name[2:]}' if name.startswith(own) else name: array
         for name, array in reference.items()}, StructureAffinityHead(),
        lambda model, x: model(x))


@pytest.mark.parametrize('direction', ['collect', 'distribute'])
def test_point_wise_affinities(direction):
  def sources_first(mask):
    n, height, width, _ = mask.shape
    return (psa_affinity(mask, (5, 3), direction).reshape(n, height, width, height * width),)

  compare(load(f'psamask_{direction}'), sources_first)


def test_resizing_pooling_and_transposed_convolution():
  reference = load('losses_ops')
  image = nhwc(reference['im'])
  for name in ('bilinear_up', 'bilinear_down'):
    expected = reference[name]
    assert_within(nchw(resizing.resize_bilinear(image, expected.shape[2:])), expected, 1e-5)
  np.testing.assert_array_equal(nchw(resizing.upsample_nearest(image, 2)), reference['nearest'])
  np.testing.assert_array_equal(nchw(resizing.max_pool(image, 3, 2, 1)), reference['maxpool_3s2p1'])
  kernel = jnp.asarray(reference['convT_w'].transpose(2, 3, 0, 1))
  variables = {'params': {'kernel': kernel, 'bias': jnp.zeros(2)}}
  assert_within(nchw(layers.ConvTranspose(2).apply(variables, image)), reference['convT'], 1e-5)
