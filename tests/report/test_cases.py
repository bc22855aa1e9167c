"""Pictures and pages of measured angles, from results made by hand."""
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from spinejax.measurement.results import AngleResult, Calibration, Curve, Level
from spinejax.report import overlays, pages
from tests.report.html_page import Page

CLASSES = ('background', 'spine')
ROWS = np.arange(5.0, 75.0, 10.0).tolist()
COLUMNS = [20.0, 19.6, 19.5, 19.7, 20.4, 21.1, 21.6]
UPPER = Curve(32.0, (28.0, 36.0), 'T4', 'T9', 'T7', 5.0, 55.0, 35.0, 'right', 'thoracic', True,
              2.0, 28.7)
LOWER = Curve(7.0, None, 'T9', None, 'T10', 55.0, 65.0, 65.0, 'left', None, True)
RESULT = AngleResult(
    'centerline Cobb', 'ok', (LOWER, UPPER), 32.0, 'moderate', (28.0, 36.0), 2.0, 28.7,
    levels_found=7, level_confidence='low', spacing=(2.0, 1.0), midline=tuple(zip(ROWS, COLUMNS)),
    midline_sd=(1.0,) * 7,
    levels=tuple(Level(None, row, column, 0.0, left=(row, column - 6), right=(row, column + 6))
                 for row, column in zip(ROWS, COLUMNS)))
FAILED = AngleResult('centerline Cobb', 'fail', flags=('the mask is empty',))
MASK = np.zeros((70, 40), np.uint8)
MASK[4:66, 14:26] = 1


def test_the_picture_keeps_millimeters_and_writes_each_angle():
  figure = overlays.angle_figure(np.full((70, 40), 90, np.uint8), MASK, RESULT, CLASSES)
  image, drawn = figure.axes
  left, right = drawn.get_xlim()
  bottom, top = drawn.get_ylim()
  assert (bottom - top, right - left) == (140, 40)  # a pixel is twice as high as wide
  assert [text.get_text() for text in drawn.texts] == ['7°', '32°']
  band, = drawn.collections
  assert np.ptp(band.get_paths()[0].vertices[:, 0]) == pytest.approx(4 + np.ptp(COLUMNS))
  lines = [line.get_xydata() for line in drawn.lines]
  assert any(np.allclose(line[:, 1], [2 * 5.5 - 0.5] * 2) for line in lines)  # the first level
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['spine', 'midline']
  assert not image.texts


def test_end_lines_are_perpendicular_to_the_midline_on_the_picture():
  result = dataclasses.replace(RESULT, midline=((5.0, 10.0), (65.0, 30.0)),
                               midline_sd=(), levels=())
  axis, = overlays.angle_figure(None, MASK, result, CLASSES).axes
  midline, *others = [line.get_xydata() for line in axis.lines]
  along = midline[-1] - midline[0]
  ends = [line for line in others if len(line) == 2 and abs(np.diff(line[:, 0])[0]) > 10]
  assert len(ends) >= 4
  for line in ends:
    across = line[1] - line[0]
    assert abs(across @ along) < 1e-6 * np.linalg.norm(across) * np.linalg.norm(along)


@pytest.mark.parametrize('mask', [np.zeros((30, 20), np.uint8), np.ones((1, 1), np.uint8)])
def test_a_failed_measurement_still_has_its_page(tmp_path, mask):
  pages.write_case(tmp_path, 'empty <b>', None, mask, FAILED, CLASSES)
  page = Page((tmp_path / 'empty <b>_angle.html').read_text(encoding='utf-8'))
  assert 'no angle' in page.text and 'the mask is empty' in page.text
  assert 'curves' not in page.tables
  assert 'Research software, not a medical device.' in page.text
  index = Page(pages.write_index(tmp_path, {'empty <b>': FAILED}).read_text(encoding='utf-8'))
  assert index.tables['cases'][1][:5] == ['empty <b>', '–', '–', '–', 'fail']
  assert ('a', 'href', 'empty%20%3Cb%3E_angle.html') in index.attributes


def test_a_page_holds_what_a_reader_needs(tmp_path):
  result = dataclasses.replace(
      RESULT, status='partial', flags=('a level seems to be missing',),
      calibration=Calibration(1.1, 2.0, 'our 50 patients'), calibrated_deg=37.2)
  pages.write_case(tmp_path, 'case', np.zeros((70, 40, 3)), MASK, result, CLASSES)
  page = Page((tmp_path / 'case_angle.html').read_text(encoding='utf-8'))
  for words in ('32° (28 to 36), at least 29°', 'expected error 2.0°', 'moderate', 'with care',
                'a level seems to be missing',
                '37° calibrated: 1.1 x angle + 2.0 (our 50 patients)', 'centerline Cobb angle',
                'their names are uncertain'):
    assert words in page.text, words
  assert page.tables['curves'][1:] == [
      ['thoracic', '32°', '(28 to 36), at least 29°', 'T4, row 5', 'T9, row 55', 'T7, row 35',
       'image right'],
      ['curve', '7°', '–', 'T9, row 55', 'row 65', 'T10, row 65', 'image left']]
  assert json.loads((tmp_path / 'case_angle.json').read_text()) == result.to_json()
  with Image.open(tmp_path / 'case_angle.png') as picture:
    assert picture.format == 'PNG' and picture.height > 500


def test_the_page_of_a_volume_tells_rotation_and_plane(tmp_path):
  curve = dataclasses.replace(UPPER, rotation_deg=-12.0, pmc_deg=30.0, pmc_angle_deg=38.0)
  result = dataclasses.replace(RESULT, curves=(curve,), midline=tuple(
      (row, column, 3.0) for row, column in RESULT.midline), spacing=(2.0, 1.0, 1.0))
  volume = np.repeat(MASK[..., None], 5, 2)
  pages.write_case(tmp_path, 'case', volume * 100.0, volume, result, CLASSES)
  page = Page((tmp_path / 'case_angle.html').read_text(encoding='utf-8'))
  assert page.tables['curves'][1][-3:] == ["patient's right", '−12°', '38° at 30°']


def test_the_index_lists_every_case(tmp_path):
  straight = dataclasses.replace(RESULT, curves=(), major_deg=0.0, band='none')
  results = {'a': RESULT, 'b': straight, 'c': FAILED}
  pages.write_case(tmp_path, 'b', None, MASK, straight, CLASSES)
  assert 'no curve' in Page((tmp_path / 'b_angle.html').read_text(encoding='utf-8')).text
  page = Page(pages.write_index(tmp_path, results).read_text(encoding='utf-8'))
  assert [row[:2] for row in page.tables['cases'][1:]] == [
      ['a', '32°'], ['b', 'no curve'], ['c', '–']]
  assert '3 cases · 1 fail · 2 ok' in page.text
