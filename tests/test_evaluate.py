"""What a test of volumes leaves behind, with a network that knows the answers."""
import io
import json

import numpy as np
import pytest
from rich.console import Console

from spinejax import evaluate
from spinejax import inference
from spinejax import runs
from spinejax.data import datasets
from spinejax.report import tables
from tests import tiny

SIZE = (96, 24, 12)
TRUE = {'all': 34, 'thoracic': 24, 'lumbar': 10}


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
  """Results and folder of a run that finds every lamina but those below row 80."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config('c_unet', **{
      'data.image_size': SIZE, 'data.patch_size': SIZE, 'data.render_size': SIZE,
      'data.num_train': 1.0, 'data.num_validation': 0.0, 'data.num_test': 2.0})
  cases = datasets.load_dataset(config.data)
  runs.claim(workdir, 'config', config)
  runs.claim(workdir, 'dataset', {**datasets.describe(cases), 'mean': [0.0], 'std': [1.0]})
  answers = {record['image'].tobytes(): record['label'] for record in cases['test']}

  def predict_images(_, images):
    for image in images:
      mask = answers[image.tobytes()].copy()
      mask[80:] = 0
      probs = np.eye(2, dtype=np.float32)[mask]
      yield inference.Prediction(mask, probs, logits=8 * probs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(inference, 'load_predictor', lambda *_, **__: inference.Predictor(
        config, {}, step=7, batch_size=2, logits=None))
    patch.setattr(inference, 'predict_images', predict_images)
    return evaluate.evaluate(config, str(workdir)), workdir


def test_laminae_are_counted_by_region(tested):
  results, workdir = tested
  assert json.loads((workdir / 'test_metrics.json').read_text()) == results
  found = results['laminae']
  assert set(found['cases']) == set(results['cases']) and len(found['cases']) == 2
  for name, case in found['cases'].items():
    assert case['true'] == TRUE and case['false'] == dict.fromkeys(TRUE, 0)
    assert case['missed']['all'] == case['missed']['lumbar'] > 0 == case['missed']['thoracic']
    assert case['dice']['all'] == pytest.approx(results['cases'][name]['dice']['lamina'])
    assert case['d3d_mean']['thoracic'] == 0 < case['d3d_mean_mm']['lumbar']
  assert found['mean']['true'] == TRUE and set(found['sd']['missed']) == set(TRUE)


def test_what_a_perfect_localizer_reaches_is_told(tested):
  results, workdir = tested
  assert results['laminae']['localizer_dice'] == pytest.approx(
      {'0.5': 0.65, '0.7': 0.54, '1': 0.40}, abs=0.006)
  page = (workdir / 'report' / 'index.html').read_text()
  assert 'A perfect localizer reaches a Dice of 0.65, 0.54 or 0.40' in page
  assert 'a perfect localizer reaches 0.65 where labels are 0.5 voxel off' in page
  assert '<table id="laminae"' in page


def test_laminae_are_printed_within_80_columns(tested):
  results, _ = tested
  out = io.StringIO()
  tables.print_laminae(results['laminae'], console=Console(file=out, width=80))
  lines = out.getvalue().splitlines()
  assert max(map(len, lines)) <= 80
  rows = {line[:12].strip(): line[12:].split() for line in lines}
  mean, sd = (results['laminae'][key] for key in ('mean', 'sd'))
  assert rows['lumbar'][:3] == [f'{mean["missed"]["lumbar"]:.1f}', '±',
                                f'{sd["missed"]["lumbar"]:.1f}']
  assert rows['thoracic'][-3:] == ['0.0', '±', '0.0']
  assert 'A perfect localizer' in out.getvalue()


def test_without_volumes_nothing_is_printed():
  out = io.StringIO()
  tables.print_laminae(None, console=Console(file=out))
  tables.print_laminae({'mean': {}, 'sd': {}, 'cases': {}}, console=Console(file=out))
  assert out.getvalue() == ''
