"""Runs that are disturbed end as if nothing had happened, to the bit, or say in a sentence why not.

More and longer: python -m tests.faults.campaign.
"""
import contextlib
import dataclasses
import datetime
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from spinejax import checkpoints, logs, runs, train, interrupts
from tests import tiny
from tests.faults import campaign

pytestmark = [pytest.mark.xdist_group('test_faults'),
              pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')]


OVERRIDES = {'num_steps': 5, 'ema_decay': 0.5, 'data.image_size': (32, 32), 'data.num_test': 1}


def make_config(**overrides):
  return tiny.tiny_config(**OVERRIDES, **overrides)


def rows_of(workdir):
  return [{name: value for name, value in row.items() if name != 'images_per_second'}
          for row in logs.read_metrics(workdir)]


def assert_equal_runs(state, workdir, undisturbed):
  other, folder = undisturbed
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(other))
  assert rows_of(workdir) == rows_of(folder)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """The state and the folder of a run that saved after steps 2, 4 and 5."""
  workdir = tmp_path_factory.mktemp('undisturbed')
  return train.train(make_config(), str(workdir)), workdir


@pytest.fixture(scope='module')
def half(tmp_path_factory):
  """The folder of such a run, stopped by SIGTERM after step 3: it saved after steps 2 and 3."""
  workdir = tmp_path_factory.mktemp('half')
  write = logs.MetricsLog.write

  def write_and_stop(log, step, phase, values):
    write(log, step, phase, values)
    if (step, phase) == (2, 'train'):
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.05)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(logs.MetricsLog, 'write', write_and_stop)
    with pytest.raises(interrupts.Interrupted, match='the same command resumes'):
      train.train(make_config(), str(workdir))
  assert campaign.steps_of(workdir) == [2, 3]
  return workdir


@pytest.fixture
def copy(half, tmp_path):
  return pathlib.Path(shutil.copytree(half, tmp_path / 'run'))


@contextlib.contextmanager
def no_files_above(size):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_run_killed_in_a_save_resumes(tmp_path, undisturbed):
  workdir, config = tmp_path / 'run', campaign.write_config(tmp_path / 'config.py', **OVERRIDES)
  command = [sys.executable, '-m', 'spinejax.main', f'--config={config}', f'--workdir={workdir}']
  environment = {**os.environ, 'PYTHONPATH': str(tiny.ROOT), 'JAX_NUM_CPU_DEVICES': '2'}
  rng = np.random.default_rng(0)
  process = subprocess.Popen(command, cwd=tiny.ROOT, env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
  assert campaign.wait_for(process, lambda: campaign.is_saving(workdir))
  time.sleep(rng.uniform(0, 0.3))
  process.kill()
  assert process.communicate()[1] == b''
  assert_equal_runs(train.train(make_config(), str(workdir)), workdir, undisturbed)
  assert not campaign.is_saving(workdir)


@pytest.mark.parametrize('name, kind', [
    ('variables/ocdbt.process_0/manifest.ocdbt', 'flip'), ('training/_METADATA', 'flip'),
    ('variables/ocdbt.process_0/d/*', 'flip'), ('training/ocdbt.process_0/d/*', 'cut'),
    ('digests.json', 'cut')])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(
    copy, capsys, name, kind):
  path = sorted((copy / 'checkpoints' / '3').glob(name))[0]
  campaign.damage(path, kind, np.random.default_rng(3))
  sentence, = checkpoints.set_aside_damaged(str(copy))
  assert sentence.startswith('The checkpoint of step 3 is damaged (')
  assert campaign.steps_of(copy) == [2]
  assert (copy / 'checkpoints' / '3.damaged').is_dir()


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(copy, undisturbed, capsys):
  path = max((copy / 'checkpoints' / '3' / 'training').rglob('d/*'),
             key=lambda path: path.stat().st_size)
  campaign.damage(path, 'flip', np.random.default_rng(0))
  step = checkpoints.restore_variables(copy, undisturbed[0].variables, which='last')[1]
  assert step == 3  # its variables are whole
  state = train.train(make_config(), str(copy))
  captured = capsys.readouterr()
  assert 'The checkpoint of step 3 is damaged' in captured.err
  assert len(captured.err.splitlines()) == 1 and 'Resuming after step 2.' in captured.out
  assert_equal_runs(state, copy, undisturbed)


@pytest.mark.parametrize('which, damaged, taken', [('last', 3, 2), ('best', 2, 3)])
def test_inference_takes_another_checkpoint_and_says_so(
    copy, undisturbed, capsys, which, damaged, taken):
  folder = copy / 'checkpoints' / str(damaged) / 'variables'
  campaign.damage(sorted(folder.rglob('d/*'))[0], 'flip', np.random.default_rng(0))
  step = checkpoints.restore_variables(copy, undisturbed[0].variables, which=which)[1]
  assert step == taken
  said, = capsys.readouterr().err.splitlines()
  assert 'is damaged' in said and said.endswith(
      f'The checkpoint of step {taken} is restored instead.')
  assert campaign.steps_of(copy) == [2, 3]  # nothing is moved


def test_without_a_whole_checkpoint_one_sentence_says_so(copy):
  for step in campaign.steps_of(copy):
    path = campaign.files_of(copy, step)[0]
    campaign.damage(path, 'flip', np.random.default_rng(0))
  with pytest.raises(ValueError, match='all checkpoints in .* are damaged') as error:
    train.train(make_config(), str(copy))
  assert len(str(error.value).splitlines()) == 1
  assert campaign.steps_of(copy) == [2, 3]


def test_a_damaged_score_does_not_choose_the_best(copy, undisturbed):
  (copy / 'checkpoints' / '2' / 'metrics' / 'metrics').write_text('{"score": [')
  step = checkpoints.restore_variables(copy, undisturbed[0].variables)[1]
  assert step == 3
  assert 'The checkpoint of step 2 is damaged' in checkpoints.set_aside_damaged(str(copy))[0]


def test_a_full_disk_is_one_sentence_and_the_run_resumes(copy, undisturbed):
  with no_files_above(900), pytest.raises(OSError, match='cannot be written .*make room') as error:
    train.train(make_config(), str(copy))
  assert len(str(error.value).splitlines()) == 1
  assert_equal_runs(train.train(make_config(), str(copy)), copy, undisturbed)


def test_a_save_without_room_leaves_the_checkpoints_before(copy, undisturbed):
  state = undisturbed[0]
  with (contextlib.closing(checkpoints.create_manager(copy)) as manager, no_files_above(300),
        pytest.raises(OSError, match='step 5 could not be written') as error):
    checkpoints.save(manager, state, config={}, dataset={}, score=None)
  assert len(str(error.value).splitlines()) == 1
  assert campaign.steps_of(copy) == [2, 3]
  assert checkpoints.restore_variables(copy, state.variables, which='last')[1] == 3


def test_a_file_in_the_place_of_the_checkpoints_is_one_sentence(tmp_path):
  (tmp_path / 'checkpoints').write_text('')
  with pytest.raises(OSError, match='checkpoints in .* cannot be opened') as error:
    checkpoints.create_manager(tmp_path)
  assert len(str(error.value).splitlines()) == 1


def test_a_second_process_in_a_folder_is_refused(copy):
  with runs.locked(str(copy)):
    with pytest.raises(ValueError, match=rf'another process \({os.getpid()} on .*choose another'):
      train.train(make_config(), str(copy))


def test_a_preempted_run_ends_bitwise_the_same_whatever_the_clock_says(
    copy, undisturbed, monkeypatch):
  """The clock jumps back by 30 years and to and fro; the later a file, the older it seems."""
  for number, path in enumerate(sorted(copy.rglob('*'))):
    os.utime(path, (10**9 - number * 10**6,) * 2)

  class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
      return cls(1996, 1, 1, tzinfo=tz)

  jumps = iter(np.random.default_rng(0).uniform(0, 2e9, 10**6))
  monkeypatch.setattr(time, 'time', lambda: next(jumps))
  monkeypatch.setattr(datetime, 'datetime', Clock)
  state = train.train(make_config(), str(copy))
  monkeypatch.undo()
  assert_equal_runs(state, copy, undisturbed)
  assert campaign.steps_of(copy)[-2:] == [4, 5]
  assert runs.read_manifest(copy)['starts'][-1]['date'].startswith('1996')


def with_nan_at(steps, monkeypatch):
  """Training batches of floats, all NaN at some steps."""
  set_up = train.set_up

  def set_up_with_nan(*args):
    setup = set_up(*args)

    def batch_at(step):
      batch = setup.feed.batch_at(step)
      factor = np.float32(np.nan if step in steps else 1)
      return {**batch, 'image': batch['image'].astype(np.float32) * factor}

    return dataclasses.replace(setup, feed=setup.feed._replace(batch_at=batch_at))

  monkeypatch.setattr(train, 'set_up', set_up_with_nan)


def test_steps_with_nan_are_skipped_and_counted_and_too_many_stop_the_run(tmp_path, monkeypatch):
  with_nan_at({1, 3, 4}, monkeypatch)
  with pytest.raises(ValueError, match=r'2 steps in a row up to step 5 \(cases phantom_'):
    train.train(make_config(max_skipped_steps=2), str(tmp_path))
  rows = [row for row in rows_of(tmp_path) if row['phase'] == 'train']
  assert [row['skipped'] for row in rows] == [0, 1, 0, 1, 2]
  assert [row['loss'] is None for row in rows] == [False, True, False, True, True]
  assert campaign.steps_of(tmp_path) == [2, 4]
  for item in ('variables', 'training'):
    tree = ocp.StandardCheckpointer().restore(tmp_path / 'checkpoints' / '4' / item)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
