"""The stress suite: from run folders to its files, what is kept, and what is refused."""
import csv
import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from spinejax import evaluate, interrupts, phantoms, runs, stress
from spinejax.data import datasets
from spinejax.inference import load, predict
from spinejax.metrics import roc
from tests import processes
from tests.inference import made
from tests.report.html_page import Page

pytestmark = pytest.mark.xdist_group('inference')  # one worker writes the runs
SIZE = (64, 40)
FEW = stress.Settings(('holes', 'speckle'), (4.0, 1.0), 2)


@pytest.fixture(scope='module')
def folders(image_run, tmp_path_factory):
  """Runs with random weights: two of bone against background, one of four classes."""
  root = tmp_path_factory.mktemp('runs')
  for name in ('rsn', 'unet'):
    shutil.copytree(image_run, root / name)
  config = runs.load_config(root / 'rsn').to_dict()
  config['data']['difficulty'], config['angle']['method'] = 2.0, ''
  runs.write_json(root / 'unet' / 'config.json', config)
  (root / 'seam').mkdir()
  made.write_run(root / 'seam', 'rsn_unet:quick', SIZE, **{
      'model.levels': 1, 'model.num_classes': 4, 'eval_batch_size': 2, 'data.label_map': (),
      'data.classes': ('background', 'rib', 'thoracic process', 'lump')})
  return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture(scope='module')
def suite(folders, tmp_path_factory):
  """Two runs of different classes from the command: its output, and its folder."""
  folder = tmp_path_factory.mktemp('suite') / 'out'
  result = processes.call(
      '-m', 'spinejax', 'stress', f'--workdirs={folders["rsn"]},{folders["seam"]}', '--cases=2',
      '--artifacts=holes,speckle', '--strengths=4,1', f'--output={folder}')
  assert result.returncode == 0, result.stderr
  return result.stdout.splitlines(), folder


def count_predictions(monkeypatch):
  """A list that grows by every image that is predicted."""
  seen, real = [], predict.predict_images
  monkeypatch.setattr(predict, 'predict_images', lambda predictor, images: real(
      predictor, (seen.append(image) or image for image in images)))
  return seen


def test_the_files_say_what_the_runs_scored(suite, folders):
  lines, folder = suite
  assert max(map(len, lines[:-1])) <= 80 and lines[-1] == f'Stress suite: {folder / "index.html"}'
  found = json.loads((folder / 'stress.json').read_text())
  assert list(found['workdirs']) == ['rsn', 'seam'] and found['dice'] == 'bone_dice'
  assert found['strengths'] == [1, 4] and len(found['cases']) == 2
  # The scores are those of a test at these strengths.
  config = runs.load_config(folders['seam'])
  strengths = phantoms.Strengths(speckle=4.0)
  data = {**config.data.to_dict(), 'num_test': 2, 'strengths': dataclasses.asdict(strengths)}
  test = datasets.load_dataset(data)['test']
  predictor = load.load_predictor(folders['seam'])
  for record, prediction in zip(test, predict.predict_images(
      predictor, [record.image for record in test])):
    score = found['scores']['speckle'][1]['seam'][record.name]
    mask, true = prediction.mask > 0, record.label > 0
    assert score['bone_dice'] == pytest.approx(2 * (mask & true).sum() / (mask.sum() + true.sum()))
    histogram = roc.class_histograms(prediction.probs, record.label, config.data.classes)
    assert score['auc'] == roc.roc_curve(histogram['any_foreground']).auc
    case = evaluate.score_case(predictor, record, prediction)
    assert score['status'] == case.angle.status
  holes = [[phantoms.vpi(2_000_000 + i, SIZE, strengths=phantoms.Strengths(holes=value)
                         ).truth.hole_fraction for i in range(2)] for value in (1.0, 4.0)]
  assert found['artifacts']['holes']['hole_fraction'] == pytest.approx(np.mean(holes, 1))
  with (folder / 'stress.csv').open(encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [(row['artifact'], row['strength'], row['run']) for row in rows] == [
      (artifact, strength, run) for artifact in ('holes', 'speckle') for strength in ('1.0', '4.0')
      for run in ('rsn', 'seam')]
  scores = found['scores']['speckle'][1]['seam'].values()
  assert float(rows[-1]['auc']) == pytest.approx(np.mean([score['auc'] for score in scores]))
  assert rows[-1]['failed_angles'] == str(sum(score['status'] == 'fail' for score in scores))


def test_the_page_and_the_pictures(suite):
  _, folder = suite
  text = (folder / 'index.html').read_text()
  page = Page(text)
  assert text.count('<svg') == 2 and 'phantoms, not clinical data' in page.text
  found = json.loads((folder / 'stress.json').read_text())
  assert page.tables['values-bone_dice'][4][0] == 'missing pixels'
  body = page.tables['values-auc']
  assert body[0] == ['Strength', '1', '4'] and body[1] == ['holes']
  level = found['artifacts']['holes']['levels']['seam'][1]['metrics']['auc']
  assert body[3][0] == 'seam' and body[3][2].startswith(f'{level["mean"]:.3f}')
  difference = found['artifacts']['speckle']['against']['seam']['bone_dice']['mean']['difference']
  assert page.tables['differences'][-3][:2] == ['Dice', f'{difference:.3f}'.replace('-', '−')]
  for name in ('stress', 'stress_samples'):
    with Image.open(folder / f'{name}.png') as picture:
      assert picture.width > 600


def test_finished_cells_are_kept_until_a_run_changes(suite, folders, monkeypatch):
  _, folder = suite
  pair = [folders['rsn'], folders['seam']]
  seen = count_predictions(monkeypatch)
  found, _ = stress.stress_runs(pair, folder, FEW)
  assert not seen and json.loads(json.dumps(runs.plain(dataclasses.asdict(found)))) == json.loads(
      (folder / 'stress.json').read_text())
  damaged, *_ = sorted((folder / 'cells').iterdir())
  damaged.write_text('{"scores": {}')
  again, _ = stress.stress_runs(pair, folder, FEW)
  assert len(seen) == 2 and again == found
  seen.clear()
  restore = load.restore_run

  def train_more(workdir, checkpoint):
    run = restore(workdir, checkpoint)
    weights = jax.tree.map(lambda x: 1.01 * x, run.variables) if 'rsn' in workdir else run.variables
    return dataclasses.replace(run, variables=weights)

  monkeypatch.setattr(load, 'restore_run', train_more)
  stress.stress_runs(pair, folder, FEW)
  assert len(seen) == 3 * 2  # the phantoms of strength 1 are the same for both artifacts


def test_a_stopped_suite_goes_on(folders, tmp_path, monkeypatch):
  seen, score_case = count_predictions(monkeypatch), evaluate.score_case

  def stop(*arguments):
    if len(seen) > 3:
      raise KeyboardInterrupt
    return score_case(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(evaluate, 'score_case', stop)
    with pytest.raises(interrupts.Interrupted, match='the same command goes on from there'):
      stress.stress_runs([folders['rsn']], tmp_path, FEW)
  assert len(list((tmp_path / 'cells').iterdir())) == 1
  seen.clear()
  found, samples = stress.stress_runs([folders['rsn']], tmp_path, FEW)
  assert len(seen) == 2 * 2 and found.dice == 'dice'
  assert not any(stressed.against for stressed in found.artifacts.values())
  np.testing.assert_array_equal(samples.images['holes'][0], samples.images['speckle'][0])
  assert (samples.images['holes'][1] != samples.images['holes'][0]).any()


def test_runs_of_other_phantoms_and_without_angles_are_told(folders, tmp_path):
  found, _ = stress.stress_runs([folders['unet'], folders['rsn']], tmp_path, stress.Settings(
      ('gain',), (0.0, 1.0), 1))
  assert found.notes == ('rsn was trained with config.data.difficulty 1.0; the phantoms are those '
                         'of unet, 2.0.',)
  assert found.phantoms['difficulty'] == 2.0
  unet, rsn = (found.artifacts['gain'].levels[run][0] for run in ('unet', 'rsn'))
  assert unet.failed == 0 == unet.metrics['error_deg'].cases
  assert rsn.failed + rsn.metrics['error_deg'].cases == 1


@pytest.mark.parametrize('fields, sentence', [
    (dict(artifacts=('speckel',)), r"there is no artifact 'speckel' \(did you mean speckle\?\); "),
    (dict(artifacts=()), '--artifacts must be different values separated by commas, not none'),
    (dict(artifacts=('gain', 'gain')), '--artifacts must be different'),
    (dict(strengths=(1.0, 1.0)), '--strengths must be different'),
    (dict(strengths=(-1.0,)), 'must be a number from 0 to 100, not -1'),
    (dict(strengths=(math.nan,)), 'must be a number from 0 to 100, not nan'),
    (dict(num_cases=0), '--cases must be at least 1')])
def test_wrong_settings_are_refused(fields, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    stress.Settings(**fields)
  assert '\n' not in str(error.value)


def test_runs_that_cannot_be_stressed_are_refused(folders, tmp_path):
  def config(folder, **data):
    folder = tmp_path / folder
    folder.mkdir()
    runs.write_json(folder / 'config.json', {'data': data})
    runs.write_json(folder / 'dataset.json', {'mean': [0.0], 'std': [1.0]})
    return str(folder)

  for workdirs, error, sentence in (
      ([folders['rsn'], config('xray', name='xray_phantom')], ValueError,
       'xray was trained on xray_phantom, not on vpi_phantom'),
      ([config('own', name='folder')], ValueError, 'was trained on folder, not on vpi_phantom'),
      ([config('clean', name='vpi_phantom', difficulty=0.0)], ValueError, 'clean is 0; '),
      ([str(tmp_path / 'nothing')], FileNotFoundError, 'holds no run'),
      ([folders['rsn']] * 2, ValueError, 'is given twice')):
    with pytest.raises(error, match=sentence):
      stress.stress_runs(workdirs, tmp_path / 'out', FEW)
  assert not (tmp_path / 'out').exists()
  with pytest.raises(ValueError, match='--output must be a folder'):
    stress.stress_runs([folders['rsn']], folders['rsn'] + '/config.json', FEW)
