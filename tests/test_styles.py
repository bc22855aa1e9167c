"""Style transfer of a run: the bank in its folder, the option of prediction, its refusals."""
import json
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from spinejax import evaluate
from spinejax.inference import predictor as inference
from spinejax import logs
from spinejax import runs
from spinejax.inference import styles
from spinejax import train
from spinejax.models import resnet
from tests import tiny
from tests.data import folders

pytestmark = pytest.mark.xdist_group('test_styles')  # its runs are made once, by one worker


# One block a stage compiles in a third of the time; the command has to know it too.
SHALLOW = ((1, 1, 1, 1), True)
PREDICT = f"""
from spinejax import cli, predict
from spinejax.models import resnet
resnet.BACKBONES['shallow'] = {SHALLOW}
cli.run(predict.main)
"""


@pytest.fixture(autouse=True, scope='module')
def shallow_backbone():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.BACKBONES, 'shallow', SHALLOW)
    yield


def folder_config(directory, **overrides):
  return tiny.tiny_config('seam:wave_ct', **{
      'data.name': 'folder', 'data.directory': str(directory), 'data.num_train': 0.0,
      'data.num_validation': 0.0, 'data.num_test': 2.0, 'data.patch_stride': (0, 0),
      'model.backbone': 'shallow', 'optimizer.learning_rate': 1e-2, 'num_steps': 8, **overrides})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run on a folder of images, trained but not tested, and the folder."""
  directory, workdir = (tmp_path_factory.mktemp(name) for name in ('images', 'run'))
  folders.write_folder(directory, 6, num_classes=4)
  train.train(folder_config(directory), str(workdir))
  return workdir, directory


@pytest.fixture
def run(trained, tmp_path):
  """A copy of the run, and its images under a name that its config does not know."""
  shutil.copytree(trained[0], tmp_path / 'run')
  shutil.copytree(trained[1] / 'images', tmp_path / 'new')
  return tmp_path / 'run', tmp_path / 'new'


@pytest.fixture
def elsewhere(run, trained):
  """The run where its training data are not."""
  away = trained[1].with_name('away')
  trained[1].rename(away)
  yield run
  away.rename(trained[1])


def predict(*arguments):
  return subprocess.run([sys.executable, '-c', PREDICT, *map(str, arguments)], cwd=tiny.ROOT,
                        capture_output=True, text=True, timeout=300, check=False)


def stored_styles(workdir):
  with np.load(workdir / 'styles.npz') as stored:
    return {name: stored[name] for name in stored.files}


def test_the_program_trains_the_autoencoder(trained):
  losses = [row['loss/reconstruction'] for row in logs.read_metrics(trained[0])
            if row['phase'] == 'train']
  assert len(losses) == 8 and losses[-1] < 0.7 * losses[0]


def test_evaluation_keeps_the_styles_and_prediction_elsewhere_takes_them(run, trained, tmp_path):
  workdir, new = run
  config = runs.load_config(workdir)
  assert config.evaluation.style_transfer and not (workdir / 'styles.npz').exists()
  results = evaluate.evaluate(config, str(workdir))
  styles = stored_styles(workdir)
  split = json.loads((workdir / 'dataset.json').read_text())['split']
  assert styles['names'].tolist() == split['train'] and len(split['train']) == 4
  assert styles['step'] == results['step'] == 8
  assert [styles[f'level_{i}'].shape for i in range(3)] == [(4, 2, 4), (4, 2, 8), (4, 2, 16)]

  away = trained[1].with_name('away')
  trained[1].rename(away)
  try:
    result = predict(f'--workdir={workdir}', f'--input={new}', f'--output={tmp_path / "styled"}')
    assert result.returncode == 0 and 'after style transfer' in result.stdout, result.stderr
    result = predict(f'--workdir={workdir}', f'--input={new}', f'--output={tmp_path / "plain"}',
                     '--nostyle_transfer')
    assert result.returncode == 0 and 'style' not in result.stdout, result.stderr
  finally:
    away.rename(trained[1])
  kinds = {folder: sorted(path.name.rpartition('_')[2] for path in (tmp_path / folder).iterdir()
                          if 'angle' not in path.name and path.suffix == '.png')
           for folder in ('styled', 'plain')}
  assert kinds == {'styled': ['mask.png'] * 6 + ['overlay.png'] * 6 + ['styled.png'] * 6,
                   'plain': ['mask.png'] * 6 + ['overlay.png'] * 6}
  for name in split['test']:
    styled = Image.open(tmp_path / 'styled' / f'{name}_styled.png')
    assert styled.mode == 'L' and styled.size == Image.open(new / f'{name}.png').size
    # The test is that of the same transfer.
    np.testing.assert_array_equal(Image.open(tmp_path / 'styled' / f'{name}_mask.png'),
                                  Image.open(workdir / 'predictions' / f'{name}.png'))
  pictures = [np.asarray(Image.open(tmp_path / 'styled' / f'{name}_styled.png'))
              for name in split['test']]
  assert all(picture.std() > 1 for picture in pictures)


def test_a_training_image_takes_its_own_style(run):
  workdir, new = run
  predictor = inference.load_predictor(str(workdir))
  assert stored_styles(workdir)['step'] == 8  # the data were at hand
  train_names = predictor.info['split']['train']
  image = np.asarray(Image.open(new / f'{train_names[1]}.png'))[..., None]
  own, darker = inference.predict_images(predictor, [image, image // 3])
  plain, = inference.predict_images(
      inference.load_predictor(str(workdir), style_transfer=False), [image])
  assert plain.styled is None and own.styled.shape == image.shape
  # What is left of the difference is what eight steps of training reconstruct badly.
  assert abs(own.styled.mean() - image.mean()) < 0.3 * image.std()
  error = lambda prediction: np.abs(prediction.styled - own.styled).mean()
  assert error(darker) < 0.7 * np.abs(image / 3 - image).mean()


def test_styles_of_another_autoencoder_or_damaged_ones_are_read_anew(run):
  workdir, _ = run
  inference.load_predictor(str(workdir))
  styles, path = stored_styles(workdir), workdir / 'styles.npz'
  for damage in (lambda: np.savez(path, **{**styles, 'autoencoder': 'other', 'level_0': 0}),
                 lambda: np.savez(path, nothing=0),
                 lambda: path.write_bytes(path.read_bytes()[:300]),
                 lambda: path.write_bytes(b'')):
    damage()
    inference.load_predictor(str(workdir))
    found = stored_styles(workdir)
    assert found.keys() == styles.keys()
    for name in styles:
      np.testing.assert_array_equal(found[name], styles[name])
  before = path.stat().st_mtime_ns
  inference.load_predictor(str(workdir))
  assert path.stat().st_mtime_ns == before and sorted(workdir.glob('styles*')) == [path]


def test_without_styles_and_training_data_it_is_one_sentence(elsewhere, tmp_path):
  workdir, new = elsewhere
  arguments = f'--workdir={workdir}', f'--input={new}', f'--output={tmp_path / "out"}'
  result = predict(*arguments)
  assert result.returncode == 1 and len(result.stderr.strip().splitlines()) == 1, result.stderr
  assert result.stderr.startswith(f'error: {workdir} has no styles.npz of its checkpoint of step 8')
  assert f'--mode=evaluate --workdir={workdir} where the data are' in result.stderr
  predictor = inference.load_predictor(str(workdir), style_transfer=False)
  assert predictor.transfer is None and not (workdir / 'styles.npz').exists()


def test_changed_training_data_make_no_styles(run, trained):
  workdir, _ = run
  name = runs.load_dataset_info(workdir)['split']['train'][0]
  image = trained[1] / 'images' / f'{name}.png'
  content = image.read_bytes()
  Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
  try:
    with pytest.raises(FileNotFoundError, match='cannot be loaded .*another dataset'):
      inference.load_predictor(str(workdir))
  finally:
    image.write_bytes(content)


def test_the_config_decides_for_tests_and_styles_are_kept_all_the_same(run):
  workdir, _ = run
  config = folder_config(runs.load_config(workdir).data.directory,
                         **{'evaluation.style_transfer': False})
  runs.write_json(workdir / 'config.json', config)
  predictor = inference.load_predictor(str(workdir))
  assert predictor.transfer is None and not (workdir / 'styles.npz').exists()
  evaluate.evaluate(config, str(workdir))
  assert (workdir / 'styles.npz').exists()
  assert inference.load_predictor(str(workdir), style_transfer=True).transfer is not None


def test_a_network_without_an_autoencoder_is_refused(tmp_path):
  config = tiny.tiny_config('seam:fpn')
  runs.claim(tmp_path, 'config', config)
  runs.claim(tmp_path, 'dataset', {})
  result = predict(f'--workdir={tmp_path}', '--input=launch/results', '--style_transfer',
                   f'--output={tmp_path / "out"}')
  assert result.returncode == 1 and len(result.stderr.strip().splitlines()) == 1, result.stderr
  assert 'style transfer needs the autoencoder of a wave_ct network and fpn has none' in (
      result.stderr)
  assert not styles.uses_style_transfer(config)
  config.evaluation.style_transfer = True
  with pytest.raises(ValueError, match='fpn has none'):
    styles.uses_style_transfer(config)
  assert not styles.uses_style_transfer(config, asked=False)
