"""Style transfer of a run: the styles in its folder, the choice at prediction, its refusals."""
import dataclasses
import json
import shutil

import numpy as np
from PIL import Image
import pytest

from spinejax import evaluate, logs, runs, train
from spinejax.inference import files, styles
from spinejax.inference.load import load_predictor
from spinejax.inference.predict import predict_images
from spinejax.inference.restore import restore_run
from spinejax.models import create_model, resnet
from tests import tiny
from tests.readers import folders

pytestmark = pytest.mark.xdist_group('test_styles')  # its run is trained once, by one worker


@pytest.fixture(autouse=True, scope='module')
def shallow_backbone():
  """One block a stage compiles in a third of the time."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.BACKBONES, 'shallow', ((1, 1, 1, 1), True))
    yield


def folder_config(directory, **overrides):
  return tiny.tiny_config('seam:wave_ct', **{
      'data.name': 'folder', 'data.directory': str(directory), 'data.num_train': 0.0,
      'data.num_validation': 0.0, 'data.num_test': 2.0, 'data.patch_stride': (0, 0),
      'model.backbone': 'shallow', 'optimizer.learning_rate': 1e-2, 'num_steps': 8, 'eval_every': 8,
      **overrides})


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


def move_data(workdir):
  """Makes the config name a folder that does not exist."""
  config = runs.load_config(str(workdir))
  config.data.directory = str(workdir / 'away')
  runs.write_json(workdir / 'config.json', config)


def stored_styles(workdir):
  with np.load(workdir / 'styles.npz') as stored:
    return {name: stored[name] for name in stored.files}


def test_training_reduces_the_loss_of_the_autoencoder(trained):
  losses = [row['loss/reconstruction'] for row in logs.read_metrics(trained[0])
            if row['phase'] == 'train']
  assert len(losses) == 8 and losses[-1] < 0.7 * losses[0]


def test_a_test_keeps_the_styles_and_prediction_elsewhere_uses_them(run, tmp_path):
  workdir, new = run
  config = runs.load_config(workdir)
  assert config.model.style_transfer and not (workdir / 'styles.npz').exists()
  result = evaluate.evaluate(config, str(workdir)).result
  stored = stored_styles(workdir)
  split = json.loads((workdir / 'dataset.json').read_text())['split']
  assert stored['names'].tolist() == split['train'] and len(split['train']) == 4
  assert stored['step'] == result.step == 8
  assert [stored[f'level_{i}'].shape for i in range(3)] == [(4, 2, 4), (4, 2, 8), (4, 2, 16)]

  move_data(workdir)
  predictor, output = load_predictor(str(workdir)), tmp_path / 'styled'
  output.mkdir()
  assert not any(outcome.fault for outcome in files.predict_files(
      predictor, sorted(new.iterdir()), output))
  for kind in ('mask', 'overlay', 'styled'):
    assert len(list(output.glob(f'*_{kind}.png'))) == 6
  for name in split['test']:
    styled = Image.open(output / f'{name}_styled.png')
    assert styled.mode == 'L' and styled.size == Image.open(new / f'{name}.png').size
    assert np.asarray(styled).std() > 1
    # The test used the same transfer.
    np.testing.assert_array_equal(Image.open(output / f'{name}_mask.png'),
                                  Image.open(workdir / 'predictions' / f'{name}.png'))
  # A training image takes its own style.
  image = np.asarray(Image.open(new / f'{split["train"][1]}.png'))[..., None]
  own, darker = predict_images(predictor, [image, image // 3])
  plain, = predict_images(dataclasses.replace(predictor, transfer=None), [image])
  assert plain.styled is None and own.styled.shape == image.shape
  # The rest of the difference is what eight steps of training reconstruct badly.
  assert abs(own.styled.mean() - image.mean()) < 0.3 * image.std()
  difference = np.abs(darker.styled - own.styled).mean()
  assert difference < 0.7 * np.abs(image / 3 - image).mean()


def test_styles_of_another_autoencoder_and_damaged_ones_are_computed_again(run):
  """The training cases are loaded as the config names them."""
  path, restored = run[0] / 'styles.npz', restore_run(str(run[0]))

  def load_styles():
    return styles.load_styles(restored, lambda images: (images.mean((1, 2)),), 4, None)

  first, = load_styles()
  stored = stored_styles(run[0])
  assert stored['step'] == 8
  np.testing.assert_array_equal(stored['level_0'], first)
  for damage in (lambda: np.savez(path, **{**stored, 'autoencoder': 'other', 'level_0': 0}),
                 lambda: np.savez(path, nothing=0),
                 lambda: path.write_bytes(path.read_bytes()[:300]),
                 lambda: path.write_bytes(b'')):
    damage()
    load_styles()
    found = stored_styles(run[0])
    assert found.keys() == stored.keys()
    for name in stored:
      np.testing.assert_array_equal(found[name], stored[name])
  before = path.stat().st_mtime_ns
  np.testing.assert_array_equal(load_styles()[0], first)
  assert path.stat().st_mtime_ns == before and sorted(run[0].glob('styles*')) == [path]


def test_without_styles_and_training_data_it_is_one_sentence(run, tmp_path):
  workdir, new = run
  move_data(workdir)
  with pytest.raises(FileNotFoundError, match=(
      f'^{workdir} has no styles.npz of its checkpoint of step 8, and .* cannot be loaded .*; run '
      f'spinejax test --workdir={workdir} where the data are, or use --nostyle_transfer.$')):
    load_predictor(str(workdir))
  predictor = load_predictor(str(workdir), style_transfer=False)
  assert predictor.transfer is None and not (workdir / 'styles.npz').exists()
  list(files.predict_files(predictor, sorted(new.iterdir())[:1], tmp_path))
  assert list(tmp_path.glob('*_mask.png')) and not list(tmp_path.glob('*_styled.png'))


def test_changed_training_data_make_no_styles(run, trained):
  workdir, _ = run
  name = runs.load_dataset_info(workdir)['split']['train'][0]
  image = trained[1] / 'images' / f'{name}.png'
  content = image.read_bytes()
  Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
  try:
    with pytest.raises(FileNotFoundError, match='cannot be loaded .*another dataset'):
      load_predictor(str(workdir))
  finally:
    image.write_bytes(content)


def test_the_config_decides_and_a_test_keeps_the_styles_without_a_transfer_too(run):
  workdir, _ = run
  config = folder_config(runs.load_config(workdir).data.directory,
                         **{'model.style_transfer': False})
  runs.write_json(workdir / 'config.json', config)
  predictor = load_predictor(str(workdir))
  assert predictor.transfer is None and not (workdir / 'styles.npz').exists()
  evaluate.evaluate(config, str(workdir))
  assert (workdir / 'styles.npz').exists()


def test_only_a_wave_ct_network_transfers_styles():
  wave_ct, fpn = (create_model(tiny.tiny_config(f'seam:{name}').model)
                  for name in ('wave_ct', 'fpn'))
  assert styles.uses_style_transfer(wave_ct) and not styles.uses_style_transfer(wave_ct, False)
  assert not styles.uses_style_transfer(fpn) and not styles.uses_style_transfer(fpn, False)
  with pytest.raises(ValueError, match='needs the autoencoder of a wave_ct network, but this run '
                     'trained a FPN; leave out --style_transfer'):
    styles.uses_style_transfer(fpn, True)
