"""Runs on volumes, from the phantom to the report."""
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from spinejax import evaluate, train
from spinejax.report import pages
from tests import tiny

pytestmark = pytest.mark.xdist_group('test_volumes_end_to_end')  # one worker trains the run

SIZE = (48, 16, 8)


def volume_config(variant='centroid', **overrides):
  return tiny.tiny_config(f'c_unet:{variant}', **{
      'data.image_size': SIZE, 'data.patch_size': SIZE, 'data.render_size': SIZE,
      'data.num_train': 2.0, 'data.num_validation': 1.0, 'data.num_test': 2.0,
      'batch_size': 1, 'eval_batch_size': 1, 'num_steps': 2, 'eval_every': 1, **overrides})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir, config = tmp_path_factory.mktemp('run'), volume_config()
  train.train(config, str(workdir))
  evaluation = evaluate.evaluate(config, str(workdir))
  pages.report_run(str(workdir), config, evaluation)
  return workdir, evaluation.result


def test_a_run_on_volumes_leaves_everything_behind(finished):
  workdir, result = finished
  stored = json.loads((workdir / 'test_metrics.json').read_text())
  assert stored == json.loads(json.dumps(result.to_json())) and len(stored['cases']) == 2
  for name in stored['cases']:
    with np.load(workdir / 'predictions' / f'{name}.npz') as arrays:
      assert arrays['mask'].shape == SIZE and arrays['mask'].dtype == np.uint8
      assert arrays['spacing'].shape == (3,) and np.isfinite(arrays['spacing']).all()
  page = (workdir / 'report' / 'index.html').read_text()
  for words in ('phantom', 'not a medical device', 'coronal projection', 'sagittal projection',
                'coronal slice', 'axial slice'):
    assert words in page


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(finished):
  workdir, result = finished
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {row['step']: row['loss'] for row in rows if row['phase'] == 'validation'}
  assert len(losses) == 2 and result.step == min(losses, key=losses.get)


@pytest.mark.parametrize('variant, part, fraction', [
    ('wbce', 'weighted_binary_cross_entropy', 0.5),
    ('centroid', 'dice', 0.7)])
def test_each_loss_learns_laminae(variant, part, fraction):
  config = volume_config(variant, **{
      'num_steps': 60, 'data.num_validation': 0.0, 'data.num_train': 1.0,
      'model.dropout': 0.0, 'optimizer.learning_rate': 1e-2})
  setup = train.set_up(config, Console(quiet=True))
  state, found = setup.state, []
  for step in range(60):
    state, metrics = setup.train_step(state, setup.feed.batch_at(step), setup.key)
    metrics = jax.device_get(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    found.append(float(metrics[f'loss/{part}']))
  assert np.mean(found[-5:]) < fraction * found[0], found
