"""Volumes from the phantom to the report: the same program, one axis more."""
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from spinejax import inference
from spinejax import train
from tests import tiny

SIZE = (48, 16, 8)


def volume_config(variant='centroid', **overrides):
  return tiny.tiny_config(f'c_unet:{variant}', **{
      'data.image_size': SIZE, 'data.patch_size': SIZE, 'data.render_size': SIZE,
      'data.num_train': 2.0, 'data.num_validation': 1.0, 'data.num_test': 2.0,
      'batch_size': 1, 'eval_batch_size': 1, 'num_steps': 2, 'eval_every': 1, **overrides})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = volume_config()
  return config, workdir, train.train_and_evaluate(config, str(workdir))


def test_a_run_on_volumes_leaves_everything_behind(finished):
  config, workdir, results = finished
  stored = json.loads((workdir / 'test_metrics.json').read_text())
  assert stored == results and len(stored['cases']) == 2
  for name in stored['cases']:
    with np.load(workdir / 'predictions' / f'{name}.npz') as arrays:
      assert arrays['mask'].shape == SIZE and arrays['mask'].dtype == np.uint8
      assert arrays['spacing'].shape == (3,) and np.isfinite(arrays['spacing']).all()
  page = (workdir / 'report' / 'index.html').read_text()
  for words in ('phantom', 'not a medical device', 'coronal projection', 'sagittal projection',
                'coronal slice'):
    assert words in page


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(finished):
  config, workdir, results = finished
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {row['step']: row['loss'] for row in rows if row['phase'] == 'validation'}
  assert len(losses) == 2 and results['step'] == min(losses, key=losses.get)


def test_volumes_of_another_size_come_back_at_their_own(finished):
  _, workdir, _ = finished
  predictor = inference.load_predictor(str(workdir))
  volume = np.random.default_rng(0).uniform(0, 255, (50, 21, 9, 1)).astype(np.float32)
  prediction, = inference.predict_images(predictor, [volume])
  assert prediction.mask.shape == (50, 21, 9) and prediction.probs.shape == (50, 21, 9, 2)
  # A z-score takes gain and offset away.
  louder, = inference.predict_images(predictor, [3 * volume + 40])
  np.testing.assert_allclose(louder.probs, prediction.probs, atol=1e-4)


def test_another_way_to_choose_the_best_is_refused():
  with pytest.raises(ValueError, match="config.evaluation.best must be 'dice' or 'loss'"):
    train.create_run(volume_config(**{'evaluation.best': 'accuracy'}), None)


@pytest.mark.parametrize('variant, part, fraction', [
    ('dice', 'dice', 0.97), ('wbce', 'weighted_binary_cross_entropy', 0.5),
    ('centroid', 'dice', 0.7)])
def test_each_loss_learns_laminae(variant, part, fraction):
  config = volume_config(variant, **{
      'num_steps': 60, 'data.num_validation': 0.0, 'data.num_train': 1.0,
      'model.dropout': 0.0, 'optimizer.learning_rate': 1e-2})
  run = train.create_run(config, Console(quiet=True))
  state, found = run.state, []
  for step in range(60):
    state, metrics = run.train_step(state, run.batch_at(step))
    metrics = jax.device_get(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    found.append(float(metrics[f'loss/{part}']))
  assert np.mean(found[-5:]) < fraction * found[0], found
