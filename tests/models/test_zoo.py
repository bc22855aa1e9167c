"""The segmentation systems of SADANet's and SEAM's tables: parameters, outputs, heads by hand."""
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax.models import attention
from spinejax.models import convolutions
from spinejax.models import dilated
from spinejax.models import ppmu
from spinejax.models import resizing
from spinejax.models import resnet
from spinejax.models import sadanet

DILATED = dict(num_classes=4, backbone='shallow', backbone_width=4, head_features=8,
               auxiliary_features=8)
SMALL = {
    'ccnet': dict(DILATED, name='ccnet', query_features=4),
    'danet': dict(DILATED, name='danet', query_features=4),
    'emanet': dict(DILATED, name='emanet', ema_features=8, num_bases=4),
    'nonlocal': dict(DILATED, name='nonlocal'),
    'ppmu': dict(name='ppmu', num_classes=4, features=4),
    'psanet': dict(DILATED, name='psanet', mask_size=(5, 7)),
    'sadanet': dict(DILATED, name='sadanet', query_features=4),
    'unet_s5d16': dict(name='unet_s5d16', num_classes=4, features=4),
}
SMALL['wide'] = dict(SMALL['sadanet'], wide=True)
SMALL['wo_sca'] = dict(SMALL['sadanet'], spatial='position', channel='danet', branch_losses=True)
SMALL['wo_saa'] = dict(SMALL['sadanet'], affinity=False)
BRANCHES = {'position_logits', 'channel_logits'}


@pytest.fixture(autouse=True)
def shallow_backbone(monkeypatch):
  monkeypatch.setitem(resnet.BACKBONES, 'shallow', ((1, 1, 1, 1), True))


def rngs():
  return {'params': jax.random.key(0), 'dropout': jax.random.key(1)}


def shapes(model, image_shape, train=True):
  """Shapes of outputs and variables."""
  return jax.eval_shape(
      lambda: model.init_with_output(rngs(), jnp.zeros(image_shape), train=train))


def random(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def init(model, image_shape):
  """Variables of training, every one moved from its start so that no term is hidden by a zero."""
  _, template = shapes(model, image_shape)
  leaves, structure = jax.tree.flatten(template)
  generator = np.random.default_rng(0)
  moved = [np.float32(0.2 * generator.standard_normal(leaf.shape)) for leaf in leaves]
  flat = traverse_util.flatten_dict(jax.tree.unflatten(structure, moved))
  return traverse_util.unflatten_dict({
      path: 1 + np.abs(x) if path[-1] in ('scale', 'var') else x for path, x in flat.items()})


@pytest.mark.parametrize('channels, fields, expected, decode, millions', [
    (3, dict(name='ccnet'), 49_814_505, 47_453_669, 47.4537),
    (1, dict(name='ccnet'), 49_814_505 - 576, 47_453_669 - 576, None),
    (3, dict(name='danet'), 49_819_634, 47_458_798, 47.4588),
    (1, dict(name='danet'), 49_819_634 - 576, 47_458_798 - 576, None),
    (3, dict(name='emanet'), 42_342_248, 39_981_412, 39.9814),
    (1, dict(name='emanet'), 42_342_248 - 576, 39_981_412 - 576, None),
    (3, dict(name='nonlocal'), 50_012_264, 47_651_428, 47.6514),
    (1, dict(name='nonlocal'), 50_012_264 - 576, 47_651_428 - 576, None),
    (3, dict(name='ppmu'), 37_272_708, 37_272_708, None),
    (1, dict(name='ppmu'), 37_272_708 - 1152, 37_272_708 - 1152, None),
    (3, dict(name='psanet'), 59_127_144, 56_766_308, 56.7663),
    (1, dict(name='psanet'), 59_127_144 - 576, 56_766_308 - 576, None),
    (3, dict(name='sadanet'), 51_029_806, 51_029_806 - 3_575_112, None),
    (1, dict(name='sadanet'), 51_029_806 - 576, 51_029_806 - 576 - 3_575_112, None),
    (3, dict(name='sadanet', wide=True), 65_191_734, 65_191_734 - 3_575_112, None),
    (3, dict(name='sadanet', spatial='position', channel='danet', branch_losses=True),
     51_033_910, 51_033_910 - 3_575_112, None),
    (3, dict(name='sadanet', affinity=False), 49_815_530, 47_454_694, None),
    (3, dict(name='sadanet', affinity=False, branch_losses=True), 49_819_634, 47_458_798, None),
    (3, dict(name='unet_s5d16'), 29_060_936, 28_986_820, 28.9868),
    (1, dict(name='unet_s5d16'), 29_060_936 - 1152, 28_986_820 - 1152, None),
])
def test_parameter_counts(channels, fields, expected, decode, millions):
  model = models.create_model({'num_classes': 4, **fields})
  _, variables = shapes(model, (1, 16, 16, channels))
  sizes = {part: sum(x.size for x in jax.tree.leaves(tree))
           for part, tree in variables['params'].items()}
  assert sum(sizes.values()) == expected
  assert expected - sizes.get('auxiliary_head', 0) == decode
  assert millions is None or round(decode / 1e6, 4) == millions
  if fields['name'] == 'emanet':
    frozen = variables['params']['decode_head']['ema_mid_conv']
    assert sum(x.size for x in jax.tree.leaves(frozen)) == 262_656


def test_without_an_auxiliary_head():
  for name in ('ccnet', 'unet_s5d16'):
    outputs, variables = shapes(models.create_model({**SMALL[name], 'auxiliary': False}),
                                (1, 16, 16, 1))
    assert outputs.keys() == {'logits'} and variables['params'].keys() == {
        'backbone', 'decode_head'}


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('size', [(33, 1), (16, 16), (1, 1), (50, 47)])
def test_any_size_gives_logits_of_that_size(name, size):
  model = models.create_model(SMALL[name])
  image_shape = (2, *size, 1)
  trained, _ = shapes(model, image_shape)
  predicted, _ = shapes(model, image_shape, train=False)
  expected = {'logits'} if name == 'ppmu' else {'logits', 'aux_logits'}
  expected |= BRANCHES if name in ('danet', 'wide', 'wo_sca') else set()
  assert trained.keys() == expected and predicted.keys() == {'logits'}
  for x in (*trained.values(), *predicted.values()):
    assert x.shape == (2, *size, 4) and x.dtype == jnp.float32


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_output_strides(stride):
  outputs, _ = shapes(models.create_model({**SMALL['ccnet'], 'output_stride': stride}),
                      (1, 40, 33, 1))
  assert {x.shape for x in outputs.values()} == {(1, 40, 33, 4)}


def test_predictions_need_no_parameters_of_training():
  for name in SMALL:
    model = models.create_model(SMALL[name])
    _, variables = shapes(model, (1, 32, 16, 1))
    used = {
        kind: {path: x for path, x in traverse_util.flatten_dict(tree).items()
               if path[0] != 'auxiliary_head' and path[1] not in ('pam_conv_seg', 'cam_conv_seg')}
        for kind, tree in variables.items()}
    _, without = shapes(model, (1, 32, 16, 1), train=False)
    assert used == {kind: traverse_util.flatten_dict(tree) for kind, tree in without.items()}


def test_the_bases_move_in_training_alone():
  model = models.create_model(SMALL['emanet'])
  variables = init(model, (1, 16, 16, 1))
  bases = lambda tree: tree['batch_stats']['decode_head']['ema_module']['bases']

  @jax.jit
  def after(image):
    return [bases(model.apply(variables, image, train=train, mutable=['batch_stats'],
                              rngs=rngs())[1]) for train in (False, True)]

  predicted, trained = after(random(2, 16, 16, 1))
  np.testing.assert_array_equal(predicted, bases(variables))
  assert np.abs(trained - predicted).max() > 1e-3


def apply_conv(tree, name, x, kernel_size=1, relu=True):
  """ConvNorm at evaluation, [N,H,W,C] by hand but for the convolution itself."""
  params, stats = tree['params'][name], tree['batch_stats'][name]['bn']
  assert params['conv']['kernel'].shape[0] == kernel_size
  x = np.asarray(convolutions.convolve(jnp.asarray(x, jnp.float32), params['conv']['kernel']))
  x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  x = params['bn']['scale'] * x + params['bn']['bias']
  return np.maximum(x, 0) if relu else x


def classify(tree, x, name='conv_seg'):
  return x @ tree['params'][name]['kernel'][0, 0] + tree['params'][name]['bias']


def submodule(module, tree, name, x, **kwargs):
  variables = {kind: part[name] for kind, part in tree.items() if name in part}
  return np.asarray(module.apply(variables, jnp.float32(x), **kwargs))


def resize_by_hand(x, size, align_corners):
  """PyTorch's bilinear resizing of [H,W,C], pixel by pixel."""
  height, width, channels = x.shape
  y = np.zeros((*size, channels))
  for target in np.ndindex(*size):
    places = []
    for o, n, after in zip(target, (height, width), size):
      place = (o * (n - 1) / max(after - 1, 1) if align_corners
               else max((o + 0.5) * n / after - 0.5, 0))
      low = min(int(place), n - 1)
      places.append((low, min(low + 1, n - 1), place - low))
    (top, bottom, v), (left, right, u) = places
    y[target] = ((1 - v) * ((1 - u) * x[top, left] + u * x[top, right])
                 + v * ((1 - u) * x[bottom, left] + u * x[bottom, right]))
  return y


@pytest.mark.parametrize('size, small, align_corners', [
    ((5, 7), (3, 4), True), ((6, 7), (3, 3), False), ((4, 2), (2, 1), False),
    ((1, 3), (1, 2), True), ((1, 4), (1, 2), False)])
def test_point_wise_head_by_hand(size, small, align_corners):
  head = dilated.PSAHead(num_classes=3, features=4, mask_size=(3, 5))
  x = random(1, *size, 6)
  variables = init(head, x.shape)
  joined = []
  for collect, suffix in ((True, ''), (False, '_p')):
    y = apply_conv(variables, f'reduce{suffix}', x)
    y = resize_by_hand(y[0], small, align_corners)
    mask = apply_conv(variables, f'attention{suffix}_0', y[None])
    mask = mask[0] @ variables['params'][f'attention{suffix}_1']['kernel'][0, 0]
    places = list(np.ndindex(*small))
    result = np.zeros_like(y)
    for target in places:
      energy = np.zeros(len(places))
      for i, source in enumerate(places):
        owner, other = (target, source) if collect else (source, target)
        row, column = other[0] - owner[0] + 1, other[1] - owner[1] + 2
        if 0 <= row < 3 and 0 <= column < 5:
          energy[i] = mask[owner].reshape(3, 5)[row, column]
      weights = np.exp(energy) / np.exp(energy).sum()
      result[target] = sum(weight * y[source] for weight, source in zip(weights, places))
    joined.append(result)
  bordered = np.pad(np.concatenate(joined, -1), ((1, 1), (1, 1), (0, 0)))
  y = apply_conv(variables, 'proj', bordered[None])
  y = resize_by_hand(y[0], size, align_corners)
  y = apply_conv(variables, 'bottleneck', np.concatenate([x, y[None]], -1), 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y), rtol=1e-4, atol=1e-5)


def test_criss_cross_head_by_hand():
  head = dilated.CCHead(num_classes=3, features=8, query_features=4)
  x = random(2, 5, 4, 6)
  variables = init(head, x.shape)
  y = apply_conv(variables, 'convs_0', x, 3)
  for _ in range(2):
    y = submodule(attention.CrissCrossAttention(4), variables, 'cca', y)
  y = apply_conv(variables, 'convs_1', y, 3)
  y = apply_conv(variables, 'conv_cat', np.concatenate([x, y], -1), 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y), rtol=1e-4, atol=1e-5)


def test_expectation_maximization_head_by_hand():
  head = dilated.EMAHead(num_classes=3, features=4, ema_features=8, num_bases=4)
  x = random(2, 5, 4, 6)
  variables = init(head, x.shape)
  identity = apply_conv(variables, 'ema_in_conv', x, 3)
  y = classify(variables, identity, 'ema_mid_conv')
  y = submodule(attention.ExpectationMaximization(4), variables, 'ema_module', y, train=False)
  y = apply_conv(variables, 'ema_out_conv', np.maximum(y, 0), relu=False)
  y = apply_conv(variables, 'bottleneck', np.maximum(identity + y, 0), 3)
  y = apply_conv(variables, 'conv_cat', np.concatenate([x, y], -1), 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('wide', [False, True])
def test_dual_attention_head_by_hand(wide):
  head = sadanet.DAHead(num_classes=3, features=8, query_features=4, wide=wide, branch_losses=True,
                        dropout=0.0)
  x = random(2, 5, 4, 6)
  variables = init(head, x.shape)
  y = apply_conv(variables, 'pam_in_conv', x, 3)
  for _ in range(2):
    y = submodule(attention.CrissCrossAttention(4), variables, 'pam', y)
  y = apply_conv(variables, 'pam_out_conv', y, 3)
  if wide:
    y = apply_conv(variables, 'pam_conv_cat', np.concatenate([x, y], -1), 3)
    y = apply_conv(variables, 'pam_last_conv', y, 3)
  z = apply_conv(variables, 'cam_in_conv', x, 3)
  z = submodule(attention.GlobalChannelAttention(), variables, 'cam', z)
  z = apply_conv(variables, 'cam_out_conv', z, 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y + z), rtol=1e-4, atol=1e-5)


def test_pyramid_pooling_by_hand():
  module = ppmu.PyramidPooling()
  x = random(1, 5, 7, 8)
  variables = init(module, x.shape)
  parts = [x]
  for bins in (1, 2, 3, 6):
    y = apply_conv(variables, f'pool_{bins}', resizing.adaptive_average_pool(x, bins))
    parts.append(resize_by_hand(y[0], (5, 7), False)[None])
  assert [part.shape[-1] for part in parts] == [8, 2, 2, 2, 2]
  np.testing.assert_allclose(
      module.apply(variables, x, train=False),
      apply_conv(variables, 'fuse', np.concatenate(parts, -1), 3), rtol=1e-4, atol=1e-5)


def test_pyramids_stand_in_the_two_deepest_connections():
  _, variables = shapes(models.create_model(SMALL['ppmu']), (1, 32, 32, 1))
  assert {name for name in variables['params'] if name.startswith('pyramid')} == {
      'pyramid_2', 'pyramid_3'}
  assert variables['params']['pyramid_3']['fuse']['conv']['kernel'].shape == (3, 3, 64, 32)


def test_names_are_those_of_mmsegmentation():
  def names(model):
    _, variables = shapes(models.create_model(SMALL[model]), (1, 16, 16, 1))
    return {'/'.join(path) for path in traverse_util.flatten_dict(variables['params'])}

  assert names('unet_s5d16') >= {
      'backbone/encoder_0_0/convs_0/conv/kernel', 'backbone/encoder_1_1/convs_1/bn/scale',
      'backbone/decoder_0/upsample/interp_upsample_1/conv/kernel',
      'backbone/decoder_3/conv_block/convs_0/conv/kernel', 'decode_head/convs_0/conv/kernel',
      'auxiliary_head/conv_seg/bias'}
  assert names('psanet') >= {
      'decode_head/reduce_p/conv/kernel', 'decode_head/attention_0/bn/scale',
      'decode_head/attention_p_1/kernel', 'decode_head/proj/conv/kernel'}
  assert names('danet') >= {
      'decode_head/pam/query_project/kernel', 'decode_head/cam/gamma',
      'decode_head/pam_conv_seg/kernel', 'auxiliary_head/convs_0/conv/kernel'}
  assert names('ccnet') >= {'decode_head/cca/gamma', 'decode_head/conv_cat/conv/kernel'}
  assert names('nonlocal') >= {'decode_head/nl_block/conv_out/bn/scale'}
  assert names('emanet') >= {'decode_head/ema_mid_conv/bias', 'decode_head/bottleneck/bn/bias'}
  assert names('sadanet') >= {'auxiliary_head/reduce/conv/kernel', 'auxiliary_head/conv_seg/kernel',
                              'auxiliary_head/affinity/theta/kernel'}


@pytest.mark.parametrize('name', ['psanet', 'emanet', 'wo_sca', 'unet_s5d16', 'nonlocal'])
def test_bfloat16_computes_in_half_and_keeps_float32_outside(name):
  model = models.create_model({**SMALL[name], 'dtype': 'bfloat16'})
  outputs = shapes(model, (1, 32, 16, 1))
  assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype('float32')}
  text = str(jax.make_jaxpr(lambda: model.init_with_output(
      rngs(), jnp.zeros((1, 32, 16, 1)), train=True)[0]['logits'])())
  assert 'bf16' in text


@pytest.mark.parametrize('name, fields, sentence', [
    ('sadanet', dict(spatial='cross'), "config.model.spatial must be 'criss_cross' or 'position'"),
    ('sadanet', dict(channel='mean'), "config.model.channel must be 'global' or 'danet'"),
    ('sadanet', dict(attention_scale='max'), 'config.model.attention_scale must be'),
    ('psanet', dict(mask_size=(4, 5)), 'config.model.mask_size must be two odd numbers'),
    ('ccnet', dict(output_stride=4), 'config.model.output_stride must be one of'),
])
def test_a_wrong_field_is_one_sentence(name, fields, sentence):
  with pytest.raises(ValueError, match=sentence):
    shapes(models.create_model({**SMALL[name], **fields}), (1, 16, 16, 1))
