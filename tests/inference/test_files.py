"""Image files predicted into a folder, with random weights."""
import dataclasses

import numpy as np
from PIL import Image
import pytest

from spinejax.inference import files
from spinejax.inference.load import load_predictor
from spinejax.inference.predict import known_spacing, predict_images
from tests.inference import made

pytestmark = pytest.mark.xdist_group('test_files')  # one worker writes the runs


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  made.write_run(folder, 'rsn_unet:quick', (64, 32), eval_batch_size=2)
  return str(folder)


def save_image(path, size=(70, 30)):
  image = np.random.default_rng(0).integers(0, 255, size, np.uint8)
  Image.fromarray(image).save(path)
  return image


def test_a_file_is_predicted_as_its_pixels(workdir, tmp_path):
  predictor = load_predictor(workdir)
  image = save_image(tmp_path / 'case.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'case.png'], tmp_path)
  assert (outcome.path, outcome.fault, outcome.notes) == (tmp_path / 'case.png', '', ())
  assert outcome.angle.status == 'fail'  # a PNG has no spacing
  expected, = predict_images(predictor, [image[..., None]])
  np.testing.assert_array_equal(Image.open(tmp_path / 'case_mask.png'), expected.mask)


def test_spacing_and_axes_reach_the_files_for_other_programs(workdir, tmp_path):
  predictor = load_predictor(workdir, overrides={'angle.spacing': (0.5, 0.25)})
  assert known_spacing(predictor, (0.1, 0.2)) == (0.1, 0.2)
  assert known_spacing(predictor, (np.nan, np.nan)) == (0.5, 0.25)
  save_image(tmp_path / 'case.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'case.png'], tmp_path,
                                 ('seg_nrrd', 'dicom_seg'), 'LPS')
  assert outcome.angle.spacing == (0.5, 0.25)
  note, = outcome.notes
  assert note.startswith('no dicom_seg: ') and 'not a DICOM image' in note
  header = (tmp_path / 'case_mask.seg.nrrd').read_bytes().split(b'\n\n')[0].decode()
  assert 'space directions: (0.25,0,0) (0,0.5,0) (0,0,1)' in header.replace('.0,', ',').replace(
      '.0)', ')')


def test_a_run_without_a_method_measures_nothing(workdir, tmp_path):
  predictor = load_predictor(workdir, overrides={'angle.method': ''})
  save_image(tmp_path / 'case.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'case.png'], tmp_path, ('nifti',))
  assert outcome.angle is None and not outcome.notes
  assert sorted(path.name for path in tmp_path.iterdir()) == [
      'case.png', 'case_mask.png', 'case_overlay.png']


def test_pictures_show_image_and_mask_in_alternate_rows(tmp_path):
  made.write_run(tmp_path, 'xray_unet:quick', (48, 16))
  predictor = load_predictor(str(tmp_path))
  # The spine is where the image is bright.
  predictor = dataclasses.replace(predictor, logits=lambda images: np.concatenate(
      [0 * images, 9 * images, 0 * images - 9], -1))
  image = np.zeros((30, 70), np.uint8)
  image[:, 40:60] = 200
  Image.fromarray(image).save(tmp_path / 'x.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'x.png'], tmp_path)
  assert not outcome.fault
  woven = np.asarray(Image.open(tmp_path / 'x_interlaced.png'))
  np.testing.assert_array_equal(woven[::2], np.repeat(image[::2, :, None], 3, -1))
  assert (woven[1::2, 45:55, 0] != woven[1::2, 45:55, 2]).all()  # colored
  np.testing.assert_array_equal(woven[1::2, :20], 0)


@pytest.mark.parametrize('overrides, words', [
    ({'angle.spacing': (1.0,)}, 'config.angle.spacing must be 2 numbers'),
    ({'data.top_layer': '4'}, 'no field config.data.top_layer')])
def test_wrong_overrides_are_refused(workdir, overrides, words):
  with pytest.raises(ValueError, match=words):
    load_predictor(workdir, overrides=overrides)
