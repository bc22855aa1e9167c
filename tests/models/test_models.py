"""Exact parameter counts and the contract of every network."""
from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax.models import resnet
from tests.models.arrays import RNGS, SMALL, init, random, shapes


@pytest.mark.parametrize('fields, expected, auxiliary, first', [
    (dict(name='fpn'), 28_495_972, 0, 576),
    (dict(name='fpn', backbone='resnet50'), 28_476_740, 0, 6_272),
    (dict(name='fpn', backbone='resnet101_v1c'), 47_488_100, 0, None),
    (dict(name='seam'), 28_800_008, 0, None),
    (dict(name='seam', attention=False), 28_495_972 + 128 * 4 + 4, 0, None),
    (dict(name='unet'), 31_043_716, 0, None),
    (dict(name='ppmu'), 37_272_708, 0, 1152),
    (dict(name='ccnet'), 49_814_505, 49_814_505 - 47_453_669, None),
    (dict(name='danet'), 49_819_634, 49_819_634 - 47_458_798, 576),
    (dict(name='emanet'), 42_342_248, 42_342_248 - 39_981_412, None),
    (dict(name='nonlocal'), 50_012_264, 50_012_264 - 47_651_428, None),
    (dict(name='psanet'), 59_127_144, 59_127_144 - 56_766_308, None),
    (dict(name='sadanet'), 51_029_806, 3_575_112, None),
    (dict(name='sadanet', wide=True), 65_191_734, 3_575_112, None),
    (dict(name='sadanet', spatial='position', channel='danet', branch_losses=True), 51_033_910,
     3_575_112, None),
    (dict(name='sadanet', affinity=False), 49_815_530, 49_815_530 - 47_454_694, None),
    (dict(name='sadanet', affinity=False, branch_losses=True), 49_819_634, 2_360_836, None),
    (dict(name='unet_s5d16'), 29_060_936, 29_060_936 - 28_986_820, 1152),
    (dict(name='wave_ct'), 28_495_972 + 186_371, 0, 576 + 186_371 - 185_217),
])
def test_parameter_counts(fields, expected, auxiliary, first):
  """Of 3 channels, of the auxiliary head, and how many fewer there are with 1 channel."""
  model = models.create_model({'num_classes': 4, **fields})
  params_of = lambda channels: shapes(model, (1, 16, 16, channels))[1]['params']
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  params = params_of(3)
  assert count(params) == expected
  assert count(params.get('auxiliary_head', {})) == auxiliary
  if first is not None:
    assert expected - count(params_of(1)) == first
  if fields['name'] == 'emanet':
    assert count(params['decode_head']['ema_mid_conv']) == 262_656


@pytest.mark.parametrize('shape, fields, expected', [
    ((64, 64, 1), dict(levels=4), 31_042_369),
    ((16, 16, 8, 1), dict(upsample='nearest'), 23_345_153),
    ((16, 16, 8, 1), dict(upsample='transpose'), 22_399_425),
    ((16, 16, 8, 1), dict(upsample='nearest', features=32), 5_838_849),
    ((16, 16, 8, 1), dict(upsample='nearest', features=16), 1_460_993),
    ((16, 16, 8, 1), dict(upsample='nearest', features=8), 365_889),
])
def test_parameter_counts_of_one_class_and_of_three_dimensions(shape, fields, expected):
  model = models.create_model({'name': 'unet', 'num_classes': 1, 'levels': 3, **fields})
  _, variables = shapes(model, (1, *shape))
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == expected


TRAINING_ONLY = {
    **dict.fromkeys(('ccnet', 'emanet', 'nonlocal', 'psanet', 'sadanet', 'wo_saa', 'unet_s5d16'),
                    {'aux_logits'}),
    **dict.fromkeys(('danet', 'wide', 'wo_sca'),
                    {'aux_logits', 'position_logits', 'channel_logits'}),
    'wave_ct': {'reconstruction_residual'},
}


@pytest.mark.parametrize('name', SMALL)
def test_any_size_gives_logits_of_that_size(name):
  model = models.create_model(SMALL[name])
  trained, variables = shapes(model, (2, 33, 1, 1))
  predicted, used = shapes(model, (2, 33, 1, 1), train=False)
  assert trained.keys() - predicted.keys() == TRAINING_ONLY.get(name, set())
  assert predicted.keys() == {'logits'} | ({'key_logits'} if name in ('seam', 'wo_al') else set())
  of_prediction = {
      kind: {path: x for path, x in traverse_util.flatten_dict(tree).items()
             if path[0] not in ('auxiliary_head', 'autoencoder')
             and path[1] not in ('pam_conv_seg', 'cam_conv_seg')}
      for kind, tree in variables.items()}
  assert of_prediction == {kind: traverse_util.flatten_dict(tree) for kind, tree in used.items()}
  for size in ((33, 1), (1, 1), (50, 47)):
    if size != (33, 1):
      trained, predicted = {}, shapes(model, (2, *size, 1), train=False)[0]
    for key, x in {**trained, **predicted}.items():
      expected = {'key_logits': (2, -(-size[0] // 4), -(-size[1] // 4), 4),
                  'reconstruction_residual': (2, *size, 1)}.get(key, (2, *size, 4))
      assert x.shape == expected and x.dtype == jnp.float32


def test_without_an_auxiliary_head():
  for name in ('ccnet', 'unet_s5d16'):
    outputs, variables = shapes(models.create_model({**SMALL[name], 'auxiliary': False}),
                                (1, 16, 16, 1))
    assert outputs.keys() == {'logits'}
    assert variables['params'].keys() == {'backbone', 'decode_head'}


@pytest.mark.parametrize('stride, last', [(8, 8), (16, 4), (32, 2)])
def test_output_strides(stride, last):
  for name in ('fpn', 'ccnet'):
    outputs, _ = shapes(models.create_model({**SMALL[name], 'output_stride': stride}),
                        (1, 40, 33, 1))
    assert {x.shape for x in outputs.values()} == {(1, 40, 33, 4)}
  features, _ = shapes(resnet.ResNet('shallow', width=4, output_stride=stride), (1, 64, 64, 1))
  assert features[-1].shape == (1, last, last, 128)


def test_three_dimensions_are_the_same_code():
  model = models.create_model(dict(name='unet', num_classes=1, features=4, levels=2))
  outputs, variables = shapes(model, (1, 9, 8, 6, 1))
  assert outputs['logits'].shape == (1, 9, 8, 6, 1)
  assert variables['params']['encoder_0_1']['conv']['kernel'].shape == (3, 3, 3, 1, 4)


def test_a_prior_is_what_a_network_answers_before_training():
  net = dict(name='unet', num_classes=1, features=2, levels=1)
  model = models.create_model({**net, 'prior': 0.01})
  outputs, _ = jax.jit(lambda: model.init_with_output(
      RNGS, jnp.zeros((1, 8, 8, 1)), train=False))()
  np.testing.assert_allclose(jax.nn.sigmoid(outputs['logits']), 0.01, rtol=1e-5)


@pytest.mark.parametrize('name, size', [('unet', (14, 13)), ('xception_unet', (5, 7))])
def test_padding_does_not_shift_the_image(name, size):
  model = models.create_model(SMALL[name])
  variables = init(model, (1, 16, 16, 1))
  image = random(1, *size, 1)
  extended = jnp.pad(image, ((0, 0), (0, 16 - size[0]), (0, 16 - size[1]), (0, 0)), mode='edge')
  own, whole = jax.jit(lambda *images: [model.apply(variables, image, train=False)['logits']
                                        for image in images])(image, extended)
  np.testing.assert_allclose(own, whole[:, :size[0], :size[1]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name, bright', [('unet', 1e4), ('xception_unet', 255.0)])
def test_gradients_are_finite_and_reach_every_parameter(name, bright):
  model = models.create_model(SMALL[name])
  variables = init(model, (1, 16, 16, 1))

  @jax.jit
  def gradients(image):
    def objective(params):
      outputs, _ = model.apply({**variables, 'params': params}, image, train=True,
                               mutable=['batch_stats'], rngs={'dropout': jax.random.key(5)})
      return sum(jnp.mean(jnp.square(x)) for x in outputs.values())
    return jax.grad(objective)(variables['params'])

  for image in (jnp.zeros((2, 32, 32, 1)), jnp.full((2, 32, 32, 1), bright)):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients(image)))
  found = traverse_util.flatten_dict(gradients(random(2, 32, 32, 1, seed=3)), sep='/')
  zero = {path for path, x in found.items() if not np.any(x)}
  # Batch norm takes a bias before it away again: its gradient is zero, and exactly so.
  assert zero == {path for path in found if path.endswith('bias') and 'conv/' in path}


def test_evaluation_reads_the_running_statistics_alone():
  model = models.create_model(SMALL['fpn'])
  variables = init(model, (1, 32, 32, 1))
  images = random(2, 32, 32, 1, seed=2)
  apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False)['logits'])
  both, first = apply(variables, images), apply(variables, images[:1])
  np.testing.assert_allclose(both[:1], first, rtol=1e-4, atol=1e-6)
  moved = {**variables, 'batch_stats': jax.tree.map(lambda x: x + 1, variables['batch_stats'])}
  assert np.abs(apply(moved, images) - both).max() > 1e-6


def test_dropout_of_the_unet_acts_in_training_alone():
  model = models.create_model(dict(SMALL['unet'], upsample='nearest', dropout=0.5))
  variables, image = init(model, (1, 16, 16, 1)), random(1, 16, 16, 1, seed=2)
  logits = jax.jit(lambda seed, train: model.apply(
      variables, image, train=train, mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(seed)})[0]['logits'], static_argnums=1)
  assert np.abs(logits(0, True) - logits(1, True)).max() > 1e-3
  np.testing.assert_array_equal(logits(0, False), logits(1, False))


@pytest.mark.parametrize('name', ['seam', 'psanet', 'emanet', 'wo_sca', 'unet_s5d16', 'nonlocal',
                                  'wave_ct', 'xception_unet'])
def test_bfloat16_computes_in_half_and_keeps_float32_outside(name):
  model = models.create_model({**SMALL[name], 'dtype': 'bfloat16'})
  program, outputs = jax.make_jaxpr(lambda: model.init_with_output(
      RNGS, jnp.zeros((1, 32, 16, 1)), train=True), return_shape=True)()
  assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype('float32')}
  assert 'bf16' in str(program)


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


PRIOR = 'config.model.prior must be above 0 and below 1'


@pytest.mark.parametrize('name, fields, sentence', [
    ('seam', dict(backbone='resnet18'), 'config.model.backbone must be one of resnet50_v1c'),
    ('seam', dict(output_stride=4), 'config.model.output_stride must be one of'),
    ('seam', dict(attention_form='max'), "config.model.attention_form must be 'printed', 'mean'"),
    ('unet', dict(upsample='bilinear'), "config.model.upsample must be 'transpose' or 'nearest'"),
    ('unet', dict(prior=1.0, num_classes=1), PRIOR),
    ('unet', dict(prior=0.0, num_classes=1), PRIOR),
    ('unet', dict(prior=0.1, num_classes=3), PRIOR),
    ('sadanet', dict(spatial='cross'), "config.model.spatial must be 'criss_cross' or 'position'"),
    ('sadanet', dict(channel='mean'), "config.model.channel must be 'printed', 'cosine' or"),
    ('sadanet', dict(attention_form='max'), 'config.model.attention_form must be'),
    ('psanet', dict(mask_size=(4, 5)), 'config.model.mask_size must be two odd numbers'),
    ('ccnet', dict(output_stride=4), 'config.model.output_stride must be one of'),
    ('wave_ct', dict(levels=0), 'config.model.levels must be at least 1, not 0'),
])
def test_a_wrong_field_is_one_sentence(name, fields, sentence):
  with pytest.raises(ValueError, match=sentence):
    shapes(models.create_model({**SMALL[name], **fields}), (1, 16, 16, 1))


@pytest.mark.parametrize('name', ['seam', 'sadanet', 'emanet', 'psanet', 'nonlocal'])
def test_what_attention_sows_costs_nothing_where_it_is_not_collected(name, monkeypatch):
  model = models.create_model(SMALL[name])
  _, variables = shapes(model, (1, 32, 32, 1))

  def programs():
    def train(variables, image):
      return model.apply(variables, image, train=True, mutable=['batch_stats'],
                         rngs={'dropout': jax.random.key(5)})
    image = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    predict = lambda variables, image: model.apply(variables, image, train=False)
    return [jax.jit(step).lower(variables, image).as_text() for step in (train, predict)]

  sowing = programs()
  monkeypatch.setattr(nn.Module, 'sow', lambda *_: False)
  assert programs() == sowing
