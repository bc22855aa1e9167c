"""Image files predicted into a folder, with random weights."""
import nibabel
import numpy as np
from PIL import Image
import pytest

from spinejax.inference import files
from spinejax.inference.load import load_predictor
from spinejax.inference.predict import known_spacing, predict_images

pytestmark = pytest.mark.xdist_group('inference')  # one worker writes the runs


def test_spacing_and_axes_reach_the_files_for_other_programs(image_run, tmp_path):
  predictor = load_predictor(image_run, overrides={'angle.spacing': (0.5, 0.25)})
  assert known_spacing(predictor, (0.1, 0.2)) == (0.1, 0.2)
  assert known_spacing(predictor, (np.nan, np.nan)) == (0.5, 0.25)
  image = np.random.default_rng(0).integers(0, 255, (70, 30), np.uint8)
  Image.fromarray(image).save(tmp_path / 'case.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'case.png'], tmp_path,
                                 ('nifti', 'dicom_seg'), 'LPS')
  assert outcome.path == tmp_path / 'case.png' and not outcome.fault
  assert outcome.angle.spacing == (0.5, 0.25)
  note, = outcome.notes
  assert note.startswith('no dicom_seg: ') and 'not a DICOM image' in note
  expected, = predict_images(predictor, [image[..., None]])
  np.testing.assert_array_equal(Image.open(tmp_path / 'case_mask.png'), expected.mask)
  written = nibabel.load(tmp_path / 'case_mask.nii.gz')
  np.testing.assert_array_equal(np.asarray(written.dataobj)[..., 0].T, expected.mask)
  np.testing.assert_allclose(written.affine, np.diag([-0.25, -0.5, 1, 1]))


def test_a_run_without_a_method_measures_nothing(image_run, tmp_path):
  predictor = load_predictor(image_run, overrides={'angle.method': ''})
  Image.new('L', (30, 70), 9).save(tmp_path / 'case.png')
  outcome, = files.predict_files(predictor, [tmp_path / 'case.png'], tmp_path, ('nifti',))
  assert outcome.angle is None and not outcome.notes
  assert sorted(path.name for path in tmp_path.iterdir()) == [
      'case.png', 'case_mask.png', 'case_overlay.png']


@pytest.mark.parametrize('overrides, words', [
    ({'angle.spacing': (1.0,)}, 'config.angle.spacing must be 2 numbers'),
    ({'data.top_layer': '4'}, 'no field config.data.top_layer')])
def test_wrong_overrides_are_refused(image_run, overrides, words):
  with pytest.raises(ValueError, match=words):
    load_predictor(image_run, overrides=overrides)
