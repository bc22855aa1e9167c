"""spinejax measure: from files to angles, pages and tables; what it refuses."""
import csv
import json

import numpy as np
from PIL import Image
import pytest

from spinejax.inference import measure_files
from spinejax.readers import layouts
from tests import processes
from tests.measurement.test_mask import bow, laminae_points


def call(*arguments):
  return processes.call('-m', 'spinejax', 'measure', *arguments)


@pytest.fixture
def folders(tmp_path):
  """Masks, one of them empty, with images of their names."""
  for folder in ('masks', 'images'):
    (tmp_path / folder).mkdir()
  for name, mask in {'bow': bow(), 'empty': np.zeros((50, 50), np.uint8)}.items():
    Image.fromarray(mask).save(tmp_path / 'masks' / f'{name}.png')
    Image.fromarray(mask * 90 + 40).save(tmp_path / 'images' / f'{name}.jpg')
  return tmp_path


def test_a_folder_of_masks_from_the_command_to_the_files(folders):
  (folders / 'masks' / 'notes.txt').write_text('no mask')
  output = folders / 'out'
  result = call(folders / 'masks', '--spacing=1,0.5', f'--image={folders / "images"}',
                f'--output={output}', '--formats=nifti,markups')
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


def test_a_folder_of_images_is_listed_once(folders, monkeypatch):
  paths, listed = layouts.list_images(folders / 'masks'), []
  list_images = layouts.list_images
  monkeypatch.setattr(layouts, 'list_images', lambda path: listed.append(path) or list_images(path))
  outcomes = list(measure_files.measure_files(paths, measure_files.Settings(spacing=(1.0, 1.0)),
                                              folders / 'images'))
  assert [outcome.angle.status for outcome in outcomes] == ['ok', 'fail']
  assert listed == [folders / 'images']


def test_files_are_measured_by_what_they_hold(folders):
  image = folders / 'images' / 'bow.jpg'
  corners = np.stack([[[20 + 12 * i, 50], [20 + 12 * i, 70], [28 + 12 * i, 50], [28 + 12 * i, 70]]
                      for i in range(17)]).reshape(68, 2).astype(float)
  table = folders / 'bow.csv'
  table.write_text(','.join(map(str, [*corners[:, 1], *corners[:, 0]])))
  volume = np.zeros((320, 30, 8), np.uint8)
  for down, left, deep in (laminae_points() + [5, 4, 3]).astype(int):
    volume[down:down + 3, left:left + 3, deep:deep + 2] = 1
  np.savez(folders / 'laminae.npz', label=volume, spacing=np.ones(3, np.float32))
  for path, method, expected in ((folders / 'masks' / 'bow.png', 'spa', 'spa'),
                                 (table, 'landmark_cobb', 'landmark Cobb'),
                                 (folders / 'laminae.npz', None, 'center of lamina')):
    settings = measure_files.Settings(method=method, spacing=(1.0, 1.0))
    outcome, = measure_files.measure_files(
        [path], settings, image if method else None, None if method else folders)
    result = outcome.angle
    assert result.method == expected
    assert expected == 'spa' or (result.status == 'ok' and result.levels_found == 17)
  lines = (folders / 'laminae_laminae.csv').read_text().splitlines()
  assert lines[0] == 'i,j,k,x,y,z,level,side,confidence,found' and len(lines) == 35
  assert lines[1].endswith(',T1,right,0.99,True') and lines[34].endswith(',L5,left,0.99,True')


@pytest.mark.parametrize('arguments, sentence', [
    ([], 'expected MASK'),
    (['nowhere.png'], 'nowhere.png: there is no such file or folder.'),
    (['mask.png', '--spacing=wide'], '--spacing takes numbers'),
    (['mask.png', '--method=spa'], 'spa needs the image, by --image.'),
    (['mask.png', '--bands=1,2'], 'bands must be 3 rising limits'),
    (['mask.png', '--formats=obj'], "unknown format 'obj'"),
])
def test_refusals_are_one_sentence(tmp_path, arguments, sentence):
  Image.fromarray(bow()).save(tmp_path / 'mask.png')
  arguments = [str(tmp_path / a) if a == 'mask.png' else a for a in arguments]
  result = call(*arguments)
  assert result.returncode != 0 and sentence in result.stderr, result.stderr
  assert 'Traceback' not in result.stderr
