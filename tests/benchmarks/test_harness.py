"""The benchmark: its protocol, its rows, the comparison before the timing. No time is judged."""
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import harness, layer_forms, pieces, plain_side, spinejax_side, systems, worker
from spinejax.models import cpu_kernels
from tests import processes, tiny

# An interpreter with PyTorch, by default this one if it has it.
TORCH_PYTHON = os.environ.get('SPINEJAX_TORCH_PYTHON') or (
    sys.executable if importlib.util.find_spec('torch') else None)
MACHINE = harness.Machine('cpu', None, '', {'float32': 1e9}, {'device': 'a processor'})
CHANNEL = {'offset': np.float32([0.1] * 8), 'attention.gamma': np.float32(0.5)}


@pytest.fixture
def ask():
  """The side of spinejax within this process."""
  answer = worker.create_answer({**spinejax_side.OPS, **pieces.OPS})

  def ask(op, **request):
    reply = json.loads(json.dumps(answer({'op': op, **request})))
    if 'error' in reply:
      raise worker.WorkerError(reply['error'])
    return reply

  return ask


@pytest.fixture
def build(ask, tmp_path):
  """`build(phase, **weights)`: what the channel attention of these weights gives."""
  harness.write_inputs(tmp_path / 'inputs.npz', 'channel', 'tiny')

  def build(phase, **weights):
    np.savez(tmp_path / 'weights.npz', **{**CHANNEL, **weights})
    built = ask('build', system='channel', size='tiny', phase=phase, dtype='float32',
                inputs=str(tmp_path / 'inputs.npz'), weights=str(tmp_path / 'weights.npz'),
                outputs=str(tmp_path / 'logits.npy'))
    return np.load(tmp_path / 'logits.npy') if phase == 'forward' else built

  return build


def channel_attention(image, gamma, offset):
  """DANet's, in NumPy."""
  x = image.astype(np.float64) + offset
  flat = x.reshape(len(x), -1, x.shape[-1])
  energy = np.einsum('npi,npj->nij', flat, flat)
  weights = np.exp(-energy)
  weights /= weights.sum(-1, keepdims=True)
  return x + gamma * np.einsum('nij,npj->npi', weights, flat).reshape(x.shape)


def test_forward_computes_what_the_weights_say(build, tmp_path):
  image = np.load(tmp_path / 'inputs.npz')['image']
  expected = channel_attention(image, 0.5, CHANNEL['offset'])
  assert harness.relative_error(build('forward'), expected) < 1e-6
  changed = build('forward', **{'attention.gamma': np.float32(0.6)})
  error = harness.relative_error(changed, expected)
  assert error > 10 * harness.TOLERANCE['float32']


def test_a_step_tells_loss_and_gradient(build, ask, tmp_path):
  first = build('train')
  image = np.load(tmp_path / 'inputs.npz')['image']
  half_square = lambda gamma, offset: np.mean(channel_attention(image, gamma, offset) ** 2) / 2
  assert first['loss'] == pytest.approx(half_square(0.5, CHANNEL['offset']), rel=1e-5)
  step, slopes = 1e-5, []
  for direction in np.eye(9):
    moved = [half_square(0.5 + sign * step * direction[0],
                         CHANNEL['offset'] + sign * step * direction[1:]) for sign in (1, -1)]
    slopes.append((moved[0] - moved[1]) / (2 * step))
  assert first['grad_norm'] == pytest.approx(np.linalg.norm(slopes), rel=1e-4)
  assert first['parameters'] == 9
  assert first['multiply_adds'] == 2 * 24 * 8 * 8  # of 24 pixels, energy and mix of 8 channels
  assert set(ask('run', name='', calls=2, warm=1)) == {'wall', 'cpu'}
  assert ask('memory')['peak_bytes'] >= 0


def test_relative_error():
  assert harness.relative_error([3.0, 4.5], [3.0, 4.0]) == pytest.approx(0.1)
  assert harness.relative_error(np.zeros(2), np.zeros(3)) == math.inf
  assert harness.relative_error(np.nan, 1.0) == math.inf
  assert harness.relative_error(1.0, np.nan) == math.inf


def test_sides_that_differ_fail_in_words(monkeypatch, build, ask, tmp_path):
  """Two sides of which one has another gamma: a row that is not timed."""
  logits = build('forward', **{'attention.gamma': np.float32(0.6)})

  def other(op, **request):
    if op == 'write_weights':
      np.savez(request['path'], **CHANNEL)
      return {}
    assert op == 'build'  # nothing else is asked of it
    np.save(request['outputs'], logits)
    return {'form': 'contiguous', 'forms': {}, 'compile_seconds': 0.0}

  class Both:
    def __enter__(self):
      return {'spinejax': ask, 'torch': other}

    def __exit__(self, *exception):
      return False

  monkeypatch.setattr(harness, '_sides', lambda torch_python, plain: Both())
  row, = harness.measure_system(MACHINE, 'channel', ['forward'], 'tiny', repeats=1, compiled=False)
  assert row['status'] == 'failed' and 'sides' not in row
  assert row['reason'].startswith(
      'not timed, because the sides do not compute the same: spinejax'
      ' differs by')
  assert row['errors']['logits of torch'] > row['tolerance']


def test_rows_of_spinejax_alone():
  row, = harness.measure_system(MACHINE, 'channel', ['forward'], 'tiny', repeats=2, compiled=True)
  assert row == json.loads(json.dumps(row, allow_nan=False))
  assert row['status'] == 'ok' and row['errors'] == {} == row['ratios']
  assert (row['system'], row['phase'], row['dtype'], row['size'], row['repeats']) == (
      'channel', 'forward', 'float32', 'tiny', 2)
  assert row['shape'] == list(systems.SYSTEMS['channel'].shapes['tiny'])
  assert row['flops'] == 2 * 2 * 24 * 8 * 8
  assert {'load', 'date', 'device', 'parameters', 'peak_flops_per_second'} <= set(row)
  facts, = row['sides'].values()
  assert 0 < facts['wall_min'] <= facts['wall_median'] and facts['compile_seconds'] > 0
  assert facts['flops_per_second'] == pytest.approx(row['flops'] / facts['wall_median'])
  assert facts['share_of_peak'] == pytest.approx(facts['flops_per_second'] / 1e9)
  assert {'cpu_median', 'peak_bytes', 'calls'} <= set(facts)


def test_errors_of_a_process_are_sentences():
  with worker.started('torch' if TORCH_PYTHON is None else 'spinejax') as ask:
    sentence = 'torch' if TORCH_PYTHON is None else 'nowhere.npz'
    with pytest.raises(worker.WorkerError, match=sentence):
      ask('build', system='unet', size='tiny', phase='forward', dtype='float32',
          inputs='nowhere.npz', weights=None, outputs='nowhere.npy')
  with pytest.raises(worker.WorkerError, match='cannot be started'), worker.started('torch', '/no'):
    pass
  with worker.started('spinejax', 'false') as ask:  # a program that ends at once
    with pytest.raises(worker.WorkerError, match="ended with status 1 in 'describe'"):
      ask('describe')


def test_components_are_those_of_scipy(ask, tmp_path):
  built = ask('build_piece', piece='components', size='tiny', folder=str(tmp_path))
  assert built['names'] == ['spinejax', 'scipy'] and built['distance'] == 0


def test_every_system_has_its_shapes():
  for name, system in systems.SYSTEMS.items():
    assert set(system.shapes) == {*systems.SIZES, 'tiny'}, name
    for size in system.shapes:
      spinejax_side.create_network(name, size, 'float32')


def test_the_verb_needs_the_repository(tmp_path):
  """In a clone `spinejax bench` is `python -m benchmarks`; without one it is one sentence."""
  help_texts = [processes.call('-m', *command, '--help').stdout
                for command in (['spinejax', 'bench'], ['benchmarks'])]
  assert help_texts[0] == help_texts[1] and '--torch_python' in help_texts[0]
  shutil.copytree(tiny.ROOT / 'spinejax', tmp_path / 'spinejax', ignore=shutil.ignore_patterns(
      '__pycache__'))
  alone = subprocess.run(
      [sys.executable, '-m', 'spinejax', 'bench', '--systems=unet'], cwd=tmp_path, text=True,
      env={**os.environ, 'PYTHONPATH': str(tmp_path)}, capture_output=True, timeout=60)
  assert (alone.returncode, alone.stdout) == (1, '') and len(alone.stderr.splitlines()) == 1
  assert 'part of the repository, not of the package' in alone.stderr


@pytest.mark.parametrize('flag, words', [
    ('--systems=unet,vnet', "--systems takes unet, unet_3d, fpn"),
    ('--phases=backward', "--phases takes forward, train, not 'backward'"),
    ('--output=/nowhere/bench.jsonl', '--output must be a file in a folder that exists'),
    ('--repeats=0', 'repeats')])
def test_wrong_flags_are_a_sentence(flag, words):
  done = processes.call('-m', 'benchmarks', flag)
  assert done.returncode in (1, 2) and not done.stdout
  assert done.stderr.startswith('error: ') and words in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(TORCH_PYTHON is None, reason='PyTorch is not there')
@pytest.mark.parametrize('name', ['unet', 'criss_cross'])
def test_both_sides_compute_the_same(name):
  machine = dataclasses.replace(MACHINE, torch_python=TORCH_PYTHON)
  for row in harness.measure_system(machine, name, systems.PHASES, 'tiny', repeats=1,
                                    compiled=False):
    assert row['status'] == 'ok', row['reason']
    assert max(row['errors'].values()) < 1e-5
    assert set(row['sides']) == {'spinejax', 'torch'} and row['ratios']['torch'] > 0
    assert row['sides']['torch']['form'] in ('contiguous', 'channels_last')


def test_plain_flax_computes_the_same_of_other_operations(monkeypatch, tmp_path):
  """Every form is replaced, and what networks compute stays as it is."""
  image = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
  networks = {name: spinejax_side.create_network(name, 'tiny', 'float32')
              for name in ('unet', 'xray_unet')}

  def outputs_and_primitives(network):
    variables = spinejax_side.load_variables(network, image.shape, None)
    apply = lambda image: network.apply(variables, image, train=False)['logits']
    return apply(image), str(jax.make_jaxpr(apply)(image))

  before = {name: outputs_and_primitives(network) for name, network in networks.items()}
  monkeypatch.setattr(cpu_kernels, 'dispatch', plain_side.native_only)
  jax.clear_caches()  # `max_pool` is compiled with the form of its first call
  for name, network in networks.items():
    logits, program = outputs_and_primitives(network)
    assert harness.relative_error(logits, before[name][0]) < 1e-5
    assert 'platform_index' in before[name][1] and 'platform_index' not in program
  jax.clear_caches()


def test_plain_flax_is_a_side():
  row, = harness.measure_system(MACHINE, 'unet', ['train'], 'tiny', repeats=1, compiled=False,
                                plain=True)
  assert row['status'] == 'ok' and set(row['sides']) == {'spinejax', 'plain'}
  assert max(row['errors'].values()) < 1e-4 and row['ratios']['plain'] > 0


@pytest.mark.parametrize('name', layer_forms.LAYERS)
def test_a_layer_and_its_plain_form_compute_the_same(name):
  programs, distance = layer_forms.build(name, shrink=16)
  assert list(programs) == ['spinejax', 'plain'] and distance < 1e-5
