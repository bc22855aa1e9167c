"""X-rays from the phantom to pictures at their own size, with the aspect ratio kept or not."""
import dataclasses

import numpy as np
import pytest
from PIL import Image

from spinejax import evaluate, runs, train
from spinejax.data import examples, datasets
from spinejax.inference import files, load, predict
from spinejax.metrics import segmentation
from spinejax.report import pages
from tests import tiny

pytestmark = pytest.mark.xdist_group('test_xrays')  # its runs are made once, by one worker


def xray_config(variant='paper', **overrides):
  return tiny.tiny_config(f'xray_unet:{variant}', **{
      'data.image_size': (48, 16), 'data.patch_size': (48, 16), 'data.render_size': (64, 32),
      'num_steps': 2, 'eval_every': 2, **overrides})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = xray_config('modern')
  train.train(config, str(workdir))
  return config, workdir, evaluate.evaluate(config, str(workdir))


def test_a_run_is_rated_as_in_the_paper_and_with_all_foreground_as_one(finished):
  config, workdir, evaluation = finished
  result = evaluation.result
  assert runs.read_json(workdir / 'test_metrics.json') == runs.plain(result.to_json())
  test = datasets.load_dataset(config.data)['test']
  hits = both = 0
  for record in test:
    mask = np.asarray(Image.open(workdir / f'predictions/{record.name}.png'))
    assert mask.shape == record.label.shape == (64, 32)
    case_hits = 2 * np.sum((mask > 0) & (record.label > 0))
    case_both = np.sum(mask > 0) + np.sum(record.label > 0)
    dice = result.cases[record.name].overlap['dice']['any_foreground']
    assert dice == pytest.approx(case_hits / case_both)
    hits, both = hits + case_hits, both + case_both
  assert result.pooled['dice']['any_foreground'] == pytest.approx(hits / both)
  predictor = load.load_predictor(str(workdir))
  right = seen = 0
  entropies = []
  for record in test:
    prediction, = predict.predict_images(predictor, [record.image])
    assert prediction.logits.shape == (32, 16, 3)  # 64x32 fitted into 48x16
    label = examples.prepare_label(record.label, config.data)[:32]
    entropies.append(segmentation.cross_entropy(prediction.logits, label))
    right, seen = right + np.sum(prediction.logits.argmax(-1) == label), seen + label.size
  assert result.at_network_size.cross_entropy == pytest.approx(np.mean(entropies))
  assert result.at_network_size.accuracy == pytest.approx(right / seen)
  page = pages.write_run_report(workdir, config, evaluation).read_text()
  assert 'spine + border as one' in page and 'cross entropy' in page and 'Interlaced' in page


def test_predictions_lie_where_they_were_seen(finished, tmp_path):
  _, workdir, _ = finished
  predictor = load.load_predictor(str(workdir))
  # The spine is where the network's image is bright.
  predictor = dataclasses.replace(predictor, logits=lambda images: np.concatenate(
      [0 * images, 9 * images, 0 * images - 9], -1))
  image = np.zeros((30, 70, 1), np.uint8)  # wider than the network's image is high
  image[:, 40:60] = 200
  prediction, = predict.predict_images(predictor, [image])
  expected = np.zeros((30, 70))
  expected[:, 40:60] = 1
  assert np.mean(prediction.mask != expected) < 0.08
  source = tmp_path / 'x.png'
  Image.fromarray(image[..., 0]).save(source)
  outcome, = files.predict_files(predictor, [source], tmp_path)
  assert not outcome.fault
  woven = np.asarray(Image.open(tmp_path / 'x_interlaced.png'))
  np.testing.assert_array_equal(woven[::2], np.repeat(image[::2], 3, -1))
  assert (woven[1::2, 45:55, 0] != woven[1::2, 45:55, 2]).all()  # colored
  np.testing.assert_array_equal(woven[1::2, :20], 0)


@pytest.mark.parametrize('size, expected', [
    ((64, 32), (32, 16)), ((96, 32), (48, 16)), ((30, 70), (7, 16)), ((1000, 1), (48, 1)),
    ((1, 1000), (1, 16))])
def test_a_fitted_image_keeps_its_aspect_ratio(size, expected):
  config = {'image_size': (48, 16), 'preparation': ('fit',)}
  assert examples.network_size(size, config) == expected
  image = np.full((*size, 1), 7, np.uint8)
  fitted = examples.prepare_image(image, config)
  assert fitted.shape == (48, 16, 1) and fitted.dtype == np.uint8
  assert (fitted[:expected[0], :expected[1]] == 7).all() and fitted.sum() == 7 * np.prod(expected)
  label = examples.prepare_label(np.ones(size, np.uint8), config)
  np.testing.assert_array_equal(label > 0, fitted[..., 0] > 0)


def test_the_ways_to_resize():
  image = np.arange(4, dtype=np.uint8).reshape(4, 1, 1) * 50
  resized = lambda *steps: examples.prepare_image(
      image, {'image_size': (2, 1), 'preparation': steps})[:, 0, 0]
  np.testing.assert_array_equal(resized('rescale_nearest'), [50, 150])
  assert resized('rescale')[0] not in (0, 50)
  np.testing.assert_allclose(resized('rescale_nearest', 'z_score'), [-1, 1])
  np.testing.assert_allclose(  # zeros around a fitted image are its mean
      examples.prepare_image(image, {'image_size': (4, 2), 'preparation': ('fit', 'z_score')})[
          :, 1, 0], 0)
  with pytest.raises(ValueError, match=r"\(4, 1\) pixels does not fit data.image_size \(2, 1\)"):
    resized('z_score')


def test_crops_of_volumes_are_refused_for_images():
  config = xray_config(**{'data.preparation': ('crop_top_layer', 'rescale')})
  with pytest.raises(ValueError, match='must name steps out of rescale, rescale_nearest, fit'):
    datasets.load_dataset(config.data)


def test_the_phantom_has_three_labels():
  config = xray_config(**{'data.classes': ('background', 'spine'), 'data.label_map': (0, 1, 1)})
  record = datasets.load_dataset(config.data)['train'][0]
  assert set(np.unique(record.label)) == {0, 1} and record.image.shape == (64, 32, 3)
  config.data.label_map = ()
  with pytest.raises(ValueError, match='the phantom has 3 labels'):
    datasets.load_dataset(config.data)
