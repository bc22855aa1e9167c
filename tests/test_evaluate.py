"""Files and results of a test, with a network that knows the answers."""

import numpy as np
import pytest
from PIL import Image

from spinejax import colors, evaluate, phantoms, runs
from spinejax.data import datasets
from spinejax.inference import load, predict
from spinejax.measurement.results import AngleResult
from spinejax.metrics.results import TestResult, curves_from_json
from spinejax.report import pages
from tests import tiny

SIZE = (96, 24, 12)
TRUE = {'all': 34, 'thoracic': 24, 'lumbar': 10}


def evaluate_answers(workdir, config, answer, **options):
  """Evaluation of a run whose network answers `answer(label, number of the case)`."""
  cases = datasets.load_dataset(config.data)
  runs.claim(workdir, 'config', config)
  runs.claim(workdir, 'dataset', {**datasets.describe(cases), 'mean': [0.0], 'std': [1.0]})
  answers = {record.image.tobytes(): answer(record.label.copy(), i)
             for i, record in enumerate(cases['test'])}

  def predict_images(_, images):
    for image in images:
      mask = answers[image.tobytes()]
      probs = np.eye(len(config.data.classes), dtype=np.float32)[mask]
      yield predict.Prediction(mask, probs, logits=8 * probs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(load, 'load_predictor', lambda *_, **__: load.Predictor(
        config, {}, step=7, batch_size=2, logits=None))
    patch.setattr(predict, 'predict_images', predict_images)
    return evaluate.evaluate(config, str(workdir), **options)


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
  """Evaluation and folder of a run that finds every lamina but those below row 80."""
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
  """Evaluation and folder of a run on VPI: two exact masks, an empty one."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config('seam:quick', **{
      'data.image_size': (512, 128), 'data.patch_size': (512, 128), 'data.render_size': (512, 128),
      'data.num_train': 1.0, 'data.num_validation': 0.0, 'data.num_test': 5.0})
  return evaluate_answers(workdir, config, lambda label, i: label * (i != 1), interlaced=True
                          ), workdir


def test_laminae_are_counted_by_region(tested):
  evaluation, workdir = tested
  result = evaluation.result
  assert TestResult.from_json(runs.read_json(workdir / 'test_metrics.json')) == result
  assert len(result.cases) == 2 and result.step == 7
  for case in result.cases.values():
    laminae = case.laminae
    assert laminae['true'] == TRUE and laminae['false'] == dict.fromkeys(TRUE, 0)
    assert laminae['missed']['all'] == laminae['missed']['lumbar'] > 0
    assert laminae['missed']['thoracic'] == 0
    assert laminae['dice']['all'] == pytest.approx(case.overlap['dice']['lamina'])
    assert laminae['d3d_mean']['thoracic'] == 0 < laminae['d3d_mean_mm']['lumbar']
    mask = np.load(workdir / 'predictions' / f'{case.name}.npz')
    assert mask['mask'].shape == SIZE and mask['spacing'].shape == (3,)
  assert result.laminae.mean['true'] == TRUE and set(result.laminae.sd['missed']) == set(TRUE)
  assert result.laminae.localizer_dice == pytest.approx(
      {'0.5': 0.65, '0.7': 0.54, '1': 0.40}, abs=0.006)


def test_volumes_are_shown_from_three_sides_and_in_slices(tested):
  evaluation, workdir = tested
  shown = evaluation.shown_cases
  assert [case.role for case in shown] == ['best'] * 4 + ['worst'] * 4
  views = [case.name.partition(', ')[2] for case in shown[:4]]
  assert views[:2] == ['coronal projection', 'sagittal projection'] and 'coronal slice' in views[2]
  assert [case.image.shape for case in shown[:4]] == [
      SIZE[:2], (SIZE[0], SIZE[2]), SIZE[:2], (SIZE[2], SIZE[1])]
  row = int(views[3].removeprefix('axial slice '))
  mask = np.load(workdir / 'predictions' / f'{shown[0].name.partition(",")[0]}.npz')['mask']
  np.testing.assert_array_equal(shown[3].prediction, mask[row].T)
  assert shown[0].angle is not None and shown[1].angle is shown[2].angle is None
  assert not any(case.interlaced for case in shown)
  page = pages.write_run_report(workdir, runs.load_config(workdir), evaluation).read_text()
  assert 'A perfect localizer reaches a Dice of 0.65, 0.54 or 0.40' in page


def test_angles_are_compared_with_those_of_the_phantoms(measured):
  evaluation, workdir = measured
  result, angles = evaluation.result, evaluation.result.angles
  assert (angles.method, angles.reference, angles.failed) == ('uca', 'phantom truth', 1)
  assert result.seconds_per_image.images == 2  # of batches 2, 2 and 1 only the second is timed
  assert 0 < result.seconds_per_image.mean == result.seconds_per_image.median < 60
  cases = [case.angle for case in result.cases.values()]
  true = [max(abs(curve.angle) for curve in phantoms.vpi(2_000_000 + i, (512, 128)).truth.cobb)
           for i in range(5)]
  assert [case.reference_deg for case in cases] == pytest.approx(true)
  assert cases[1].status == 'fail' and cases[1].angle_deg is cases[1].naive_deg is None
  errors = [abs(case.angle_deg - case.reference_deg) for i, case in enumerate(cases) if i != 1]
  assert angles.agreement.pairs == angles.naive.pairs == 4
  assert angles.agreement.mad == pytest.approx(np.mean(errors)) and max(errors) < 6
  for name, case in result.cases.items():
    found = AngleResult.from_json(runs.read_json(workdir / 'predictions' / f'{name}_angle.json'))
    assert (found.major_deg, found.flags) == (case.angle.angle_deg, case.angle.flags)
    assert (found.model, found.checkpoint) == ('seam', 7)


def test_the_best_the_median_and_the_worst_case_are_shown(measured):
  evaluation, workdir = measured
  cases = evaluation.result.cases
  assert [case.role for case in evaluation.shown_cases] == ['best', 'median', 'worst']
  dice = [case.dice for case in evaluation.shown_cases]
  assert dice == sorted(dice, reverse=True) and dice[0] == 1 and dice[2] == 0
  for case in evaluation.shown_cases:
    assert case.dice == cases[case.name].overlap['dice']['mean_foreground']
    assert case.angle.major_deg == cases[case.name].angle.angle_deg
  assert set(evaluation.roc) == {'rib', 'thoracic process', 'lump', 'any_foreground'}
  stored = curves_from_json(runs.read_json(workdir / 'roc.json'))
  assert evaluation.result.auc == {name: curve.auc for name, curve in stored.items()}
  for name, curve in stored.items():
    np.testing.assert_allclose(curve.tpr, evaluation.roc[name].tpr, atol=1e-6)


def test_every_image_is_interlaced_on_demand(tested, measured):
  evaluation, workdir = measured
  for name in evaluation.result.cases:
    mask = np.asarray(Image.open(workdir / 'predictions' / f'{name}.png'))
    picture = np.asarray(Image.open(workdir / 'predictions' / f'{name}_interlaced.png'))
    assert picture.shape == (*mask.shape, 3)
    assert (picture[::2] == picture[::2, :, :1]).all()  # gray levels of the image
    np.testing.assert_array_equal(picture[1::2][mask[1::2] > 0],
                                  colors.palette(4)[mask[1::2][mask[1::2] > 0]])
  assert not list((tested[1] / 'predictions').glob('*_interlaced.png'))


def test_without_test_cases_the_tables_are_empty(tmp_path):
  config = tiny.tiny_config('seam:quick', **{'data.num_validation': 0.0, 'data.num_test': 0.0,
                                             'data.num_train': 1.0})
  evaluation = evaluate_answers(tmp_path, config, None)
  assert evaluation.result == TestResult(7, {}, {}, {}, {})
  assert evaluation.roc == {} and evaluation.shown_cases == ()
  assert TestResult.from_json(runs.read_json(tmp_path / 'test_metrics.json')) == evaluation.result


def test_another_config_or_other_data_are_refused(tmp_path):
  config = tiny.tiny_config('seam:quick', **{'data.num_train': 2.0})
  runs.claim(tmp_path, 'config', config)
  runs.claim(tmp_path, 'dataset', {**datasets.describe(datasets.load_dataset(config.data)),
                                   'fingerprint': {}, 'mean': [0.0], 'std': [1.0]})
  with pytest.raises(ValueError, match='another dataset'):
    evaluate.evaluate(config, str(tmp_path))
  with pytest.raises(ValueError, match='another config'):
    evaluate.evaluate(tiny.tiny_config('seam:quick', seed=5), str(tmp_path))


def test_spacing_comes_from_the_file_then_from_the_config():
  config = tiny.tiny_config('seam:quick', **{'angle.spacing': (1.0, 2.0)})
  predictor = load.Predictor(config, {}, step=7, batch_size=2, logits=None)
  mask = np.zeros((9, 9), np.uint8)
  for spacing, expected in (((0.5, 0.5), (0.5, 0.5)), ((np.nan, np.nan), (1.0, 2.0))):
    assert predict.measure_prediction(predictor, mask, spacing).spacing == expected
  config.update_from_flattened_dict({'angle.method': ''})
  assert predict.measure_prediction(predictor, mask, (1.0, 1.0)) is None
