"""Volumes from the phantom to the report: the same program, one axis more."""
import json
from types import SimpleNamespace

import jax
import numpy as np
from PIL import Image
import pytest
from rich.console import Console

from spinejax.inference import predictor as inference
from spinejax.inference import outputs
from spinejax import train
from spinejax.readers import memory
from tests import tiny

pytestmark = pytest.mark.xdist_group('test_volumes')  # its runs are made once, by one worker

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


def npz_volume(path, **fields):
  """An NPZ volume whose axes are (L, A, S) with a spacing; returns its image."""
  image = np.random.default_rng(1).uniform(0, 2000, (20, 9, 50)).astype(np.float32)
  direction = np.float64([[1, 0, 0], [0, -1, 0], [0, 0, 1]])
  np.savez(path, **{'image': image, 'spacing': np.float64([0.9, 0.8, 1.2]),
                    'origin': np.float64([1, 2, 3]), 'direction': direction, **fields})
  return image


def test_predictions_of_files_come_back_in_their_own_geometry(finished, tmp_path):
  _, workdir, _ = finished
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  output.mkdir()
  npz_volume(source / 'a.npz')
  npz_volume(source / 'b.npz', spacing=np.full(3, np.nan))
  npz_volume(source / 'c.npz', image=np.full((20, 9, 50), np.nan, np.float32))
  npz_volume(source / 'd.npz', image=np.ones((20, 9, 50), np.float32))
  npz_volume(source / 'e.npz', image=np.ones((20, 9, 50, 2), np.float32))
  (source / 'f.png').write_bytes(b'no image either')
  predictor = inference.load_predictor(str(workdir), checkpoint='last')
  # A lamina where the volume is bright, whatever the few steps of training made of it.
  bright = predictor._replace(logits=lambda images: 8 * images - 16)
  results = {o.path.stem: o for o in outputs.predict_files(
      bright, sorted(source.iterdir()), output, ('markups',))}
  outcomes = {name: outcome.fault for name, outcome in results.items()}
  assert not outcomes['a'] and not outcomes['b']
  for name, words in dict(c='not finite', d='constant', e='4 axes', f='no volume').items():
    assert words in outcomes[name] and str(source / name) in outcomes[name]
  with np.load(output / 'a_mask.npz') as written, np.load(source / 'a.npz') as read:
    assert written['label'].shape == (20, 9, 50) and 0 < written['label'].mean() < 0.5
    for field in ('spacing', 'origin', 'direction'):
      np.testing.assert_array_equal(written[field], read[field])
  table = np.genfromtxt(output / 'a_centroids.csv', delimiter=',', names=True)
  index = np.stack([table[axis] for axis in 'ijk'], -1)
  assert len(index) and ((index > -1) & (index < (20, 9, 50))).all()
  np.testing.assert_allclose(  # x to the left, y to posterior, z to superior: LPS
      np.stack([table[axis] for axis in 'xyz'], -1),
      [1, 2, 3] + index * [0.9, -0.8, 1.2], atol=1e-4)
  header = (output / 'b_centroids.csv').read_text().splitlines()[0]
  assert header == 'i,j,k'  # no millimeters of an unknown spacing
  assert results['a'].angle['method'] == 'center of lamina' and not results['a'].notes
  assert 'spacing is unknown' in results['b'].angle['flags'][0]
  assert results['b'].notes[-1].startswith('no markups: the volume has no spacing')
  assert (output / 'a.mrk.json').exists() and not (output / 'b.mrk.json').exists()
  for name in 'ab':
    assert (output / f'{name}_angle.html').exists()
    assert Image.open(output / f'{name}_overlay.png').size == (16 + 8, 48)


def test_tiles_of_a_volume_agree_with_the_whole(finished):
  _, workdir, _ = finished
  volume = np.random.default_rng(0).normal(size=(1, *SIZE, 1)).astype(np.float32)
  whole = inference.load_predictor(str(workdir)).logits(volume)
  tiled = inference.load_predictor(str(workdir), tile=(32, 16, 8)).logits(volume)
  # The network (two levels) sees 22 planes to either side, and planes 0 to 15 lie in one tile only.
  difference = np.abs(whole - tiled).max((0, 2, 3, 4))
  assert difference[:10].max() < 1e-5 and difference[-10:].max() < 1e-5
  assert difference.max() > 1e-4
  with pytest.raises(ValueError, match='a tile must have 3 sizes'):
    inference.load_predictor(str(workdir), tile=(32, 16))


def test_a_volume_that_memory_does_not_hold_names_the_tile(finished, monkeypatch):
  _, workdir, _ = finished
  monkeypatch.setattr(memory.psutil, 'virtual_memory', lambda: SimpleNamespace(available=1000))
  with pytest.raises(ValueError, match=r'segmenting 1 x 48 x 16 x 8 pixels at once needs .* GiB of '
                     r'memory and .* GiB are left; give --tile=24,8,4 or smaller'):
    inference.load_predictor(str(workdir))


def test_crops_of_the_preparation_are_undone(finished):
  _, workdir, _ = finished
  predictor = inference.load_predictor(str(workdir), overrides={
      'data.preparation': ('crop_top_layer', 'rescale', 'z_score'), 'data.top_layer': '4'})
  seen = []
  predictor = predictor._replace(
      logits=lambda images: (seen.append(images), np.full_like(images, 9))[1])
  result = inference.predict_volume(
      predictor, np.random.default_rng(0).uniform(0, 9, (30, 20, 12)), (1.0, 1.0, 2.0))
  assert not result.mask[:, :, :2].any() and result.mask[:, :, 2:].all()
  np.testing.assert_allclose(result.centroids, [[14.5, 9.5, 6.5]])
  assert seen[0].shape == (1, *SIZE, 1) and abs(seen[0].mean()) < 1e-5  # z-score last
  with pytest.raises(ValueError, match='spacing of the volume is unknown'):
    inference.predict_volume(predictor, np.eye(9)[..., None] * np.ones(9), [np.nan] * 3)


def test_another_way_to_choose_the_best_is_refused():
  with pytest.raises(ValueError, match="config.evaluation.best must be 'dice' or 'loss'"):
    train.create_run(volume_config(**{'evaluation.best': 'accuracy'}), None)


@pytest.mark.parametrize('variant, part, fraction', [
    ('wbce', 'weighted_binary_cross_entropy', 0.5),
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
