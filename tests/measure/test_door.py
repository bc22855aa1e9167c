"""Masks from anywhere to angles: the settings, and the command with its files and refusals."""
import csv
import json
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from spinejax import measure
from tests import tiny

VPI = ('background', 'rib', 'thoracic process', 'lump')


def call(*arguments):
  return subprocess.run([sys.executable, '-m', 'spinejax.commands.measure', *map(str, arguments)],
                        cwd=tiny.ROOT, capture_output=True, text=True, timeout=120, check=False)


def bow(shape=(240, 120), degrees=15.0):
  """An X-ray mask whose midline is an arc that turns from -degrees to degrees."""
  rows, columns = np.mgrid[:shape[0], :shape[1]]
  radius = shape[0] / 2 / np.sin(np.radians(degrees))
  middle = shape[1] / 2 - radius + np.sqrt(radius**2 - (rows - shape[0] / 2)**2)
  inside = (rows > 12) & (rows < shape[0] - 12)
  return ((np.abs(columns - middle) < 9) & inside).astype(np.uint8)


def test_a_mask_is_measured_by_the_method_and_the_classes_named():
  result = measure.measure_mask(bow(), 1.0, method='centerline_cobb', classes=('b', 'spine'))
  assert result['status'] != 'fail' and result['major_deg'] == pytest.approx(25, abs=4)
  result = measure.measure_mask(bow(), 1.0, method='uca', classes=('b', 'x', 'y', 'z'))
  assert result['status'] == 'fail' and 'the classes are b, x, y, z' in result['flags'][0]
  for spacing in (None, (), (np.nan, 1.0)):
    result = measure.measure_mask(bow(), spacing, method='centerline_cobb', classes=('b', 'spine'))
    assert result['status'] == 'fail' and 'spacing is unknown' in result['flags'][0]


def test_every_method_takes_bands_and_calibration():
  options = dict(bands=(5.0, 15.0, 20.0), calibration=(2.0, 1.0, 'a test'))
  result = measure.measure_mask(bow(), 1.0, method='centerline_cobb', classes=VPI[:2], **options)
  assert result['band'].endswith('severe')
  assert result['calibrated_deg'] == pytest.approx(2 * result['major_deg'] + 1, abs=0.01)
  assert result['calibration'] == {'slope': 2.0, 'intercept': 1.0, 'source': 'a test'}
  points = np.stack([np.repeat(np.arange(17) * 18.0, 2), np.tile([0.0, 20.0], 17),
                     np.zeros(34)], -1)
  result = measure.measure_mask(np.zeros((1, 1, 1)), 1.0, method='center_of_lamina',
                                classes=('b', 'lamina'), points=points, **options)
  assert result['calibrated_deg'] == 1.0 and result['band'].startswith('none')


@pytest.mark.parametrize('options, sentence', [
    ({'method': 'cobb'}, 'the method must be one of uca, center_of_lamina, centerline_cobb'),
    ({'bands': (10.0, 25.0)}, 'bands must be 3 rising limits'),
    ({'bands': (25.0, 10.0, 40.0)}, 'bands must be 3 rising limits'),
    ({'min_deg': 0.0}, 'min_deg must be degrees above 0'),
    ({'min_deg': float('nan')}, 'min_deg must be degrees above 0'),
    ({'calibration': (1.0, 2.0)}, 'calibration must be'),
    ({'calibration': ('steep', 2.0, 'us')}, 'calibration must be'),
])
def test_wrong_settings_are_one_sentence(options, sentence):
  with pytest.raises(ValueError, match=sentence):
    measure.measure_mask(bow(), 1.0, **{'method': 'uca', 'classes': VPI, **options})


def test_a_folder_of_masks_from_the_command_to_the_files(tmp_path):
  masks, images = tmp_path / 'masks', tmp_path / 'images'
  masks.mkdir(), images.mkdir()
  for name, mask in {'bow': bow(), 'empty': np.zeros((50, 50), np.uint8)}.items():
    Image.fromarray(mask).save(masks / f'{name}.png')
    Image.fromarray(mask * 90 + 40).save(images / f'{name}.jpg')
  (masks / 'notes.txt').write_text('no mask')
  output = tmp_path / 'out'
  result = call(masks, '--spacing=1,0.5', f'--image={images}', f'--output={output}',
                '--formats=nifti,markups')
  assert result.returncode == 1 and 'Traceback' not in result.stderr
  assert 'skipped:' in result.stderr and 'notes.txt' in result.stderr
  assert 'Research software, not a medical device.' in result.stdout
  with open(output / 'angles.csv', newline='', encoding='utf-8') as file:
    rows = {row['case']: row for row in csv.DictReader(file)}
  assert rows['bow']['method'] == 'centerline Cobb' and rows['empty']['status'] == 'fail'
  found = json.loads((output / 'bow_angle.json').read_text())
  assert found['spacing'] == [1.0, 0.5] and found['status'] != 'fail'
  assert found['major_deg'] == pytest.approx(13, abs=3)  # half as wide, so it bows half as much
  for name in ('index.html', 'bow_angle.png', 'bow_angle.html', 'bow_mask.nii.gz', 'bow.mrk.json',
               'empty_angle.html', 'angles_curves.csv'):
    assert (output / name).exists(), name


@pytest.mark.parametrize('arguments, sentence', [
    ([], 'expected MASK'),
    (['nowhere.png'], 'nowhere.png: there is no such file or folder.'),
    (['mask.png', '--spacing=wide'], '--spacing takes numbers'),
    (['mask.png', '--method=spa'], 'spa needs the image, by --image.'),
    (['mask.png', '--bands=1,2'], 'bands must be 3 rising limits'),
])
def test_refusals_are_one_sentence(tmp_path, arguments, sentence):
  Image.fromarray(bow()).save(tmp_path / 'mask.png')
  arguments = [str(tmp_path / a) if a == 'mask.png' else a for a in arguments]
  result = call(*arguments)
  assert result.returncode != 0 and sentence in result.stderr, result.stderr
  assert 'Traceback' not in result.stderr
