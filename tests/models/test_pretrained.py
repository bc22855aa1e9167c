"""Weights from PyTorch: names written by hand, reference heads, faults, hostile files."""
import dataclasses
import functools
import io
import math
import pickle
import re
import sys
import zipfile

from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from spinejax import models
from spinejax.models import dilated
from spinejax.models import fpn
from spinejax.models import layers
from spinejax.models import pretrained
from spinejax.models import resnet
from spinejax.models import sadanet
from spinejax.models import unet_s5d16
from tests.models.arrays import GOLDEN, RNGS, assert_within, nchw, nhwc, random

TINY = dict(
    num_classes=4, backbone='shallow', backbone_width=4, features=4, head_features=8,
    neck_features=8, auxiliary_features=8, query_features=4, ema_features=8, num_bases=4,
    mask_size=(5, 3), autoencoder_features=4)


def create(name, **fields):
  known = {field.name for field in dataclasses.fields(models.MODELS[name])}
  fields = {**TINY, **fields}
  return models.create_model({'name': name, **{k: v for k, v in fields.items() if k in known}})


@functools.cache
def template_of(model, channels=3, rank=2):
  image = jnp.zeros((1, *(32,) * rank, channels))
  mode = {} if isinstance(model, (layers.Conv, layers.ConvTranspose)) else {'train': True}
  return jax.eval_shape(lambda: model.init(RNGS, image, **mode))


def from_torch(weights, model, *args):
  """The variables of a model, checked for their structure, shapes and dtypes."""
  template = template_of(model, *args)
  variables = pretrained.initialize(template, weights, ('',))
  assert_fits(variables, template)
  return variables


def assert_fits(variables, template):
  assert jax.tree.structure(variables) == jax.tree.structure(template)
  for array, expected in zip(jax.tree.leaves(variables), jax.tree.leaves(template)):
    assert array.shape == expected.shape and array.dtype == expected.dtype == np.float32


def arrays_of(shapes, seed=0):
  """Random arrays for {name: shape}."""
  generator = np.random.default_rng(seed)
  return {name: generator.standard_normal(shape).astype(np.float32)
          for name, shape in shapes.items()}


# Names and shapes as the PyTorch libraries print them.

def conv(name, features, channels, size=1, bias=False):
  weight = {f'{name}.weight': (features, channels, size, size)}
  return weight | {f'{name}.bias': (features,)} if bias else weight


def norm(name, features):
  leaves = ('weight', 'bias', 'running_mean', 'running_var')
  return {f'{name}.{leaf}': (features,) for leaf in leaves} | {f'{name}.num_batches_tracked': ()}


def conv_module(name, features, channels, size=3):
  return conv(f'{name}.conv', features, channels, size) | norm(f'{name}.bn', features)


def resnet_names(stem, blocks=(3, 4, 6, 3), width=4, prefix='', classifier=True):
  half = width // 2
  names = {
      'plain': lambda: conv('conv1', width, 3, 7) | norm('bn1', width),
      'mmsegmentation': lambda: (
          conv('stem.0', half, 3, 3) | norm('stem.1', half) | conv('stem.3', half, half, 3)
          | norm('stem.4', half) | conv('stem.6', width, half, 3) | norm('stem.7', width)),
      'timm': lambda: (
          conv('conv1.0', half, 3, 3) | norm('conv1.1', half) | conv('conv1.3', half, half, 3)
          | norm('conv1.4', half) | conv('conv1.6', width, half, 3) | norm('bn1', width)),
  }[stem]()
  channels = width
  for stage, count in enumerate(blocks):
    middle = width * 2 ** stage
    for block in range(count):
      name = f'layer{stage + 1}.{block}'
      names |= (conv(f'{name}.conv1', middle, channels) | norm(f'{name}.bn1', middle)
                | conv(f'{name}.conv2', middle, middle, 3) | norm(f'{name}.bn2', middle)
                | conv(f'{name}.conv3', 4 * middle, middle) | norm(f'{name}.bn3', 4 * middle))
      if block == 0:
        names |= (conv(f'{name}.downsample.0', 4 * middle, channels)
                  | norm(f'{name}.downsample.1', 4 * middle))
      channels = 4 * middle
  if classifier:
    names |= {'fc.weight': (1000, channels), 'fc.bias': (1000,)}
  return {prefix + name: shape for name, shape in names.items()}


def segmentor_names(name):
  """MMSegmentation's names of a segmentor with the fields of `TINY`."""
  if name == 'danet':
    names = {'pam.gamma.scale': (), 'cam.gamma.scale': ()} | conv('conv_seg', 4, 8, bias=True)
    for part, features in (('query', 4), ('key', 4), ('value', 8)):
      names |= conv(f'pam.{part}_project', features, 8, bias=True)
    for part in ('pam', 'cam'):
      names |= (conv_module(f'{part}_in_conv', 8, 128) | conv_module(f'{part}_out_conv', 8, 8)
                | conv(f'{part}_conv_seg', 4, 8, bias=True))
    auxiliary = conv('conv_seg', 4, 8, bias=True) | conv_module('convs.0', 8, 64)
    return (resnet_names('mmsegmentation', (1,) * 4, prefix='backbone.', classifier=False)
            | {f'decode_head.{name}': shape for name, shape in names.items()}
            | {f'auxiliary_head.{name}': shape for name, shape in auxiliary.items()})
  if name == 'fpn':
    names = resnet_names('mmsegmentation', (1,) * 4, prefix='backbone.', classifier=False)
    for level in range(4):
      names |= (conv(f'neck.lateral_convs.{level}.conv', 8, 16 * 2 ** level, bias=True)
                | conv(f'neck.fpn_convs.{level}.conv', 8, 8, 3, bias=True))
      for step in range(max(level, 1)):
        names |= conv_module(f'decode_head.scale_heads.{level}.{2 * step}', 8, 8)
    return names | conv('decode_head.conv_seg', 4, 8, bias=True)
  assert name == 'unet_s5d16'
  names, channels = {}, 3
  for stage in range(5):
    features = 4 * 2 ** stage
    encoder = f'backbone.encoder.{stage}.{min(stage, 1)}.convs'
    names |= (conv_module(f'{encoder}.0', features, channels)
              | conv_module(f'{encoder}.1', features, features))
    channels = features
  for stage in range(4):
    features, decoder = 4 * 2 ** stage, f'backbone.decoder.{stage}'
    names |= (conv_module(f'{decoder}.conv_block.convs.0', features, 2 * features)
              | conv_module(f'{decoder}.conv_block.convs.1', features, features)
              | conv_module(f'{decoder}.upsample.interp_upsample.1', features, 2 * features, 1))
  for head, channels in (('decode_head', 4), ('auxiliary_head', 8)):
    names |= conv_module(f'{head}.convs.0', 4, channels) | conv(f'{head}.conv_seg', 4, 4, bias=True)
  return names


# Names.

@pytest.mark.parametrize('stem, backbone, first, last_norm, ours', [
    ('plain', 'resnet50', 'conv1', 'bn1', 'bn1'),
    ('mmsegmentation', 'resnet50_v1c', 'stem.0', 'stem.7', 'stem_7'),
    ('timm', 'resnet50_v1c', 'conv1.0', 'bn1', 'stem_7')])
def test_every_library_names_the_same_resnet(stem, backbone, first, last_norm, ours):
  weights = arrays_of(resnet_names(stem))
  variables = from_torch(weights, resnet.ResNet(backbone, width=4))
  assert_same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
  for prefix in ('module.', 'backbone.', 'module.backbone.', 'encoder.'):
    named = {prefix + name: x for name, x in weights.items() if not name.startswith('fc.')}
    assert_same(from_torch(named, resnet.ResNet(backbone, width=4)), variables)
  for name, path in ((first, 'conv1/kernel' if stem == 'plain' else 'stem_0/kernel'),
                     ('layer2.3.conv2', 'layer2_3/conv2/kernel')):
    np.testing.assert_array_equal(leaf_of(variables, 'params', path),
                                  np.einsum('oihw->hwio', weights[f'{name}.weight']))
  for name, collection, path in (
      (f'{last_norm}.weight', 'params', f'{ours}/scale'),
      (f'{last_norm}.running_var', 'batch_stats', f'{ours}/var'),
      ('layer3.0.downsample.1.bias', 'params', 'layer3_0/downsample_1/bias'),
      ('layer4.2.bn3.running_mean', 'batch_stats', 'layer4_2/bn3/mean')):
    np.testing.assert_array_equal(leaf_of(variables, collection, path), weights[name])


def leaf_of(variables, collection, path):
  return traverse_util.flatten_dict(variables[collection], sep='/')[path]


def test_resnet101_and_wrapped_checkpoints():
  weights = arrays_of(resnet_names('mmsegmentation', (3, 4, 23, 3)))
  model = resnet.ResNet('resnet101_v1c', width=4)
  plain = from_torch(weights, model)
  for wrapped in ({'state_dict': weights, 'meta': {'epoch': 3}}, {'model': {'state_dict': weights}},
                  {f'state_dict.{name}': array for name, array in weights.items()}):
    jax.tree.map(np.testing.assert_array_equal, from_torch(wrapped, model), plain)


@pytest.mark.parametrize('name', ['danet', 'fpn', 'unet_s5d16'])
def test_segmentors_under_the_names_of_mmsegmentation(name):
  weights = arrays_of(segmentor_names(name))
  model = create(name)
  variables = from_torch(weights, model)
  for prefix in ('module.', 'model.'):
    named = {prefix + key: x for key, x in weights.items()}
    jax.tree.map(np.testing.assert_array_equal, from_torch(named, model), variables)
  imported = [x for key, x in weights.items() if not key.endswith('num_batches_tracked')]
  assert len(jax.tree.leaves(variables)) == len(imported)
  # As the arrays are random, equal sums mean that each was put in once.
  np.testing.assert_allclose(sorted(x.sum() for x in jax.tree.leaves(variables)),
                             sorted(x.sum() for x in imported), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'name, rank', [*((name, 2) for name in sorted(models.MODELS)), ('unet', 3)])
def test_every_network_takes_its_own_parameters_under_pytorch_names(name, rank):
  model = create(name)
  template = template_of(model, 3, rank)
  generator = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: np.float32(generator.standard_normal(x.shape)), template)
  weights = {}
  for tree in variables.values():
    for (*modules, kind), array in traverse_util.flatten_dict(tree).items():
      if kind == 'kernel':
        array = np.moveaxis(array, (-1, -2) if array.shape[0] % 2 else (-2, -1), (0, 1))
      kind = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean',
              'var': 'running_var', 'gamma': 'gamma.scale'}.get(kind, kind)
      key = '.'.join([*(re.sub(r'_(\d)', r'.\1', part) for part in modules), kind])
      if 'decode_head' in template['params']:
        key = key.replace('classifier.', 'decode_head.conv_seg.')
      weights[key] = array
  jax.tree.map(np.testing.assert_array_equal, from_torch(weights, model, 3, rank), variables)


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16, 'jax'])
def test_every_floating_type_becomes_float32(dtype):
  weights = {'weight': np.full((2, 3, 3, 3), 0.5), 'bias': np.array([1.5, -2.0])}
  convert = jnp.bfloat16 if dtype == 'jax' else dtype
  weights = {name: jnp.asarray(array, convert) if dtype == 'jax' else array.astype(convert)
             for name, array in weights.items()}
  assert from_torch(weights, layers.Conv(2))['params']['bias'].tolist() == [1.5, -2.0]


def test_a_gray_image_gets_the_sum_over_the_first_kernels_input():
  weights = arrays_of({'weight': (4, 3, 7, 7), 'bias': (4,)})
  gray = random(1, 9, 8, 1)
  module = layers.Conv(4, 7)
  results = [module.apply(from_torch(weights, module, image.shape[-1]), image)
             for image in (gray, jnp.repeat(gray, 3, -1))]
  np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-4)
  from_torch(arrays_of(resnet_names('plain')), resnet.ResNet('resnet50', width=4), 1)


# Numbers.

@pytest.mark.parametrize('name, model, call', [
    ('cc', dilated.CCHead(3, 4, 0.0, query_features=2), None),
    ('da', sadanet.DAHead(3, 4, 0.0, query_features=2, spatial='position', channel='danet',
                          branch_losses=True), None),
    ('ema', dilated.EMAHead(3, 4, 0.0, ema_features=5, num_bases=3), None),
    ('fpn', fpn.FPNHead(2), lambda model, inputs, train: model(inputs, train=train)),
    ('nl', dilated.NonLocalHead(3, 4, 0.0), None),
    ('psa', dilated.PSAHead(3, 4, 0.0, mask_size=(5, 3)), None),
    ('up_conv_block', unet_s5d16.UpConvBlock(),
     lambda model, inputs, train: model(*inputs, train=train)),
])
def test_heads_of_mmsegmentation(name, model, call):
  """Evaluation, training (batch statistics, running ones, state) and gradients of the input."""
  reference = dict(np.load(GOLDEN / f'heads_{name}.npz'))
  part = lambda prefix: [reference[f'{prefix}{i}'] for i in range(9) if f'{prefix}{i}' in reference]
  named = lambda prefix: {key[2:]: x for key, x in reference.items() if key.startswith(prefix)}
  call = call or (lambda model, inputs, train: list(model(*inputs, train=train).values()))
  weights = named('w/')
  if name == 'fpn':  # our head ends before the classifier
    classifier = [weights.pop('conv_seg.weight')[:, :, 0, 0], weights.pop('conv_seg.bias')]
  inputs = [nhwc(x) for x in part('x')]
  template = jax.eval_shape(lambda: model.init(RNGS, inputs, True, method=call))
  variables = pretrained.initialize(template, weights, ('',))

  def run(inputs, train):
    outputs, state = model.apply(variables, inputs, train, method=call, mutable=['batch_stats'])
    outputs = list(outputs) if isinstance(outputs, list) else [outputs]
    if name == 'fpn':
      outputs = [outputs[0] @ classifier[0].T + classifier[1][None, None, None]]
    return outputs, state

  @jax.jit
  def everything(inputs, cotangents):
    trained, pullback, state = jax.vjp(lambda x: run(x, True), inputs, has_aux=True)
    return run(inputs, False)[0], trained, pullback(cotangents)[0], state

  evaluated, trained, gradients, state = everything(inputs, [nhwc(r) for r in part('r')])
  statistics = pretrained.initialize(
      {'batch_stats': template['batch_stats']}, named('s/'), ('',))
  for actual, expected in zip(evaluated, part('y')):
    assert_within(nchw(actual), expected, 1e-5)
  assert len(trained) == len(part('t'))
  for actual, expected in zip(trained, part('t')):
    assert_within(nchw(actual), expected, 1e-4)
  for actual, expected in zip(gradients, part('gx')):
    assert_within(nchw(actual), expected, 1e-3)
  jax.tree.map(lambda actual, expected: assert_within(actual, expected, 1e-4),
               state, statistics)


# Faults.

def fault_of(function, *args):
  """First line and the rest of the sentence a fault is told in."""
  with pytest.raises(ValueError) as caught:
    function(*args)
  first, *rest = str(caught.value).splitlines()
  return first, [line.strip() for line in rest]


def test_every_array_that_does_not_fit_is_named():
  weights = arrays_of(resnet_names('mmsegmentation', classifier=False))
  missing = [name for name in weights if re.fullmatch(r'layer3\.\d\..*weight', name)]
  shapes = {name: str(list(weights.pop(name).shape)).replace(' ', '') for name in missing}
  assert len(missing) > 20
  weights |= arrays_of({'layer1.0.conv1.bias': (4,), 'head.weight': (2, 2),
                        'layer4.1.bn2.running_var': (3,)})
  first, rest = fault_of(from_torch, weights, resnet.ResNet('resnet50_v1c', 4))
  assert first == f'the weights do not fit the model in {len(missing) + 3} arrays:'
  assert rest[:len(missing)] == [
      f'{name}: missing, the model has {shapes[name]}'
      for name in sorted(missing, key=[line.partition(':')[0] for line in rest].index)]
  assert rest[-3:] == ['layer4.1.bn2.running_var: [3], the model has [32]',
                       'layer1.0.conv1.bias: unexpected, the model has no such array',
                       'head.weight: unexpected, the model has no such array']


def test_shapes_are_told_in_the_order_of_pytorch():
  for module, size, shape in ((layers.Conv(4), 3, '4,3,3,3'),
                              (layers.ConvTranspose(4), 2, '3,4,2,2')):
    weights = arrays_of({'weight': (5, 7, size, size), 'bias': (4,)})
    _, rest = fault_of(from_torch, weights, module)
    assert rest == [f'weight: [5,7,{size},{size}], the model has [{shape}]']


@pytest.mark.parametrize('name', ['fpn', 'danet'])
def test_another_number_of_classes_is_told(name):
  weights = arrays_of(segmentor_names(name))
  first, rest = fault_of(from_torch, weights, create(name, num_classes=19))
  assert 'they are of 4 classes, the model of 19: set config.model.num_classes=4' in first
  assert 'decode_head.conv_seg.weight: [4,8,1,1], the model has [19,8,1,1]' in rest


@pytest.mark.parametrize('stem, blocks, backbone, given', [
    ('plain', (3, 4, 6, 3), 'resnet50_v1c', 'resnet50'),
    ('mmsegmentation', (3, 4, 6, 3), 'resnet50', 'resnet50_v1c'),
    ('timm', (3, 4, 23, 3), 'resnet50_v1c', 'resnet101_v1c'),
    ('plain', (3, 4, 6, 3), 'resnet101', 'resnet50'),
])
def test_another_backbone_is_told(stem, blocks, backbone, given):
  weights = arrays_of(resnet_names(stem, blocks))
  first, _ = fault_of(from_torch, weights, resnet.ResNet(backbone, 4))
  assert first.endswith(f'they are of a {given}, the model has a {backbone}: set '
                        f'config.model.backbone={given}:')


def test_average_pooled_shortcuts_are_refused():
  names = {re.sub(r'downsample\.(\d)', lambda match: f'downsample.{int(match[1]) + 1}', name): shape
           for name, shape in resnet_names('timm', classifier=False).items()}
  first, rest = fault_of(from_torch, arrays_of(names), resnet.ResNet('resnet50_v1c', 4))
  assert first.startswith('layer1.0.downsample.1.weight follows an average pooling') and not rest
  assert 'resnet50d' in first


@pytest.mark.parametrize('change, expected', [
    (lambda w: w.clear(), 'the weights are empty'),
    (lambda w: w.update({'conv.weight': w['weight']}), 'weight and conv.weight name the same'),
    (lambda w: w.update(bias=np.array([1.0, np.nan])), 'bias: holds values that are not finite'),
    (lambda w: w.update(bias=np.array([1.0, 1e300])), 'bias: holds values that are not finite'),
    (lambda w: w.update(bias=np.array([1, 2])), 'bias: weights must be floating point, not int64'),
    (lambda w: w.update(bias='text'), 'bias: weights must be floating point, not <U4'),
])
def test_weights_that_are_none(change, expected):
  weights = arrays_of({'weight': (2, 3, 3, 3), 'bias': (2,)})
  change(weights)
  first, rest = fault_of(from_torch, weights, layers.Conv(2))
  assert expected in ' '.join([first, *rest])


# A start of training.

def initial(name, **fields):
  template = template_of(create(name, **fields))
  return jax.tree.map(lambda x: np.full(x.shape, 7.0, np.float32), template)


def changed_parts(before, after):
  flat = traverse_util.flatten_dict(before, sep='/')
  return {path.split('/')[1] for path, x in traverse_util.flatten_dict(after, sep='/').items()
          if x is not flat[path] and not np.array_equal(x, flat[path])}


def test_a_backbone_fills_the_backbone_alone():
  before = initial('seam', backbone='resnet50')
  for prefix in ('', 'backbone.', 'module.', 'encoder.', 'model.backbone.'):
    weights = arrays_of(resnet_names('plain', prefix=prefix, classifier=not prefix))
    after = pretrained.initialize(before, weights)
    assert_fits(after, before)
    assert changed_parts(before, after) == {'backbone'}
    assert all(not np.any(x == 7) for x in jax.tree.leaves(after['params']['backbone']))


def test_a_whole_network_fills_everything():
  before = initial('danet')
  weights = arrays_of(segmentor_names('danet'))
  after = pretrained.initialize(before, weights)
  assert changed_parts(before, after) == {'backbone', 'decode_head', 'auxiliary_head'}
  jax.tree.map(np.testing.assert_array_equal, after,
               from_torch(weights, create('danet')))


def test_parts_of_a_network_of_other_classes_are_a_start():
  weights = arrays_of(segmentor_names('fpn'))
  before = initial('fpn', num_classes=19)
  after = pretrained.initialize(before, weights, ('backbone', 'neck', 'decode_head'))
  assert changed_parts(before, after) == {'backbone', 'neck', 'decode_head'}
  before = initial('danet', num_classes=19)
  weights = arrays_of(segmentor_names('danet'))
  after = pretrained.initialize(before, weights, ('backbone', 'decode_head.pam_in_conv'))
  assert changed_parts(before, after) == {'backbone', 'decode_head'}
  assert np.all(after['params']['decode_head']['pam_out_conv']['conv']['kernel'] == 7)
  first, _ = fault_of(pretrained.initialize, before, weights, ('backbone', 'decode_head'))
  assert 'they are of 4 classes, the model of 19' in first


def test_parts_must_be_whole_and_known():
  before = initial('fpn')
  first, _ = fault_of(pretrained.initialize, before, arrays_of(segmentor_names('fpn')), ('neckk',))
  assert first == ("config.init_parts: the network has no part 'neckk'; it has backbone, "
                   'classifier, decode_head, neck.')
  weights = arrays_of(segmentor_names('fpn') | {'neck.extra.weight': (1,)})
  del weights['neck.fpn_convs.3.conv.bias']
  _, rest = fault_of(pretrained.initialize, before, weights, ('neck',))
  assert rest == ['neck.fpn_convs.3.bias: missing, the model has [8]',
                  'neck.extra.weight: unexpected, the model has no such array']
  assert changed_parts(before, pretrained.initialize(before, weights, ('backbone',))) == {
      'backbone'}
  _, rest = fault_of(pretrained.initialize, before, arrays_of(
      resnet_names('mmsegmentation', (1,) * 4)), ('backbone', 'neck'))
  assert len(rest) == 16 and all(line.startswith('neck.') for line in rest)


# Files.

WEIGHTS = arrays_of({'weight': (2, 3, 3, 3), 'bias': (2,)})


def write(path, weights=WEIGHTS):
  if path.suffix == '.npz':
    np.savez(path, **weights)
  elif path.suffix == '.safetensors':
    safetensors.numpy.save_file(weights, path)
  else:
    torch = pytest.importorskip('torch')
    torch.save({name: torch.from_numpy(x) for name, x in weights.items()}, path)
  return path


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz', '.pth', '.PT'])
def test_files_give_their_arrays(suffix, tmp_path):
  loaded = pretrained.load_state_dict(write(tmp_path / f'weights{suffix}'))
  assert loaded.keys() == WEIGHTS.keys()
  for name, array in loaded.items():
    np.testing.assert_array_equal(array, WEIGHTS[name])
  from_torch(loaded, layers.Conv(2))


def test_half_precision_in_safetensors(tmp_path):
  weights = {'a': np.array([0.5, -3.0], ml_dtypes.bfloat16), 'b': np.float16([[1.5]])}
  loaded = pretrained.load_state_dict(write(tmp_path / 'half.safetensors', weights))
  assert loaded['a'].astype(np.float32).tolist() == [0.5, -3.0]
  assert loaded['b'].astype(np.float32).tolist() == [[1.5]]


def sentence(path, kind=ValueError):
  """The one sentence in which a file is refused; it names the file."""
  with pytest.raises(kind) as caught:
    pretrained.load_state_dict(path)
  text = str(caught.value)
  assert '\n' not in text and text.startswith(str(path)) and text.endswith('.')
  return text


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz', '.pth'])
def test_damaged_and_other_files(suffix, tmp_path):
  path = write(tmp_path / f'weights{suffix}')
  content = path.read_bytes()
  for damaged in (b'', content[:1], content[:40], content[:len(content) // 2], content[:-3],
                  b'\x89PNG\r\n\x1a\n', b'<html>404</html>', bytes(4096),
                  b'version https://git-lfs.github.com/spec/v1\n'):
    path.write_bytes(damaged)
    sentence(path)
  for name in {'.safetensors', '.npz', '.pth'} - {suffix}:
    renamed = tmp_path / f'renamed{name}'
    renamed.write_bytes(content)
    sentence(renamed)


def test_paths_that_lead_nowhere(tmp_path):
  assert 'no such file' in sentence(tmp_path / 'absent.npz', FileNotFoundError)
  assert 'is a folder' in sentence(tmp_path)
  path = tmp_path / 'weights.onnx'
  path.write_bytes(b'x')
  assert ".safetensors, .npz, .pth, .pt files, not from '.onnx'" in sentence(path)


def test_archives_of_something_else(tmp_path):
  path = tmp_path / 'array.npz'
  with path.open('wb') as file:
    np.save(file, np.zeros(3))
  assert 'a single array' in sentence(path)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', b'\x80\x02}.')
  assert 'is no array' in sentence(path)
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
      header, {'descr': '<f4', 'fortran_order': False, 'shape': (2 ** 50,)})
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('huge.npy', header.getvalue())
  sentence(path)


def test_pytorch_files_need_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  path = tmp_path / 'weights.pth'
  path.write_bytes(b'PK\x03\x04')
  text = sentence(path)
  assert 'pip install torch' in text and 'safetensors' in text


# Pickles that would run code.

class Touches:
  """Pickled, it makes a file when it is opened the careless way."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def hostile_pickles(mark):
  """Pickle opcodes: each makes the file `mark` when loaded by `pickle`."""
  command = f"open({str(mark)!r}, 'w')".encode()
  text = lambda data: b'X' + len(data).to_bytes(4, 'little') + data
  return {
      'os.system': b'\x80\x02cos\nsystem\n' + text(f'touch {mark}'.encode()) + b'\x85R.',
      'eval': b'\x80\x02cbuiltins\neval\n' + text(command) + b'\x85R.',
      'old eval': b'\x80\x02c__builtin__\neval\n' + text(command) + b'\x85R.',
      'beside': b'\x80\x02}' + text(b'state_dict') + b'}s' + text(b'epoch')
                + b'cbuiltins\neval\n' + text(command) + b'\x85Rs.',
      'reduce': pickle.dumps({'state_dict': Touches(mark)}, protocol=2),
      'getattr': b'\x80\x02cbuiltins\ngetattr\ncpathlib\nPath\n' + text(b'touch') + b'\x86R'
                 + b'cpathlib\nPath\n' + text(str(mark).encode()) + b'\x85R\x85R.',
  }


def test_pickles_are_refused_without_running_them(tmp_path):
  mark, path = tmp_path / 'mark', tmp_path / 'weights.pth'
  for name, content in hostile_pickles(mark).items():
    path.write_bytes(content)
    sentence(path)
    write_archive(path, content)
    sentence(path)
    assert not mark.exists(), name
    pickle.loads(content)  # each does what this test says
    assert mark.exists(), name
    mark.unlink()


def write_archive(path, content):
  """A file as `torch.save` lays it out, with this pickle."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', content)
    archive.writestr('archive/byteorder', 'little')
    archive.writestr('archive/version', '3\n')


def test_pickled_arrays_are_refused_without_running_them(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, weight=np.array([Touches(tmp_path / 'mark')], dtype=object))
  assert 'damaged or not' in sentence(path)
  for content in hostile_pickles(tmp_path / 'mark').values():
    path.write_bytes(content)
    sentence(path)
  assert not (tmp_path / 'mark').exists()


class Log:
  """What a trainer keeps in its checkpoints beside the weights."""

  def __init__(self):
    self.history = np.arange(3.0)


def test_checkpoints_of_trainers(tmp_path):
  torch = pytest.importorskip('torch')
  mark = tmp_path / 'mark'
  weights = {name: torch.from_numpy(x) for name, x in WEIGHTS.items()}
  half = {'weight': weights['weight'].bfloat16(), 'bias': torch.nn.Parameter(weights['bias'])}
  path = tmp_path / 'epoch_3.pth'
  for content, expected in (
      ({'meta': {'epoch': 3, 'loss': np.float64(0.5), 'cfg': 'text'}, 'state_dict': weights,
        'message_hub': {'loss': Log(), 'touch': Touches(mark)},
        'optimizer': {'state': {0: {'step': 3, 'exp_avg': weights['bias']}}}}, WEIGHTS),
      ({'model': half}, {'weight': half['weight'].float().numpy(), 'bias': WEIGHTS['bias']}),
      ({'state_dict': {**weights, 'bn.num_batches_tracked': torch.tensor(5)}},
       {**WEIGHTS, 'bn.num_batches_tracked': np.array(5)})):
    torch.save(content, path)
    loaded = pretrained.load_state_dict(path)
    assert loaded.keys() == expected.keys()
    for name, array in loaded.items():
      np.testing.assert_array_equal(array, expected[name])
  assert not mark.exists()
  torch.save(weights, path, _use_new_zipfile_serialization=False)
  np.testing.assert_array_equal(pretrained.load_state_dict(path)['weight'], WEIGHTS['weight'])


def test_pytorch_files_of_something_else(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'weights.pth'
  for content, expected in (
      (Log(), 'holds a Log, not a state dict'),
      ([torch.zeros(2)], 'holds a list, not a state dict'),
      ({'net': {'weight': torch.zeros(2)}, 'epoch': 3}, 'it has net, epoch.'),
      ({}, 'it has nothing.'),
      (torch.nn.Linear(2, 2), 'state dict')):
    torch.save(content, path)
    assert expected in sentence(path)


def test_tensors_of_pytorch_are_arrays():
  torch = pytest.importorskip('torch')
  weights = {'weight': torch.nn.Parameter(torch.full((2, 3, 3, 3), 0.5)).bfloat16(),
             'bias': torch.tensor([1.0, 2.0], dtype=torch.float64)}
  params = from_torch(weights, layers.Conv(2))['params']
  assert params['bias'].tolist() == [1, 2] and math.isclose(params['kernel'].mean(), 0.5)
