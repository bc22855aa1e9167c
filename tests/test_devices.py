"""A whole run is the same on 1, 2 and 4 devices, in both data-parallel forms.

Training with batch norm, validation and test with a last batch that is padded; `main` is the other
process, which has four devices.
"""
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import tiny

pytestmark = pytest.mark.xdist_group('test_devices')  # its runs are made once, by one worker
RUNS = [('mesh', 1), ('mesh', 2), ('mesh', 4), ('pmap', 4)]


def main(folder: str) -> None:
  """Trains, validates and tests a run for each of RUNS in `folder`, on that many devices."""
  from spinejax import evaluate, steps, train

  create_mesh, devices = steps.create_mesh, jax.devices()
  assert len(devices) == 4
  for form, count in RUNS:
    meshes = []

    def create(batch_size, image_size=(), _=None):
      meshes.append(create_mesh(batch_size, image_size, devices[:count]))
      return meshes[-1]

    steps.create_mesh = create
    # By SGD: Adam makes full steps of the rounding noise where a gradient is zero.
    config = tiny.tiny_config(**{
        'batch_size': 4, 'eval_batch_size': 4, 'num_steps': 3, 'eval_every': 3,
        'data_parallel': form, 'optimizer.name': 'sgd', 'optimizer.learning_rate': 0.3,
        'data.num_train': 8, 'data.num_validation': 6, 'data.num_test': 5,
        'data.image_size': (32, 32), 'angle.method': '', 'augment.rotation': 0.0,
        'augment.translation': 0.0, 'augment.scale': (1.0, 1.0)})
    workdir = pathlib.Path(folder, f'{form}_{count}')
    state = jax.device_get(train.train(config, str(workdir)))
    if form == 'mesh':
      evaluate.evaluate(config, str(workdir))
    assert {mesh.size for mesh in meshes} == {count}
    leaves = jax.tree_util.tree_leaves_with_path([state.params, state.batch_stats])
    np.savez(workdir / 'state.npz', **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('devices')
  result = subprocess.run(
      [sys.executable, '-c', 'import sys; from tests import test_devices as test; '
       'test.main(sys.argv[1])', str(folder)],
      cwd=tiny.ROOT, capture_output=True, text=True, timeout=300, check=False,
      env={**os.environ, 'PYTHONPATH': str(tiny.ROOT), 'JAX_NUM_CPU_DEVICES': '4',
           'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'})
  assert result.returncode == 0, result.stderr
  return folder


def assert_close(one, other):
  """Numbers in nested dicts and lists are equal to 1e-5, all else is the same."""
  if isinstance(one, (dict, list)):
    keys = one.keys() if isinstance(one, dict) else range(len(one))
    assert len(one) == len(other)
    for key in keys:
      assert_close(one[key], other[key])
  elif isinstance(one, float):
    assert other == pytest.approx(one, rel=1e-5, abs=1e-5)
  else:
    assert one == other


@pytest.mark.parametrize('form, count', RUNS[1:])
def test_parameters_and_metrics_are_those_of_one_device(finished, form, count):
  one, other = finished / 'mesh_1', finished / f'{form}_{count}'
  states = [np.load(folder / 'state.npz') for folder in (one, other)]
  assert any('mean' in name for name in states[0].files)  # of batch norm
  for name in states[0].files:
    np.testing.assert_allclose(states[1][name], states[0][name], rtol=1e-5, atol=1e-5)
  rows = [[json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
          for folder in (one, other)]
  assert [row['phase'] for row in rows[0]] == ['train'] * 3 + ['validation']
  for a, b in zip(*rows, strict=True):
    assert_close(*({**row, 'images_per_second': 0} for row in (a, b)))


@pytest.mark.parametrize('count', [2, 4])
def test_the_test_table_is_that_of_one_device(finished, count):
  tables = [json.loads((finished / f'mesh_{n}' / 'test_metrics.json').read_text())
            for n in (1, count)]
  assert len(tables[0]['cases']) == 5 and abs(tables[0]['auc']['bone'] - 0.5) > 0.01
  assert_close(*tables)
