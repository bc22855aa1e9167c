"""Pictures, pages and tables of measured angles, from results made by hand."""
import csv
import json

import numpy as np
from PIL import Image
import pytest

from spinejax import measure
from spinejax.measure import angles
from spinejax.report import angle_figures
from spinejax.report import cases
from tests.report.test_html import Page

CLASSES = ('background', 'spine')
TILTS = np.array([12.0, 10.0, 3.0, -6.0, -18.0, -20.0, -13.0])


def make_result(**changes):
  """An S of 32 degrees and 7 below it, on a mask [70,40] of 2 mm x 1 mm."""
  rows = np.arange(5.0, 75.0, 10.0)
  columns = 20 - np.cumsum(np.tan(np.radians(TILTS))) * 2
  curves = angles.find_curves(TILTS, angles.LEVELS[3:10], rows,
                              TILTS + np.linspace(-2, 2, 21)[:, None] * np.sign(TILTS))
  arguments = dict(spacing=(2.0, 1.0), curves=curves, levels_found=7, level_confidence='low',
                   midline=[list(point) for point in zip(rows.tolist(), columns.tolist())],
                   levels=[{'left': [row, column - 6], 'right': [row, column + 6]}
                           for row, column in zip(rows.tolist(), columns.tolist())])
  return angles.make_result('centerline Cobb', **{**arguments, **changes})


def make_mask():
  mask = np.zeros((70, 40), np.uint8)
  mask[4:66, 14:26] = 1
  return mask


def test_the_picture_keeps_millimeters_and_writes_each_angle():
  figure = angle_figures.angle_figure(np.full((70, 40), 90, np.uint8), make_mask(), make_result(),
                                      CLASSES)
  image, drawn = figure.axes
  left, right = drawn.get_xlim()
  bottom, top = drawn.get_ylim()
  assert (bottom - top, right - left) == (140, 40)  # a pixel is twice as high as wide
  assert [text.get_text() for text in drawn.texts] == ['≥ 7°', '≥ 32°']
  lines = [line.get_xydata() for line in drawn.lines]
  assert any(np.allclose(line[:, 1], [2 * 5.5 - 0.5] * 2) for line in lines)  # the first level
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['spine', 'midline']
  assert not image.texts


def test_end_lines_are_perpendicular_to_the_midline_on_the_picture():
  result = make_result(midline=[[5.0, 10.0], [65.0, 30.0]], levels=[])
  figure = angle_figures.angle_figure(None, make_mask(), result, CLASSES)
  axis, = figure.axes
  midline, *others = [line.get_xydata() for line in axis.lines]
  along = midline[-1] - midline[0]
  ends = [line for line in others if len(line) == 2 and abs(np.diff(line[:, 0])[0]) > 10]
  assert len(ends) >= 4
  for line in ends:
    across = line[1] - line[0]
    assert abs(across @ along) < 1e-6 * np.linalg.norm(across) * np.linalg.norm(along)


@pytest.mark.parametrize('mask', [np.zeros((30, 20), np.uint8), np.ones((1, 1), np.uint8)])
def test_a_failed_measurement_still_has_its_page(tmp_path, mask):
  result = measure.measure_xray(mask, None)
  cases.write_case(tmp_path, 'empty <b>', None, mask, result, CLASSES)
  page = Page((tmp_path / 'empty <b>_angle.html').read_text(encoding='utf-8'))
  assert 'no angle' in page.text and result['flags'][0] in page.text
  assert 'curves' not in page.tables
  assert 'Research software, not a medical device.' in page.text
  index = Page(cases.write_index(tmp_path, {'empty <b>': result}).read_text(encoding='utf-8'))
  assert index.tables['cases'][1][:5] == ['empty <b>', '–', '–', '–', 'fail']
  assert ('a', 'href', 'empty%20%3Cb%3E_angle.html') in index.attributes


def test_a_page_holds_what_a_reader_needs(tmp_path):
  result = make_result(calibration={'slope': 1.1, 'intercept': 2.0, 'source': 'our 50 patients'},
                       flags=['a level seems to be missing between rows 5 and 15'], partial=True)
  assert not cases.write_case(tmp_path, 'case', np.zeros((70, 40, 3)), make_mask(), result, CLASSES,
                              is_phantom=True)
  page = Page((tmp_path / 'case_angle.html').read_text(encoding='utf-8'))
  for words in ('≥ 32° (28 to 36)', 'moderate', 'with care', 'a level seems to be missing',
                'calibrated: 1.1 x angle + 2.0 (our 50 patients)', 'centerline Cobb angle',
                'phantoms', 'their names are uncertain'):
    assert words in page.text, words
  assert page.tables['curves'][1][1:6] == [
      '≥ 32°', '(28 to 36)', 'T4, row 5', 'T9, row 55', 'T7, row 35']
  assert json.loads((tmp_path / 'case_angle.json').read_text()) == result
  with Image.open(tmp_path / 'case_angle.png') as picture:
    assert picture.format == 'PNG' and picture.height > 500
  assert not list(tmp_path.glob('*.partial'))


def test_a_straight_spine_says_so(tmp_path):
  result = make_result(curves=[])
  cases.write_case(tmp_path, 'straight', None, make_mask(), result, CLASSES)
  page = Page((tmp_path / 'straight_angle.html').read_text(encoding='utf-8'))
  assert 'no curve' in page.text and result['band'] == 'none' and 'curves' not in page.tables


def test_formats_that_cannot_be_written_are_named_and_the_others_written(tmp_path):
  notes = cases.write_case(tmp_path, 'case', None, make_mask(), make_result(), CLASSES,
                           formats=('dicom_seg', 'nifti'), spacing=(2.0, 1.0))
  assert len(notes) == 1 and notes[0].startswith('no dicom_seg: ')
  assert (tmp_path / 'case_mask.nii.gz').exists()


def test_the_index_lists_every_case_and_the_table_every_curve(tmp_path):
  results = {'a': make_result(), 'b': make_result(curves=[]), 'c': make_result(failure='no spine')}
  page = Page(cases.write_index(tmp_path, results).read_text(encoding='utf-8'))
  assert [row[:2] for row in page.tables['cases'][1:]] == [
      ['a', '≥ 32°'], ['b', 'no curve'], ['c', '–']]
  assert '2 ok' in page.text and '1 fail' in page.text
  with open(tmp_path / 'angles.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [(row['case'], row['status'], row['major_deg']) for row in rows] == [
      ('a', 'ok', '32.0'), ('b', 'ok', '0.0'), ('c', 'fail', '')]
  with open(tmp_path / 'angles_curves.csv', newline='', encoding='utf-8') as file:
    assert [row['case'] for row in csv.DictReader(file)] == ['a', 'a']
