"""Counts of operations, parameters and memory, by hand and against printed figures."""
import json
import re

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax
import pytest

from spinejax import models
from spinejax.models import attention, cost, layers, resizing, resnet
from tests import processes


class Network(nn.Module):
  """A network of one function of (image, train)."""
  function: object

  @nn.compact
  def __call__(self, image, *, train):
    return {'logits': self.function(image, train)}


def flops(function, *shape):
  counts = cost.flops(Network(function), shape)
  return counts.modules, counts.products, counts.attention


def memory(function, *shape):
  return cost.activation_bytes(Network(function), shape)


def command(*arguments):
  return processes.call('-m', 'spinejax', 'cost', *arguments)


@pytest.mark.parametrize('layer, shape, modules, products', [
    (lambda: layers.Conv(8, stride=2), (6, 5, 3), 3 * 3 * 8 * 27 + 3 * 3 * 8, 3 * 3 * 8 * 27),
    (lambda: layers.Conv(4, 1, use_bias=False), (5, 4, 6, 2), 120 * 4 * 2, 120 * 4 * 2),
    (lambda: layers.Conv(4, use_bias=False), (5, 4, 6, 2), 120 * 4 * 2 * 27, 120 * 4 * 2 * 27),
    # Of upsampled pixels, a kernel counts as one of them.
    (lambda: layers.UpsampleConv(8), (6, 5, 3), 120 * 8 * (27 + 1), 120 * 8 * 27),
    (lambda: layers.SeparableConv(8), (6, 5, 4), 30 * (4 * 9 + 4 * 8 + 8), 30 * (4 * 9 + 4 * 8)),
    (lambda: layers.DepthwiseConv(), (6, 5, 3, 4), 90 * 4 * 27, 90 * 4 * 27),
    (lambda: layers.ConvTranspose(3), (4, 6, 5), 24 * 5 * 4 * 3 + 8 * 12 * 3, 24 * 5 * 4 * 3),
])
def test_convolutions(layer, shape, modules, products):
  assert flops(lambda x, train: layer()(x), *shape) == (modules, products, 0)


@pytest.mark.parametrize('slope, activations', [(0.0, 1), (0.01, 1), (1.0, 0)])
def test_convolution_norm_and_activation(slope, activations):
  counts = flops(lambda x, train: layers.ConvNorm(8, negative_slope=slope)(x, train=train), 6, 5, 3)
  elements = 6 * 5 * 8
  assert counts == (elements * (27 + 2 + activations), elements * (27 + 2), 0)


def test_pooling_counts_what_enters():
  assert flops(lambda x, train: resizing.max_pool(x, 3, 2, 1), 8, 6, 4) == (8 * 6 * 4, 0, 0)


def test_a_bottleneck():
  counts = flops(lambda x, train: resnet.Bottleneck(4, stride=2)(x, train=train), 8, 8, 12)
  convolutions = 64 * 12 * 4 + 16 * 4 * 4 * 9 + 16 * 4 * 16 + 16 * 12 * 16
  norms = 2 * (64 * 4 + 16 * 4 + 16 * 16 + 16 * 16)
  activations = 64 * 4 + 16 * 4 + 16 * 16
  assert counts == (convolutions + norms + activations, convolutions + norms, 0)


def attend(chunk):
  def function(x, train):
    x = x.reshape(1, -1, x.shape[-1])
    return attention.attend(x, x, x[..., :3], chunk=chunk)
  return function


def test_attention_in_chunks_counts_like_whole_attention():
  whole, chunked = flops(attend(48), 8, 6, 5), flops(attend(16), 8, 6, 5)
  assert whole == chunked == (0, 48 * 48 * 8, 48 * 48 * 8)


def test_criss_cross_attention():
  h, w, c, q = 6, 5, 8, 2
  counts = flops(lambda x, train: attention.CrissCrossAttention(q)(x), h, w, c)
  convolutions = h * w * c * (2 * q + c)
  products = h * w * (h + w) * (q + c)
  assert counts == (convolutions + h * w * (2 * q + c), convolutions + products, products)


def test_expectation_maximization_counts_products_with_its_state():
  counts = flops(lambda x, train: attention.ExpectationMaximization(4, 3)(x, train=train), 6, 5, 8)
  assert counts == (0, 7 * 30 * 8 * 4, 7 * 30 * 8 * 4)


@pytest.mark.parametrize('resize', [
    lambda x, train: resizing.resize_bilinear(x, (9, 11)),
    lambda x, train: resizing.upsample_bilinear(x)])
def test_interpolation_is_no_attention(resize):
  assert flops(resize, 6, 5, 3) == (0, 0, 0)


def test_loops_count_as_often_as_they_turn():
  def function(x, train):
    return lax.fori_loop(0, 7, lambda _, y: jax.checkpoint(jnp.matmul)(y, x[0, :, :, 0]),
                         x[0, :, :, 0])
  assert flops(function, 4, 4, 1) == (0, 7 * 4 ** 3, 7 * 4 ** 3)


def until_large(x, train):
  return lax.while_loop(lambda y: y.sum() < 1, lambda y: y @ y, x[0, :, :, 0])


def one_of_two(x, train):
  return lax.cond(x.sum() > 0, lambda y: y @ y, lambda y: y, x[0, :, :, 0])


def layer_in_a_loop(x, train):
  step = nn.scan(lambda conv, y, _: (conv(y), None), length=3, variable_broadcast='params',
                 split_rngs={'params': False})
  return step(layers.Conv(1), x, None)[0]


@pytest.mark.parametrize('function', [until_large, one_of_two, layer_in_a_loop])
def test_what_cannot_be_counted_is_refused(function):
  with pytest.raises(ValueError, match='cannot be counted'):
    flops(function, 4, 4, 1)


class Branches(nn.Module):
  """A head whose branch has a classifier in training, beside an auxiliary head."""

  @nn.compact
  def __call__(self, image, *, train):
    outputs = BranchedHead(name='decode_head')(image, train=train)
    if train:
      outputs['aux_logits'] = layers.Conv(5, name='auxiliary_head')(image)
    return outputs


class BranchedHead(nn.Module):

  @nn.compact
  def __call__(self, x, *, train):
    if train:
      layers.Conv(4, 1, name='branch')(x)
    return {'logits': nn.relu(layers.Conv(4, 1, use_bias=False, name='conv')(x))}


def test_classifiers_of_branches_count_as_modules_and_auxiliary_heads_do_not():
  assert cost.flops(Branches(), (6, 5, 3)) == cost.Flops(30 * 4 * (3 + 3 + 1), 30 * 4 * 3, 0)
  parts = cost.parameters(Branches(), (6, 5, 3))
  assert parts == cost.Parameters({'decode_head': 12 + 12 + 4}, {'auxiliary_head': 27 * 5 + 5})
  assert parts.total == 28 + 140


def test_parameters_of_arrays_and_of_shapes():
  params = {'a': {'kernel': jnp.zeros((3, 4)), 'gamma': jnp.zeros(())}, 'b': jnp.zeros((5,))}
  assert cost.count_parameters(params) == 18 == optax.tree.size(params)
  assert cost.count_parameters(jax.eval_shape(lambda: params)) == 18
  assert cost.count_parameters({}) == 0


@pytest.mark.parametrize('kernel_size', [1, 3])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_memory_of_a_convolution_and_relu(dtype, kernel_size):
  """The image and the signs are kept; neither the kernel nor a part of it."""
  found = memory(lambda x, train: nn.relu(
      layers.Conv(3, kernel_size, use_bias=False, dtype=dtype)(x)), 4, 5, 2)
  size = jnp.dtype(dtype).itemsize
  assert found == cost.ActivationBytes(4 * 5 * (2 * size + 3), 4 * 5 * 3 * size, (1, 4, 5, 3))


def test_memory_counts_each_array_once():
  assert memory(
      lambda x, train: layers.Conv(3)(x) + layers.Conv(3)(x), 4, 5, 2).saved == 4 * 5 * 2 * 4


def test_chunks_save_memory():
  whole, chunked = (memory(lambda x, train, chunk=chunk: attend(chunk)(layers.Conv(4, 1)(x), train),
                           8, 8, 2) for chunk in (64, 16))
  assert chunked.saved < whole.saved and whole.largest == 64 * 64 * 4


@pytest.mark.parametrize('fields, modules, products, num_parameters, rows', [
    ({'name': 'danet'}, '199.346', '211.0', 49_819_634, ['199.35 G .* "~ w/o SAA"']),
    ({'name': 'ccnet'}, '200.668', '201.1', 49_814_505,
     ['200.67 G .* "DANet"', '49.81 M parameters .* "~ w/o SAA"']),
    ({'name': 'sadanet'}, '200.674', '203.3', 51_029_806,
     ['200.67 G .* "DANet"', '51.03 M parameters .* "DANet"']),
    ({'name': 'psanet'}, '200.078', '201.0', 59_127_144, []),
    ({'name': 'emanet'}, '168.714', '169.5', 42_342_248, []),
    ({'name': 'nonlocal'}, '200.133', '208.6', 50_012_264, []),
    ({'name': 'fpn'}, '45.444', '45.4', 28_495_972, []),
    ({'name': 'seam'}, '50.427', '50.4', 28_800_008, []),
    ({'name': 'unet_s5d16'}, '202.945', '202.7', 29_060_936, []),
    ({'name': 'sadanet', 'wide': True}, '258.685', '261.3', 65_191_734,
     ['258.69 G .* "SADANet .Ours."', '65.19 M parameters .* "SADANet .Ours."']),
])
def test_published_counts_and_the_printed_rows(fields, modules, products, num_parameters, rows):
  model = models.create_model({'num_classes': 4, **fields})
  counts = cost.flops(model, cost.PAPER_INPUT)
  assert abs(counts.modules / 1e9 - float(modules)) < 6e-4
  assert f'{counts.products / 1e9:.1f}' == products
  sentences = cost.printed_rows(counts.modules, num_parameters)
  assert len(sentences) == (len(rows) + 1 if rows else 0)
  for sentence, row in zip(sentences, [*rows, 'mislabeled']):
    assert re.search(row, sentence), sentence


DATA = {'image_size': (64, 32), 'patch_size': (32, 32), 'channels': 1}


def test_inputs():
  paper = cost.PAPER_INPUT
  assert cost.inputs_of(DATA) == {
      'image': (64, 32, 1), 'patch': (32, 32, 1), 'table III': paper}
  assert cost.inputs_of({**DATA, 'patch_size': (64, 32)}, channels=3) == {
      'image': (64, 32, 3), 'table III': paper}
  assert cost.inputs_of(DATA, '512, 512', 3) == {'image': paper}
  volumes = {'image_size': (16, 8, 8), 'patch_size': (16, 8, 8), 'channels': 1}
  assert cost.inputs_of(volumes, '8,8,8') == {'image': (8, 8, 8, 1)}


def test_bad_sizes_and_channels():
  for size in ('', '5', '5,0', '-5,5', '5,5,5', 'a,b', '5.0,5', '5,,5', '²,2'):
    with pytest.raises(ValueError, match='--size must be 2 positive whole numbers'):
      cost.inputs_of(DATA, size)
  with pytest.raises(ValueError, match='--channels must be at least 1, not 0'):
    cost.inputs_of(DATA, channels=0)


def test_the_command(tmp_path):
  file = tmp_path / 'new' / 'cost.json'
  result = command('--config=configs/rsn_unet.py:quick', '--size=64,32', '--channels=2',
                   f'--json={file}')
  assert (result.returncode, result.stderr) == (0, '')
  report = json.loads(file.read_text())
  model = models.create_model(report.pop('model'))
  expected = json.loads(json.dumps(cost.measure_cost(model, {'image': (64, 32, 2)}).to_json()))
  assert report['inputs'].keys() == {'image', 'table III'} and report['table_3'] == []
  assert report['parameters'] == expected['parameters']
  assert report['inputs']['image'] == expected['inputs']['image']
  for text in ('64x32x2', 'table III', 'convolution modules', 'matrix products',
               f'{report["parameters"]["total"]:,}', 'kept for backward'):
    assert text in result.stdout


@pytest.mark.parametrize('arguments, sentence', [
    ([], '--config=CONFIG is needed'),
    (['--config=configs/seam.py', '--size=0,5'], '--size must be 2 positive whole numbers'),
    (['--config=configs/seam.py', '--json=.'], '--json must be a file'),
])
def test_errors_are_one_sentence(arguments, sentence):
  result = command(*arguments)
  assert result.returncode == 1 and result.stdout == ''
  assert len(result.stderr.splitlines()) == 1 and f'error: {sentence}' in result.stderr
