"""Two processes train as one through the Slurm job; when one is killed the next job resumes."""
import json
import os
import socket
import subprocess

import jax
import numpy as np
import pytest

from spinejax import checkpoints
from spinejax import config as config_lib
from spinejax import logs, multihost, steps, train
from tests import processes, tiny

pytestmark = pytest.mark.xdist_group('test_multihost')  # one pair of processes at a time
CONFIG = """import os
import signal

from spinejax import logs
from tests import tiny

VARIANTS = {}


def get_config():
  return tiny.tiny_config(**{
      'optimizer.name': 'sgd', 'data.image_size': (32, 32),
      'data.num_test': 1}).lock()


def write_or_be_killed(log, step, *rest):
  if (step, os.environ['SLURM_PROCID']) == (3, os.environ['VICTIM']):
    os.kill(os.getpid(), signal.SIGKILL)
  write(log, step, *rest)


write = logs.MetricsLog.write
if 'VICTIM' in os.environ:
  logs.MetricsLog.write = write_or_be_killed
"""
SRUN = """
# Stands in for srun: two tasks on this machine, and the highest of their exit statuses.
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
  tasks+=($!)
done
exec 2> /dev/null
highest=0
for task in "${tasks[@]}"; do
  status=0
  wait "$task" || status=$?
  highest=$((status > highest ? status : highest))
done
exit "$highest"
"""


def free_port(first: int) -> int:
  for port in range(first, 65536):
    with socket.socket() as probe:
      try:
        probe.bind(('', port))
      except OSError:
        continue
      return port
  raise RuntimeError('no port is free')


def call_job(tmp_path, srun: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
  """launch/slurm.sh with `srun` first on PATH."""
  environment = processes.write_cluster(
      tmp_path, srun=srun, squeue='echo "${STATE:-RUNNING}"',
      scontrol=f'echo "$@" > {tmp_path}/scontrol')
  port = free_port(61440)  # JAX takes port 61440 + job id modulo 4096
  return subprocess.run(
      ['bash', 'launch/slurm.sh', *arguments], cwd=tiny.ROOT, capture_output=True, text=True,
      timeout=200, check=False, env={
          **os.environ, 'JAX_NUM_CPU_DEVICES': '1', 'PYTHONPATH': str(tiny.ROOT), **environment,
          'SLURM_JOB_ID': str(port - 61440), **variables})


def test_after_a_killed_process_the_next_job_ends_as_if_nothing_had_happened(tmp_path):
  config = tmp_path / 'tiny.py'
  config.write_text(CONFIG)
  two = tmp_path / 'two'
  flags = [f'--config={config}', f'--workdir={two}']

  killed = call_job(tmp_path, SRUN, *flags, VICTIM='1')
  assert killed.returncode == 137
  last_words, = killed.stderr.splitlines()
  assert last_words.startswith('error: process 0 of 2 stopped because another process ended')
  assert logs.read_metrics(two)[-1]['step'] == 3
  assert not (tmp_path / 'scontrol').exists()

  job = call_job(tmp_path, SRUN, *flags)
  assert job.returncode == 0, job.stderr
  assert 'on 2 of 2 cpu devices' in job.stdout
  assert job.stdout.count('Resuming after step 2.') == job.stdout.count('Report: ') == 1
  assert len(json.loads((two / 'manifest.json').read_text())['starts']) == 2
  assert (two / 'test_metrics.json').is_file()

  undisturbed = train.train(config_lib.load_config(str(config)), str(tmp_path / 'one'))
  variables, step = checkpoints.restore_variables(two, undisturbed.variables, which='last')
  assert step == 4
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
               jax.device_get(undisturbed.variables), jax.device_get(variables))
  rows = [logs.read_metrics(tmp_path / name) for name in ('one', 'two')]
  assert len(rows[0]) == len(rows[1]) == 6
  for a, b in zip(*rows):
    assert a.pop('phase') == b.pop('phase')
    a.pop('images_per_second', 0), b.pop('images_per_second', 0)
    assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize('status, state, queued', [
    (130, 'RUNNING', True), (143, 'RUNNING', True), (130, 'CANCELLED', False),
    (1, 'RUNNING', False)])
def test_a_job_stopped_by_its_time_limit_is_queued_again(tmp_path, status, state, queued):
  srun = f'kill -TERM $PPID\nexit {status}'
  job = call_job(tmp_path, srun, '--config=configs/seam.py:quick', STATE=state)
  assert job.returncode == status
  assert (tmp_path / 'scontrol').exists() == queued


def test_a_job_without_a_config_says_so(tmp_path):
  job = call_job(tmp_path, SRUN, '--workdir=run')
  assert job.returncode == 2 and job.stderr.startswith('error: --config=CONFIG is needed')


def test_processes_have_equal_parts_of_a_mesh():
  class Device:
    def __init__(self, process_index):
      self.process_index = process_index

  devices = [Device(index) for index in (0, 0, 0, 1, 1)]
  mesh = lambda size, image=(): steps.create_mesh(size, image, devices)
  grid = lambda *args: [[devices.index(d) for d in row] for row in mesh(*args).devices]
  assert grid(4) == [[0], [1], [3], [4]]
  assert grid(2) == [[0], [3]]
  assert grid(2, (8, 8, 8)) == [[0, 1], [3, 4]]
  with pytest.raises(ValueError, match='batch_size 3 is not a multiple of the 2 processes'):
    mesh(3)


def test_a_process_that_cannot_join_says_what_to_give(monkeypatch):
  for name in ('SLURM_JOB_ID', 'OMPI_MCA_orte_hnp_uri', 'JAX_COORDINATOR_ADDRESS'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(multihost.faulthandler, 'disable', lambda: None)
  with pytest.raises(ValueError, match='give --coordinator=HOST:PORT'):
    with multihost.joined_processes():
      pass
