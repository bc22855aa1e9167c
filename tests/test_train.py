"""Whole runs on tiny phantoms and folders: report, resuming, faults in one sentence."""
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
from PIL import Image
import pytest
from rich.console import Console

from spinejax import evaluate, interrupts, logs
from spinejax.inference import compared, load
from spinejax import runs, train
from spinejax.metrics import comparison
from spinejax.metrics.results import TestResult as Result
from spinejax.report import pages
from tests import processes, tiny
from tests.faults import campaign
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
  validation = [row for row in logs.read_metrics(workdir) if row['phase'] == 'validation']
  assert [row['epoch'] for row in validation] == [1, 2] and 'by epoch' in page
  assert all(0 <= row['accuracy/mean_all'] <= 1 for row in validation)
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


def test_compared_runs_show_masks_and_probabilities_of_their_cases(finished, tmp_path, capsys):
  config, workdir, results = finished
  other = shutil.copytree(workdir, tmp_path / 'other')
  found = comparison.compare_runs([str(workdir), str(other)])
  roles = comparison.choose_cases(found)
  cases = compared.load_cases(found, roles, with_probs=True)
  assert list(roles.values()) == ['worst', 'median', 'best'] == [case.role for case in cases]
  for case in cases:
    dice = results['cases'][case.name]['dice']['mean_foreground']
    assert case.dice == dict.fromkeys(found.runs, dice)
    for run in found.runs:
      np.testing.assert_array_equal(case.masks[run], case.probs[run] >= 0.5)
  assert 'predicting: 6 to go' in capsys.readouterr().out
  shutil.rmtree(other / 'predictions')
  with pytest.raises(ValueError, match='png cannot be read; run spinejax test --workdir='):
    compared.load_cases(found, roles)
  stale = dataclasses.replace(found, fingerprint='beef')
  with pytest.raises(ValueError, match='test data of .* changed after the test'):
    compared.load_cases(stale, roles)


def test_a_changed_config_or_dataset_is_refused(tmp_path, finished):
  config, workdir, _ = finished
  with pytest.raises(ValueError, match='another config(?s:.)*seed: 0 there, 5 asked'):
    train.train(tiny.tiny_config(seed=5), str(workdir))
  dataset = runs.load_dataset_info(workdir)
  name = dataset['split']['train'][0]
  dataset['fingerprint'][name] = 'of another image'
  runs.write_json(tmp_path / 'dataset.json', dataset)
  with pytest.raises(ValueError, match=rf'another dataset(?s:.)*fingerprint.{name}: of another'):
    train.train(config, str(tmp_path))


def test_a_corrected_command_is_welcome_after_a_fault(tmp_path):
  workdir, data = tmp_path / 'run', tmp_path / 'data'
  folders.write_folder(data, 5, num_classes=2)
  np.savez(tmp_path / 'other.npz', **{'layer1.weight': np.zeros((2, 2), np.float32)})
  for directory, weights, error, words in [
      ('typo', '', FileNotFoundError, 'typo'),
      ('data', 'absent.npz', FileNotFoundError, 'absent.npz'),
      ('data', 'other.npz', ValueError, 'layer1.weight: unexpected')]:
    config = folder_config(tmp_path / directory, init_from=weights and str(tmp_path / weights))
    with pytest.raises(error, match=words):
      train.train(config, str(workdir))
    assert not (workdir / 'config.json').exists()
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
  workdir, config = tmp_path / 'run', campaign.write_config(
      tmp_path / 'tiny.py', num_steps=100_000, eval_every=100_000)
  command = [sys.executable, '-m', 'spinejax.main', f'--config={config}', f'--workdir={workdir}',
             '--notest']
  for _ in range(2):
    process = subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'PYTHONPATH': str(tiny.ROOT)})
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
  shutil.copy(workdir / 'dataset.json', tmp_path)
  (tmp_path / 'checkpoints').symlink_to(workdir / 'checkpoints')
  runs.write_json(tmp_path / 'config.json', config)
  sentence = r'differing arrays:\n  variables/.*float32\[.* in the model'
  with pytest.raises(ValueError, match=sentence):
    load.load_predictor(str(tmp_path))


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
  config, workdir, _ = finished
  copy = str(shutil.copytree(workdir, tmp_path / 'copy'))
  initial = jax.device_get(train.set_up(config, Console(quiet=True)).state.params)
  trained = train.train(config, copy)  # at its last step: what it holds
  weights = tmp_path / 'weights.npz'
  write_torch_weights(weights, trained.variables)
  same = tiny.tiny_config(init_from=str(weights), num_steps=0, ema_decay=0.5)
  imported = train.train(same, str(tmp_path / 'same'))
  assert_states_equal(imported.variables, trained.variables)
  assert_states_equal(imported.params, trained.params)
  assert int(imported.step) == 0
  last = evaluate.evaluate(config, copy, checkpoint='last')
  assert evaluate.evaluate(same, str(tmp_path / 'same')).result.cases == last.result.cases
  moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), trained.params, initial)
  assert any(jax.tree.leaves(moved))
  # Further training starts there, and resumes without the file.
  more = tiny.tiny_config(init_from=str(weights), num_steps=2, ema_decay=0.5)
  state = train.train(more, str(tmp_path / 'more'))
  weights.unlink()
  assert_states_equal(train.train(more, str(tmp_path / 'more')), state)
