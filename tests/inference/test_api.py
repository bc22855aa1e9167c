"""`spinejax.load`, as a notebook uses it."""
import inspect
import textwrap

import numpy as np
import pytest

import spinejax
from spinejax.measurement import AngleResult

pytestmark = pytest.mark.xdist_group('inference')  # one worker writes the runs


@pytest.fixture(scope='module')
def run(image_run):
  return spinejax.load(image_run)


def test_the_example_of_the_docstring_runs(image_run):
  paragraphs = inspect.getdoc(spinejax.load).split('Args:')[0].split('\n\n')
  example = '\n'.join(textwrap.dedent(part) for part in paragraphs if part.startswith('    '))
  names = {'spinejax': spinejax, 'image': np.full((50, 40), 90, np.uint8),
           'images': np.zeros((1, 64, 40, 1), np.float32)}
  exec(example.replace("'runs/seam_quick'", repr(image_run)), names)
  assert names['result'].mask.shape == (50, 40) and names['run'].step == 7
  assert names['outputs']['logits'].shape == (1, 64, 40, names['run'].config.model.num_classes)


def test_an_image_has_mask_probabilities_angle_and_picture(run):
  image = np.random.default_rng(0).integers(0, 255, (70, 40), np.uint8)
  result = run.predict(image, 0.5)
  assert result.mask.shape == (70, 40) and result.mask.dtype == np.uint8
  assert result.probs.shape == (70, 40, 2) and result.classes[0] == 'background'
  np.testing.assert_array_equal(result.probs.argmax(-1), result.mask)
  assert isinstance(result.angle, AngleResult) and result.angle.spacing == (0.5, 0.5)
  assert (result.angle.model, result.angle.checkpoint) == ('unet', 7)
  picture = result.picture()
  assert picture.format == 'PNG' and picture.width > 200
  unknown = run.predict(image)
  assert unknown.angle.status == 'fail' and 'spacing is unknown' in unknown.angle.flags[0]
  np.testing.assert_array_equal(run.predict(image[..., None]).mask, result.mask)


@pytest.mark.parametrize('image, spacing, words', [
    (np.zeros((9, 9, 3)), None, r'images \[H, W\] or \[H, W, 1\], not \[9, 9, 3\]'),
    (np.zeros(9), None, r'not \[9\]'), (np.zeros((9, 9)), (1, 2, 3), 'spacing must be 2 numbers')])
def test_other_images_are_refused_in_one_sentence(run, image, spacing, words):
  with pytest.raises(ValueError, match=words):
    run.predict(image, spacing)


def test_a_volume_has_centroids_and_a_run_without_angles_has_a_picture(volume_run):
  run = spinejax.load(volume_run)
  run.config.angle.method = ''
  volume = np.random.default_rng(0).uniform(0, 900, (20, 9, 7))
  result = run.predict(volume, (1.0, 1.0, 2.0))
  assert result.mask.shape == (20, 9, 7) and result.probs.shape == (20, 9, 7, 2)
  np.testing.assert_array_equal(result.probs[..., 1] >= 0.5, result.mask)
  assert result.angle is None and result.centroids.shape[1] == 3
  assert result.picture().size == (9, 20)
  with pytest.raises(ValueError, match=r'volumes \[D, H, W\], not \[20, 9\]'):
    run.predict(volume[..., 0])
