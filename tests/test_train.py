"""Whole runs on tiny phantoms and folders: report, exact resume, faults in one sentence."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
from PIL import Image
import pytest
from rich.console import Console

from spinejax import evaluate, interrupts, logs
from spinejax.inference import load
from spinejax import runs, train
from spinejax.metrics.results import TestResult as Result
from spinejax.report import pages
from tests import processes, tiny
from tests.readers import folders


pytestmark = pytest.mark.xdist_group('test_train')  # its runs are made once, by one worker


def folder_config(directory, **overrides):
  return tiny.tiny_config(**{
      'data.name': 'folder', 'data.directory': str(directory), 'data.label_map': (),
      'data.num_train': 0, 'data.num_validation': 1, 'data.num_test': 2, **overrides})


def train_and_test(config, workdir: str) -> dict:
  """What the command does; the content of test_metrics.json."""
  train.train(config, workdir)
  evaluation = evaluate.evaluate(config, workdir)
  pages.report_run(workdir, config, evaluation)
  return json.loads(json.dumps(evaluation.result.to_json()))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """One run to its end, and its test metrics."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config()
  return config, workdir, train_and_test(config, str(workdir))


def assert_states_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_a_run_leaves_everything_behind(finished):
  config, workdir, results = finished
  stored = json.loads((workdir / 'test_metrics.json').read_text())
  assert stored == results
  assert set(stored) >= {'per_image', 'pooled', 'cases', 'auc', 'step'} and stored['step'] in (2, 4)
  for table in (stored['per_image'], stored['pooled'], *stored['cases'].values()):
    for metric in ('dice', 'iou', 'recall', 'precision', 'accuracy'):
      assert {'mean_foreground', 'mean_all'} <= set(table[metric])
  names = json.loads((workdir / 'dataset.json').read_text())['split']['test']
  assert list(stored['cases']) == names and len(names) == 3
  for name in names:
    mask = np.asarray(Image.open(workdir / 'predictions' / f'{name}.png'))
    assert mask.shape == (96, 48) and mask.max() <= 1
  page = (workdir / 'report' / 'index.html').read_text()
  assert 'phantom' in page and 'not a medical device' in page
  assert runs.load_config(workdir).to_dict() == config.to_dict()
  steps = [row['step'] for row in logs.read_metrics(workdir) if row['phase'] == 'train']
  assert steps == [1, 2, 3, 4]
  assert len([row for row in logs.read_metrics(workdir) if row['phase'] == 'validation']) == 2
  durations = runs.read_manifest(workdir)['durations']
  assert set(durations) == {
      'start', 'first step', 'training', 'validation', 'checkpoints', 'test'}
  assert all(seconds > 0 for seconds in durations.values()) and 'Durations' in page


def test_the_test_table_is_that_of_the_written_masks(finished):
  config, workdir, results = finished
  from spinejax.data import datasets
  test = datasets.load_dataset(config.data)['test']
  for i, name in enumerate(test.names):
    mask = np.asarray(Image.open(workdir / 'predictions' / f'{name}.png')) > 0
    truth = test[i].label > 0
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert results['cases'][name]['dice']['mean_foreground'] == pytest.approx(dice)


def test_evaluating_again_gives_the_same(finished):
  config, workdir, results = finished
  assert evaluate.evaluate(config, str(workdir)).result == Result.from_json(results)
  assert train.train(config, str(workdir)).step == 4  # nothing left to do


def test_resuming_is_bitwise(tmp_path, finished):
  config, _, _ = finished
  whole = train.train(tiny.tiny_config(ema_decay=0.5), str(tmp_path / 'whole'))
  # Stopped by a signal after step 2, in the middle of an evaluation period of its own.
  original, calls = train._mean_of_finite, []

  def interrupt_at_step_2(window):
    calls.append(window)
    if len(calls) == 2:
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.05)
    return original(window)

  patched = pytest.MonkeyPatch()
  patched.setattr(train, '_mean_of_finite', interrupt_at_step_2)
  try:
    with pytest.raises(interrupts.Interrupted, match='the same command resumes'):
      train.train(tiny.tiny_config(ema_decay=0.5), str(tmp_path / 'halves'))
  finally:
    patched.undo()
  halves = train.train(tiny.tiny_config(ema_decay=0.5), str(tmp_path / 'halves'))
  assert_states_equal(whole, halves)
  rows = [logs.read_metrics(tmp_path / name) for name in ('whole', 'halves')]
  without_time = [[{k: v for k, v in row.items() if k != 'images_per_second'} for row in part]
                  for part in rows]
  assert [r for r in without_time[0] if r['phase'] == 'train'] == [
      r for r in without_time[1] if r['phase'] == 'train']


def test_streaming_and_device_cache_train_alike(tmp_path):
  states = [train.train(tiny.tiny_config(**{'data.cache': cache}), str(tmp_path / cache))
            for cache in ('device', 'stream')]
  assert_states_equal(*states)


def test_a_changed_config_or_dataset_is_refused(tmp_path, finished):
  config, workdir, _ = finished
  changed = tiny.tiny_config(seed=5)
  for function in (train.train, evaluate.evaluate):
    with pytest.raises(ValueError, match='another config(?s:.)*seed: 0 there, 5 asked'):
      function(changed, str(workdir))
  folders.write_folder(tmp_path / 'data', 5, num_classes=2)
  config = folder_config(tmp_path / 'data', num_steps=2)
  train.train(config, str(tmp_path / 'run'))
  image = tmp_path / 'data' / 'images' / 'case_01.png'
  Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
  with pytest.raises(ValueError, match='another dataset(?s:.)*fingerprint'):
    train.train(config, str(tmp_path / 'run'))


def test_a_corrected_command_is_welcome_after_a_fault(tmp_path):
  workdir, data = tmp_path / 'run', tmp_path / 'data'
  with pytest.raises(FileNotFoundError):
    train.train(folder_config(tmp_path / 'typo'), str(workdir))
  folders.write_folder(data, 5, num_classes=2)
  assert train.train(folder_config(data, num_steps=2), str(workdir)).step == 2


def test_non_finite_steps_stop_the_run_with_the_cases(tmp_path):
  config = tiny.tiny_config(max_skipped_steps=2, **{'data.std': (1e-30,), 'data.mean': (3e38,)})
  with pytest.raises(ValueError, match=r'not finite in 2 steps .* step 2 \(cases phantom_'):
    train.train(config, str(tmp_path))


def test_background_only_masks_train_and_test_without_nan(tmp_path):
  folders.write_folder(tmp_path / 'data', 5, num_classes=2)
  for mask in (tmp_path / 'data' / 'masks').iterdir():
    Image.fromarray(np.zeros((64, 32), np.uint8)).save(mask)
  results = train_and_test(folder_config(tmp_path / 'data'), str(tmp_path / 'run'))
  losses = [row['loss'] for row in logs.read_metrics(tmp_path / 'run')]
  assert np.isfinite(losses).all()
  assert results['pooled']['recall']['bone'] is None
  assert results['auc']['bone'] is None


def test_a_folder_without_test_cases_trains_and_says_so(tmp_path, capsys):
  folders.write_folder(tmp_path / 'data', 3, num_classes=2)
  config = folder_config(tmp_path / 'data', num_steps=2, **{
      'data.num_test': 0, 'data.num_validation': 0})
  results = train_and_test(config, str(tmp_path / 'run'))
  assert results['cases'] == {} and 'no test cases' in capsys.readouterr().out
  assert (tmp_path / 'run' / 'report' / 'index.html').is_file()


def test_the_command_evaluates_a_run_without_its_config(finished):
  _, workdir, results = finished
  (workdir / 'test_metrics.json').unlink()
  result = processes.call('-m', 'spinejax', 'test', f'--workdir={workdir}')
  assert result.returncode == 0, result.stderr
  assert 'mean of the foreground' in result.stdout and 'Report: ' in result.stdout
  stored = json.loads((workdir / 'test_metrics.json').read_text())
  assert stored['pooled']['dice'] == pytest.approx(results['pooled']['dice'], abs=1e-3)


@pytest.mark.parametrize('module, arguments, sentence', [
    ('spinejax', ['test', '--workdir={tmp}/none'], 'holds no run'),
    ('spinejax.main', ['--workdir={tmp}/none'], '--config=CONFIG is needed'),
    ('spinejax.main', ['--config=configs/seam.py:quick', '--workdir=/proc/no/run'],
     'cannot be written'),
    ('spinejax.main', ['--config=configs/seam.py:quick', '--config.data.name=folder',
                       '--workdir={tmp}/a'], 'data.directory'),
    ('spinejax.main', ['--config=configs/seam.py:quick', '--config.data.name=folder',
                       '--config.data.directory={tmp}/none', '--workdir={tmp}/b'],
     'no such folder'),
    ('spinejax.main', ['--config=configs/seam.py:quick', '--config.model.name=unet',
                       '--workdir={tmp}/c'], 'unet has no such field'),
])
def test_wrong_input_is_one_sentence(tmp_path, module, arguments, sentence):
  result = processes.call('-m', module, *[a.format(tmp=tmp_path) for a in arguments])
  assert result.returncode == 1, result.stderr
  assert result.stderr.startswith('error: ') and sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1


def test_ctrl_c_saves_and_the_same_command_resumes(tmp_path):
  workdir = tmp_path / 'run'
  command = [sys.executable, '-m', 'spinejax.main', '--config=configs/rsn_unet.py:quick',
             f'--workdir={workdir}', '--notest', '--config.num_steps=100000',
             '--config.log_every=1', '--config.model.features=4', '--config.data.num_train=2',
             '--config.data.num_validation=0', '--config.data.num_test=0',
             '--config.data.image_size=(64,32)', '--config.data.patch_size=(32,32)',
             '--config.data.render_size=(64,32)']
  for _ in range(2):
    process = subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    killer = threading.Timer(240, process.kill)
    killer.start()
    lines = []
    for line in process.stdout:
      lines.append(line)
      if line.startswith('step ') and not any(old.startswith('step ') for old in lines[:-1]):
        process.send_signal(signal.SIGINT)
    killer.cancel()
    assert process.wait() == interrupts.EXIT_STATUS
    assert 'the state is saved' in process.stderr.read()
  assert any(line.startswith('Resuming after step') for line in lines)
  steps = [row['step'] for row in logs.read_metrics(workdir)]
  assert steps == list(range(1, len(steps) + 1))
  assert len(list(pathlib.Path(workdir, 'checkpoints').glob('[0-9]*'))) == 2


def test_checkpoint_of_another_network_is_explained(tmp_path, finished):
  _, workdir, _ = finished
  config = runs.load_config(workdir)
  config.model.features = 8
  copy = tmp_path / 'run'
  copy.mkdir()
  (copy / 'dataset.json').write_text((workdir / 'dataset.json').read_text())
  (copy / 'checkpoints').symlink_to(workdir / 'checkpoints')
  runs.write_json(copy / 'config.json', config)
  sentence = r'differing arrays:\n  variables/.*float32\[.* in the model'
  with pytest.raises(ValueError, match=sentence):
    load.load_predictor(str(copy))


def write_torch_weights(path, variables) -> None:
  """Variables of a U-Net as a PyTorch state dict would hold them."""
  leaves = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  arrays = {}
  for where, value in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
    _, *modules, leaf = [entry.key for entry in where]
    if leaf == 'kernel':
      value = value.transpose((2, 3, 0, 1) if modules[0].startswith('upsample') else (3, 2, 0, 1))
    arrays['.'.join([*modules, leaves.get(leaf, leaf)])] = value
  np.savez(path, **arrays)


def test_imported_weights_are_tested_as_they_are_and_trained_on(finished, tmp_path):
  config, workdir, results = finished
  predictor_variables = jax.device_get(train.set_up(config, Console(quiet=True)).state)
  trained = train.train(config, str(workdir))  # at its last step: what it holds
  weights = tmp_path / 'weights.npz'
  write_torch_weights(weights, trained.variables)
  same = tiny.tiny_config(init_from=str(weights), num_steps=0, ema_decay=0.5)
  imported = train.train(same, str(tmp_path / 'same'))
  assert_states_equal(imported.variables, trained.variables)
  assert_states_equal(imported.params, trained.params)
  assert int(imported.step) == 0
  last = evaluate.evaluate(config, str(workdir), checkpoint='last')
  assert evaluate.evaluate(same, str(tmp_path / 'same')).result.cases == last.result.cases
  moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)),
                       trained.params, predictor_variables.params)
  assert any(jax.tree.leaves(moved))
  # Further training starts there, and resumes without the file.
  more = tiny.tiny_config(init_from=str(weights), num_steps=2, ema_decay=0.5)
  state = train.train(more, str(tmp_path / 'more'))
  weights.unlink()
  assert_states_equal(train.train(more, str(tmp_path / 'more')), state)
  evaluate.evaluate(config, str(workdir))


def test_weights_that_do_not_fit_leave_no_run_behind(tmp_path):
  config = tiny.tiny_config(init_from=str(tmp_path / 'absent.npz'))
  with pytest.raises(FileNotFoundError, match='absent.npz'):
    train.train(config, str(tmp_path / 'run'))
  np.savez(tmp_path / 'other.npz', **{'layer1.weight': np.zeros((2, 2), np.float32)})
  config.init_from = str(tmp_path / 'other.npz')
  with pytest.raises(ValueError, match=r'layer1.weight: unexpected'):
    train.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'config.json').exists()
  train.train(tiny.tiny_config(), str(tmp_path / 'run'))
