"""Two processes train as one, by hand and through the Slurm job; when one dies the other ends."""
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from spinejax import checkpoints
from spinejax import cli
from spinejax import logs
from spinejax import train
from tests import tiny

FIELDS = {
    'num_steps': 4, 'num_epochs': 0, 'batch_size': 2, 'eval_batch_size': 1, 'log_every': 1,
    'eval_every': 2, 'optimizer.name': 'sgd', 'model.features': 4, 'data.num_train': 4,
    'data.num_validation': 3, 'data.num_test': 2, 'data.image_size': (64, 32),
    'data.patch_size': (32, 32), 'data.render_size': (96, 48)}
FLAGS = ['--config=configs/rsn_unet.py:quick',
         *(f'--config.{name}={value}' for name, value in FIELDS.items())]
SRUN = """#!/usr/bin/env bash
# Stands in for srun: two tasks on this machine.
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
  tasks+=($!)
done
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit "$status"
"""


def environment(**variables) -> dict[str, str]:
  return {**os.environ, 'JAX_NUM_CPU_DEVICES': '1', 'JAX_PLATFORMS': 'cpu',
          'PYTHONPATH': str(tiny.ROOT), **variables}


def free_port(first: int) -> int:
  for port in range(first, 65536):
    with socket.socket() as probe:
      try:
        probe.bind(('', port))
      except OSError:
        continue
      return port
  raise RuntimeError('no port is free')


def write_script(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def call_job(tmp_path, srun: str, *arguments: str, **variables) -> subprocess.CompletedProcess:
  """launch/slurm.sh with this Python as its environment and `srun` first on PATH."""
  venv, commands = tmp_path / 'venv', tmp_path / 'commands'
  write_script(venv / 'bin' / 'python', f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  version = subprocess.run([sys.executable, '--version'], capture_output=True, text=True,
                           check=True).stdout.strip()
  stamp = [version, str(tiny.ROOT), (tiny.ROOT / 'pyproject.toml').read_text().rstrip('\n'),
           (tiny.ROOT / 'launch' / 'constraints.txt').read_text()]
  (venv / 'installed').write_text('\n'.join(stamp))
  write_script(commands / 'srun', srun)
  write_script(commands / 'squeue', '#!/bin/sh\necho "${STATE:-RUNNING}"\n')
  write_script(commands / 'scontrol', f'#!/bin/sh\necho "$@" > {tmp_path}/scontrol\n')
  port = free_port(61440)  # JAX takes port 61440 + job id modulo 4096
  return subprocess.run(
      ['bash', 'launch/slurm.sh', *arguments], cwd=tiny.ROOT, capture_output=True, text=True,
      timeout=300, check=False, env=environment(
          SPINEJAX_VENV=str(venv), SPINEJAX_PYTHON=sys.executable, SPINEJAX_EXTRAS='',
          SLURM_JOB_ID=str(port - 61440), PATH=f'{commands}:{os.environ["PATH"]}', **variables))


def test_the_slurm_job_trains_two_processes_like_one(tmp_path):
  job = call_job(tmp_path, SRUN, *FLAGS, f'--workdir={tmp_path / "two"}')
  assert job.returncode == 0, job.stderr
  assert 'on 2 of 2 cpu devices' in job.stdout
  assert job.stdout.count('Report: ') == 1  # one of them writes
  config = cli.load_config(f'{tiny.ROOT}/configs/rsn_unet.py:quick')
  config.update_from_flattened_dict(FIELDS)
  one = train.train(config, str(tmp_path / 'one'))
  two, step = checkpoints.restore_variables(tmp_path / 'two', one.variables, which='last')
  assert step == 4
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
               jax.device_get(one.variables), jax.device_get(two))
  rows = [logs.read_metrics(tmp_path / name) for name in ('one', 'two')]
  assert len(rows[0]) == len(rows[1]) == 6
  for a, b in zip(*rows):
    assert a.pop('phase') == b.pop('phase')
    a.pop('images_per_second', 0), b.pop('images_per_second', 0)
    assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
  assert len(json.loads((tmp_path / 'two' / 'manifest.json').read_text())['starts']) == 1
  assert (tmp_path / 'two' / 'test_metrics.json').is_file()


@pytest.mark.parametrize('status, state, queued', [
    (130, 'RUNNING', True), (130, 'CANCELLED', False), (1, 'RUNNING', False)])
def test_a_job_stopped_by_its_time_limit_is_queued_again(tmp_path, status, state, queued):
  job = call_job(tmp_path, f'#!/bin/sh\nexit {status}\n', FLAGS[0], STATE=state)
  assert job.returncode == status
  assert (tmp_path / 'scontrol').exists() == queued


def test_a_killed_process_ends_the_other_with_one_sentence(tmp_path):
  port = free_port(41000 + os.getpid() % 10000)
  command = [sys.executable, '-m', 'spinejax.main', *FLAGS, f'--workdir={tmp_path / "run"}',
             '--mode=train', '--config.num_steps=100000', '--config.eval_every=100000',
             '--multihost', f'--coordinator=127.0.0.1:{port}', '--num_processes=2']
  first, second = (subprocess.Popen(
      [*command, f'--process_id={index}'], cwd=tiny.ROOT, env=environment(), text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE) for index in range(2))
  try:
    assert any(line.startswith('step ') for line in first.stdout)
    second.kill()
    killed = time.monotonic()
    _, errors = first.communicate(timeout=60)
  finally:
    first.kill(), second.kill()
  assert time.monotonic() - killed < 60 and first.returncode == 1
  said = [line for line in errors.splitlines() if not line.startswith('[Gloo]')]
  assert len(said) == 1 and said[0].startswith('error: process 0 of 2 stopped'), errors
