"""Volumes of any size and geometry, predicted with random weights."""
import dataclasses
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest

from spinejax import colors
from spinejax.inference import files
from spinejax.inference.load import load_predictor
from spinejax.inference.predict import predict_images, predict_volume
from spinejax.readers import memory
from spinejax.report import stages

pytestmark = pytest.mark.xdist_group('inference')  # one worker writes the runs

SIZE = (48, 16, 8)


@pytest.fixture(scope='module')
def predictor(volume_run):
  return load_predictor(volume_run)


def test_volumes_of_another_size_come_back_at_their_own(predictor):
  volume = np.random.default_rng(0).uniform(0, 255, (50, 21, 9, 1)).astype(np.float32)
  # A z-score takes gain and offset away.
  prediction, louder = predict_images(predictor, [volume, 3 * volume + 40])
  assert prediction.mask.shape == (50, 21, 9) and prediction.probs.shape == (50, 21, 9, 2)
  assert prediction.mask.dtype == np.uint8
  np.testing.assert_allclose(louder.probs, prediction.probs, atol=1e-4)


def npz_volume(path, **fields):
  """An NPZ volume whose axes are (L, A, S) with a spacing."""
  image = np.random.default_rng(1).uniform(0, 2000, (20, 9, 50)).astype(np.float32)
  direction = np.float64([[1, 0, 0], [0, -1, 0], [0, 0, 1]])
  np.savez(path, **{'image': image, 'spacing': np.float64([0.9, 0.8, 1.2]),
                    'origin': np.float64([1, 2, 3]), 'direction': direction, **fields})


def test_predictions_of_files_come_back_in_their_own_geometry(predictor, tmp_path):
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  output.mkdir()
  npz_volume(source / 'a.npz')
  npz_volume(source / 'b.npz', spacing=np.full(3, np.nan))
  npz_volume(source / 'c.npz', image=np.full((20, 9, 50), np.nan, np.float32))
  npz_volume(source / 'd.npz', image=np.ones((20, 9, 50), np.float32))
  npz_volume(source / 'e.npz', image=np.ones((20, 9, 50, 2), np.float32))
  (source / 'f.png').write_bytes(b'no image either')
  # A lamina where the volume is bright, whatever the weights are.
  bright = dataclasses.replace(predictor, logits=lambda images: 8 * images - 16)
  outcomes = {outcome.path.stem: outcome for outcome in files.predict_files(
      bright, sorted(source.iterdir()), output, ('markups',))}
  assert not outcomes['a'].fault and not outcomes['b'].fault
  for name, words in dict(c='not finite', d='constant', e='4 axes', f='not a volume').items():
    assert words in outcomes[name].fault and str(source / name) in outcomes[name].fault
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
  assert outcomes['a'].angle.method == 'center of lamina' and not outcomes['a'].notes
  assert 'spacing is unknown' in outcomes['b'].angle.flags[0]
  assert outcomes['b'].notes[-1].startswith('no markups: the volume has no spacing')
  assert (output / 'a.mrk.json').exists() and not (output / 'b.mrk.json').exists()
  for name in 'ab':
    assert (output / f'{name}_angle.html').exists()
    assert Image.open(output / f'{name}_overlay.png').size == (16 + 8, 48)
    assert (output / f'{name}_preparation.png').exists()


def test_tiles_of_a_volume_agree_with_the_whole(volume_run, predictor):
  volume = np.random.default_rng(0).normal(size=(1, *SIZE, 1)).astype(np.float32)
  whole = predictor.logits(volume)
  tiled = load_predictor(volume_run, tile=(32, 16, 8)).logits(volume)
  # The network (one level) sees 8 planes to either side, and planes 0 to 15 lie in one tile only.
  difference = np.abs(whole - tiled).max((0, 2, 3, 4)) / np.abs(whole).max()
  assert difference[:16].max() < 1e-5 and difference[-16:].max() < 1e-5
  assert difference.max() > 1e-4
  with pytest.raises(ValueError, match='a tile must have 3 sizes'):
    load_predictor(volume_run, tile=(32, 16))


def test_a_volume_that_memory_does_not_hold_names_the_tile(volume_run, monkeypatch):
  monkeypatch.setattr(memory.psutil, 'virtual_memory', lambda: SimpleNamespace(available=1000))
  with pytest.raises(ValueError, match=r'segmenting 1 x 48 x 16 x 8 pixels at once needs .* GiB of '
                     r'memory and .* GiB are left; give --tile=24,8,4 or smaller'):
    load_predictor(volume_run)


def test_crops_of_the_preparation_are_undone(volume_run):
  predictor = load_predictor(volume_run, overrides={
      'data.preparation': ('crop_top_layer', 'rescale', 'z_score'), 'data.top_layer': '4'})
  seen = []
  predictor = dataclasses.replace(
      predictor, logits=lambda images: (seen.append(images), np.full_like(images, 9))[1])
  result = predict_volume(
      predictor, np.random.default_rng(0).uniform(0, 9, (30, 20, 12)), (1.0, 1.0, 2.0))
  assert not result.mask[:, :, :2].any() and result.mask[:, :, 2:].all()
  np.testing.assert_array_equal(result.mask, result.probability >= 0.5)
  np.testing.assert_allclose(result.centroids, [[14.5, 9.5, 6.5]])
  assert seen[0].shape == (1, *SIZE, 1) and abs(seen[0].mean()) < 1e-5  # z-score last
  volume = np.random.default_rng(0).uniform(0, 9, (30, 20, 12))
  axes = stages.preparation_figure(volume, result.steps, (1.0, 1.0, 2.0)).axes
  titles = [axis.get_title() for axis in axes[:3]]
  assert titles == ['as read\n30 x 20 x 12', 'without top layer\n30 x 20 x 10',
                    'rescaled\n48 x 16 x 8']
  coronal, axial = (np.asarray(axes[i].images[0].get_array()) for i in (1, 4))
  below = colors.stretch(volume[:, :, 2:])
  np.testing.assert_array_equal(coronal, below.max(2))
  np.testing.assert_array_equal(axial, below[10].T)
  assert [axis.get_aspect() for axis in (axes[1], axes[4])] == [1.0, 2.0]
  assert axes[2].get_aspect() == pytest.approx((30 / 48) / (20 / 16))
  with pytest.raises(ValueError, match='spacing of the volume is unknown'):
    predict_volume(predictor, np.eye(9)[..., None] * np.ones(9), [np.nan] * 3)
