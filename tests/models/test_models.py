"""Exact parameter counts, the contract of every network, and SEAM's equations by hand."""
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax.models import attention
from spinejax.models import resnet

PYRAMID = dict(num_classes=4, backbone='shallow', backbone_width=4, neck_features=8,
               head_features=8)
SMALL = {
    'unet': dict(name='unet', num_classes=4, features=4, levels=2),
    'fpn': dict(PYRAMID, name='fpn'),
    'seam': dict(PYRAMID, name='seam', query_features=4),
}
SMALL['wo_al'] = dict(SMALL['seam'], attention=False)


@pytest.fixture(autouse=True)
def shallow_backbone(monkeypatch):
  monkeypatch.setitem(resnet.BACKBONES, 'shallow', ((1, 1, 1, 1), True))


def rngs():
  return {'params': jax.random.key(0), 'dropout': jax.random.key(1)}


def init(model, shape):
  return jax.jit(lambda key: model.init({'params': key, 'dropout': key}, jnp.zeros(shape),
                                        train=True))(jax.random.key(0))


@pytest.mark.parametrize('channels, fields, expected', [
    (1, dict(name='unet', num_classes=1), 31_042_369),
    (3, dict(name='unet', num_classes=4), 31_043_716),
    (3, dict(name='fpn'), 28_495_972),
    (1, dict(name='fpn'), 28_495_972 - 576),
    (3, dict(name='fpn', backbone='resnet50'), 28_476_740),
    (1, dict(name='fpn', backbone='resnet50'), 28_476_740 - 6_272),
    (3, dict(name='fpn', backbone='resnet101_v1c'), 47_488_100),
    (3, dict(name='seam'), 28_800_008),
    (3, dict(name='seam', attention=False), 28_495_972 + 128 * 4 + 4),
])
def test_parameter_counts(channels, fields, expected):
  model = models.create_model({'num_classes': 4, **fields})
  variables = jax.eval_shape(
      lambda: model.init(rngs(), jnp.zeros((1, 64, 64, channels)), train=True))
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == expected


@pytest.mark.parametrize('fields, expected', [
    (dict(upsample='nearest'), 23_345_153),
    (dict(upsample='transpose'), 22_399_425),
    (dict(upsample='nearest', features=32), 5_838_849),
    (dict(upsample='nearest', features=16), 1_460_993),
    (dict(upsample='nearest', features=8), 365_889),
])
def test_parameter_counts_in_three_dimensions(fields, expected):
  model = models.create_model(dict(name='unet', num_classes=1, levels=3, **fields))
  variables = jax.eval_shape(
      lambda: model.init(rngs(), jnp.zeros((1, 16, 16, 8, 1)), train=True))
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == expected


def test_a_prior_is_what_a_network_answers_before_training():
  net = dict(name='unet', num_classes=1, features=2, levels=1)
  model = models.create_model({**net, 'prior': 0.01})
  outputs, variables = model.init_with_output(rngs(), jnp.zeros((1, 8, 8, 1)), train=False)
  np.testing.assert_allclose(jax.nn.sigmoid(outputs['logits']), 0.01, rtol=1e-5)
  for fields in ({'prior': 1.0}, {'prior': 0.0}, {'prior': 0.1, 'num_classes': 3}):
    with pytest.raises(ValueError, match='config.model.prior must be above 0 and below 1'):
      models.create_model({**net, **fields}).init(rngs(), jnp.zeros((1, 8, 8, 1)), train=False)


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('size', [(64, 32), (33, 1), (50, 47)])
def test_any_size_gives_logits_of_that_size(name, size):
  model = models.create_model(SMALL[name])
  outputs = jax.eval_shape(
      lambda: model.init_with_output(rngs(), jnp.zeros((2, *size, 1)), train=False)[0])
  assert outputs['logits'].shape == (2, *size, 4) and outputs['logits'].dtype == jnp.float32
  assert ('key_logits' in outputs) == (name in ('seam', 'wo_al'))
  if 'key_logits' in outputs:
    assert outputs['key_logits'].shape == (2, -(-size[0] // 4), -(-size[1] // 4), 4)


@pytest.mark.parametrize('stride, last', [(8, 8), (16, 4), (32, 2)])
def test_output_strides(stride, last):
  model = models.create_model({**SMALL['fpn'], 'output_stride': stride})
  outputs, variables = jax.eval_shape(
      lambda: model.init_with_output(rngs(), jnp.zeros((1, 64, 64, 1)), train=True))
  assert outputs['logits'].shape == (1, 64, 64, 4)
  features = jax.eval_shape(lambda: resnet.ResNet(width=4, output_stride=stride).init_with_output(
      jax.random.key(0), jnp.zeros((1, 64, 64, 1)), train=False)[0])
  assert features[-1].shape == (1, last, last, 128)


def test_padding_does_not_shift_the_image():
  model = models.create_model(SMALL['unet'])
  variables = init(model, (1, 16, 16, 1))
  image = jax.random.normal(jax.random.key(2), (1, 10, 13, 1))
  extended = jnp.pad(image, ((0, 0), (0, 2), (0, 3), (0, 0)), mode='edge')
  np.testing.assert_allclose(
      model.apply(variables, image, train=False)['logits'],
      model.apply(variables, extended, train=False)['logits'][:, :10, :13], rtol=1e-5, atol=1e-6)


def test_gradients_of_a_u_net_are_finite_and_reach_every_parameter():
  model = models.create_model(SMALL['unet'])
  variables = init(model, (1, 32, 32, 1))

  @jax.jit
  def gradients(image):
    def objective(params):
      outputs, _ = model.apply({**variables, 'params': params}, image, train=True,
                               mutable=['batch_stats'], rngs={'dropout': jax.random.key(5)})
      return sum(jnp.mean(jnp.square(x)) for x in outputs.values())
    return jax.grad(objective)(variables['params'])

  for image in (jnp.zeros((2, 32, 32, 1)), jnp.full((2, 32, 32, 1), 1e4)):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients(image)))
  noise = gradients(jax.random.normal(jax.random.key(3), (2, 32, 32, 1)))
  zero = {path for path, x in traverse_util.flatten_dict(noise).items() if not np.any(x)}
  # Batch norm takes a bias before it away again: its gradient is zero, and exactly so.
  biases = {path for path in traverse_util.flatten_dict(noise)
            if path[-2:] == ('conv', 'bias') and path[0] != 'classifier'}
  assert zero == biases


def test_evaluation_reads_the_running_statistics_alone():
  model = models.create_model(SMALL['fpn'])
  variables = init(model, (1, 32, 32, 1))
  images = jax.random.normal(jax.random.key(2), (2, 32, 32, 1))
  apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False)['logits'])
  both, first = apply(variables, images), apply(variables, images[:1])
  np.testing.assert_allclose(both[:1], first, rtol=1e-4, atol=1e-6)
  moved = {**variables, 'batch_stats': jax.tree.map(lambda x: x + 1, variables['batch_stats'])}
  assert np.abs(apply(moved, images) - both).max() > 1e-6


def test_bfloat16_computes_in_half_and_keeps_float32_outside():
  model = models.create_model({**SMALL['seam'], 'dtype': 'bfloat16'})
  outputs, variables = jax.eval_shape(
      lambda: model.init_with_output(rngs(), jnp.zeros((1, 32, 32, 1)), train=True))
  assert {x.dtype for x in jax.tree.leaves((outputs, variables))} == {jnp.dtype('float32')}
  text = jax.make_jaxpr(lambda: model.init_with_output(
      rngs(), jnp.zeros((1, 32, 32, 1)), train=True)[0]['logits'])()
  assert 'bf16' in str(text)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize('scale', ['sum', 'mean'])
def test_attention_equals_its_equations(scale):
  module = attention.StructureAffinity(num_classes=3, query_features=2, scale=scale)
  v = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
  variables = module.init(jax.random.key(1), v, train=False)
  z, k = module.apply(variables, v, train=False)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  conv = lambda x, name: x @ p[name]['kernel'][0, 0] + p[name]['bias']
  for example in range(2):
    flat = np.asarray(v[example], np.float64).reshape(12, 5)
    key = conv(flat, 'phi')
    np.testing.assert_allclose(k[example].reshape(12, 3), key, rtol=1e-5, atol=1e-5)
    probabilities = softmax(key)
    energy = np.zeros((2, 3))
    for position in range(12):
      energy += np.outer(conv(flat, 'theta')[position], probabilities[position])
    weights = softmax(energy / (12 if scale == 'mean' else 1))
    rebuilt = conv(probabilities @ weights.T, 'delta').reshape(4, 3, 5)
    joined = np.pad(np.concatenate([rebuilt, v[example]], -1), ((1, 1), (1, 1), (0, 0)))
    expected = np.zeros((4, 3, 5))
    for y in range(4):
      for x in range(3):
        expected[y, x] = np.einsum('abc,abcd->d', joined[y:y + 3, x:x + 3],
                                   p['rho']['conv']['kernel'])
    expected = np.maximum(expected / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(z[example], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fields, sentence', [
    (dict(name='segnet'), 'config.model.name must be one of .*fpn, .*seam, .*unet'),
    (dict(name='fpn', attention=True),
     'config.model.attention: fpn has no such field. Its fields are axis_name, backbone,'),
    (dict(name='unet', dtype='float16'), 'config.model.dtype must be one of float32, bfloat16'),
    (dict(name='unet', num_classes=0), 'num_classes must be .* at least 1, not 0'),
    (dict(name='unet', num_classes=None), 'num_classes must be .* at least 1, not None'),
])
def test_a_wrong_config_is_one_sentence(fields, sentence):
  with pytest.raises(ValueError, match=sentence):
    models.create_model({'num_classes': 4, **fields})


@pytest.mark.parametrize('fields, sentence', [
    (dict(backbone='resnet18'), 'config.model.backbone must be one of resnet50_v1c'),
    (dict(output_stride=4), 'config.model.output_stride must be one of'),
    (dict(attention_scale='max'), "config.model.attention_scale must be 'sum' or 'mean'"),
])
def test_a_wrong_field_is_one_sentence(fields, sentence):
  model = models.create_model({**SMALL['seam'], **fields})
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(lambda: model.init(rngs(), jnp.zeros((1, 32, 32, 1)), train=True))


def test_a_wrong_upsampling_is_one_sentence():
  model = models.create_model(dict(SMALL['unet'], upsample='bilinear'))
  with pytest.raises(ValueError, match="config.model.upsample must be 'transpose' or 'nearest'"):
    jax.eval_shape(lambda: model.init(rngs(), jnp.zeros((1, 16, 16, 1)), train=True))


def test_dropout_of_the_unet_acts_in_training_alone():
  model = models.create_model(dict(SMALL['unet'], upsample='nearest', dropout=0.5))
  variables = init(model, (1, 16, 16, 1))
  image = jax.random.normal(jax.random.key(2), (1, 16, 16, 1))

  def logits(seed, train):
    return model.apply(variables, image, train=train, mutable=['batch_stats'],
                       rngs={'dropout': jax.random.key(seed)})[0]['logits']

  assert np.abs(logits(0, True) - logits(1, True)).max() > 1e-3
  np.testing.assert_array_equal(logits(0, False), logits(1, False))


def test_three_dimensions_are_the_same_code():
  model = models.create_model(dict(name='unet', num_classes=1, features=4, levels=2))
  volume = jax.ShapeDtypeStruct((1, 9, 8, 6, 1), jnp.float32)
  outputs, variables = jax.eval_shape(
      lambda image: model.init_with_output(rngs(), image, train=True), volume)
  assert outputs['logits'].shape == (1, 9, 8, 6, 1)
  assert variables['params']['encoder_0_1']['conv']['kernel'].shape == (3, 3, 3, 1, 4)
