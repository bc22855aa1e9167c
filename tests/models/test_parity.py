"""Values and gradients of PyTorch reference modules (evaluation mode, float32)."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import resnet
from tests.models import torch_names


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision('highest'):
    yield


def load(shared, name):
  path = shared / 'golden' / f'{name}.npz'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return dict(np.load(path))


def check(reference, apply, init):
  """Compares outputs to 1e-4 and input gradients of sum(y r) to 1e-3 of the largest magnitude."""
  weights = {name[2:]: value for name, value in reference.items() if name.startswith('w/')}
  inputs = [torch_names.nhwc(reference[f'x{i}']) for i in range(9) if f'x{i}' in reference]
  cotangents = [torch_names.nhwc(reference[f'r{i}']) for i in range(9) if f'r{i}' in reference]
  template = jax.eval_shape(init, jax.random.key(0), inputs)
  variables = torch_names.to_variables(weights, template)

  @jax.jit
  def run(inputs):
    outputs, pullback = jax.vjp(lambda inputs: apply(variables, inputs), inputs)
    return outputs, pullback(cotangents)[0]

  outputs, gradients = run(inputs)
  for i, output in enumerate(outputs):
    torch_names.assert_within(torch_names.nchw(output), reference[f'y{i}'], 1e-4)
  for i, gradient in enumerate(gradients):
    torch_names.assert_within(torch_names.nchw(gradient), reference[f'gx{i}'], 1e-3)


def test_resnet50_v1c_at_output_stride_8(shared):
  model = resnet.ResNet('resnet50_v1c', width=8, output_stride=8)
  check(load(shared, 'resnet50_v1c_d8_w8'),
        lambda variables, inputs: model.apply(variables, inputs[0], train=False),
        lambda key, inputs: model.init(key, inputs[0], train=False))


def test_fpn_neck(shared):
  model = fpn.FPNNeck(features=16)
  check(load(shared, 'fpn_neck'), model.apply, model.init)


def test_resizing_pooling_and_transposed_convolution(shared):
  reference = load(shared, 'losses_ops')
  image = torch_names.nhwc(reference['im'])
  for name in ('bilinear_up', 'bilinear_down'):
    expected = reference[name]
    actual = torch_names.nchw(layers.resize_bilinear(image, expected.shape[2:]))
    torch_names.assert_within(actual, expected, 1e-5)
  np.testing.assert_array_equal(
      torch_names.nchw(layers.upsample_nearest(image, 2)), reference['nearest'])
  np.testing.assert_array_equal(
      torch_names.nchw(layers.max_pool(image, 3, 2, 1)), reference['maxpool_3s2p1'])
  kernel = jnp.asarray(reference['convT_w'].transpose(2, 3, 0, 1))
  variables = {'params': {'kernel': kernel, 'bias': jnp.zeros(2)}}
  actual = layers.ConvTranspose(2).apply(variables, image)
  torch_names.assert_within(torch_names.nchw(actual), reference['convT'], 1e-5)
