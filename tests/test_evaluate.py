"""What a test leaves behind of laminae and angles, with a network that knows the answers."""
import io
import json

import numpy as np
import pytest
from rich.console import Console

from spinejax import evaluate
from spinejax.inference import predictor as inference
from spinejax import runs
from spinejax.data import datasets
from spinejax import phantoms
from spinejax.report import tables
from tests import tiny

SIZE = (96, 24, 12)
TRUE = {'all': 34, 'thoracic': 24, 'lumbar': 10}


def evaluate_answers(workdir, config, answer):
  """Results of a run whose network answers `answer(label, number of the case)`."""
  cases = datasets.load_dataset(config.data)
  runs.claim(workdir, 'config', config)
  runs.claim(workdir, 'dataset', {**datasets.describe(cases), 'mean': [0.0], 'std': [1.0]})
  answers = {record['image'].tobytes(): answer(record['label'].copy(), i)
             for i, record in enumerate(cases['test'])}

  def predict_images(_, images):
    for image in images:
      mask = answers[image.tobytes()]
      probs = np.eye(len(config.data.classes), dtype=np.float32)[mask]
      yield inference.Prediction(mask, probs, logits=8 * probs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(inference, 'load_predictor', lambda *_, **__: inference.Predictor(
        config, {}, step=7, batch_size=2, logits=None))
    patch.setattr(inference, 'predict_images', predict_images)
    return evaluate.evaluate(config, str(workdir))


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
  """Results and folder of a run that finds every lamina but those below row 80."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config('c_unet', **{
      'data.image_size': SIZE, 'data.patch_size': SIZE, 'data.render_size': SIZE,
      'data.num_train': 1.0, 'data.num_validation': 0.0, 'data.num_test': 2.0})

  def answer(label, _):
    label[80:] = 0
    return label

  return evaluate_answers(workdir, config, answer), workdir


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """Results and folder of a run on VPI: two exact masks, one without bones."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config('seam:quick', **{
      'data.image_size': (512, 128), 'data.patch_size': (512, 128), 'data.render_size': (512, 128),
      'data.num_train': 1.0, 'data.num_validation': 0.0, 'data.num_test': 3.0})
  return evaluate_answers(workdir, config, lambda label, i: label * (i != 1)), workdir


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


def test_angles_are_compared_with_those_of_the_phantoms(measured):
  results, workdir = measured
  found = results['angles']
  assert json.loads((workdir / 'test_metrics.json').read_text())['angles'] == found
  assert (found['method'], found['reference'], found['failed']) == ('uca', 'phantom truth', 1)
  cases = list(found['cases'].values())
  true = [max(abs(curve.angle) for curve in phantoms.vpi(2_000_000 + i, (512, 128))[
      'truth']['cobb']) for i in range(3)]
  assert [case['reference_deg'] for case in cases] == pytest.approx(true)
  assert cases[1]['status'] == 'fail' and cases[1]['angle_deg'] is None
  errors = [abs(case['angle_deg'] - case['reference_deg']) for case in cases if case['status'] != (
      'fail')]
  assert found['agreement']['pairs'] == found['naive']['pairs'] == 2
  assert found['agreement']['mad'] == pytest.approx(np.mean(errors)) and max(errors) < 6
  for name, case in found['cases'].items():
    result = json.loads((workdir / 'predictions' / f'{name}_angle.json').read_text())
    assert result['major_deg'] == case['angle_deg'] and result['flags'] == case['flags']
    assert (result['model'], result['checkpoint']) == ('seam', 7)
  page = (workdir / 'report' / 'index.html').read_text()
  assert 'mean absolute error of the largest angle, 2 of 3 cases' in page
  assert page.count('id="angles"') == 1 and 'Measured and true angle of each case.' in page


def test_angles_are_printed_within_80_columns(measured):
  results, _ = measured
  out = io.StringIO()
  tables.print_angles(results['angles'], console=Console(file=out, width=80))
  lines = out.getvalue().splitlines()
  assert max(map(len, lines)) <= 80
  row = next(line for line in lines if line.startswith(' measured') or line.startswith('measured'))
  assert row.split()[1] == f'{results["angles"]["agreement"]["mad"]:.1f}'
  assert '2 of 3 cases' in ' '.join(lines) and 'too few for an angle' in ' '.join(
      ' '.join(lines).split())
  tables.print_angles(None, console=Console(file=out))


@pytest.mark.parametrize('changes, sentence', [
    ({'angle.method': 'cobb'}, 'config.angle.method must be one of uca'),
    ({'angle.bands': (10.0,)}, 'config.angle: bands must be 3 rising limits'),
    ({'angle.spacing': (0.0, 1.0)}, 'config.angle.spacing must be 2 numbers'),
    ({'angle.calibration': (1.0,)}, 'config.angle: calibration must be'),
])
def test_wrong_settings_of_angles_are_refused_before_training(changes, sentence):
  with pytest.raises(ValueError, match=sentence):
    inference.angle_options(tiny.tiny_config('seam:quick', **changes))


def test_spacing_comes_from_the_file_then_from_the_config():
  config = tiny.tiny_config('seam:quick', **{'angle.spacing': (1.0, 2.0)})
  assert tuple(inference.known_spacing(config, (0.5, 0.5))) == (0.5, 0.5)
  assert tuple(inference.known_spacing(config, (np.nan, np.nan))) == (1.0, 2.0)
  predictor = inference.Predictor(config, {}, step=7, batch_size=2, logits=None)
  result = inference.measure_prediction(predictor, np.zeros((9, 9), np.uint8), (np.nan, np.nan))
  assert result['spacing'] == [1.0, 2.0]
  config.update_from_flattened_dict({'angle.method': ''})
  assert inference.measure_prediction(predictor, np.zeros((9, 9), np.uint8), (1.0, 1.0)) is None
