"""The verb agree: from two tables to what it prints and writes, and what it refuses."""
import json

import pytest
from PIL import Image

from spinejax.handoff import tables as summaries
from spinejax.measurement.results import AngleResult, Curve
from spinejax.readers import angle_tables
from tests import processes

A = 'case,angle\na,10\nb,20\nc,30\nd,40\n'
B = ('case,method,status,major_deg,flags\nd,uca,ok,38,"one, two"\nb,uca,partial,21,\n'
     'a,uca,ok,12,\ne,uca,ok,50,\nc,uca,fail,,no mask\n')


def call(*arguments):
  return processes.call('-m', 'spinejax', 'agree', *arguments)


@pytest.fixture
def tables(tmp_path):
  (tmp_path / 'readers.csv').write_text(A)
  (tmp_path / 'angles.csv').write_text(B)
  return tmp_path / 'readers.csv', tmp_path / 'angles.csv'


def test_two_tables_from_the_command_to_the_files(tmp_path, tables):
  output = tmp_path / 'new' / 'out'
  result = call(*tables, f'--output={output}', '--limit=1', '--bands=15,35')
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert max(map(len, lines[:-1])) <= 80
  assert lines[0].strip() == 'angles: major_deg against readers: angle, 3 cases'
  assert lines[-1] == f'Agreement: {output / "index.html"}'
  text = ' '.join(result.stdout.split())
  for words in ('1.7 ± 0.6°', 'Within 1° 33 %, 1 of 3', 'Left out, failed in angles: 1 (c).',
                'only in angles: 1 (e)', 'Research software, not a medical device',
                'interval of r undefined: needs at least four pairs', '15 to 35°',
                '35° and more 1.00 (1/1) 1.00 (2/2)'):
    assert words in text, words
  stored = json.loads((output / 'agreement.json').read_text())
  assert stored['notice'] == 'Research software, not a medical device.'
  assert stored['cases'] == {'a': {'reference': [10.0], 'other': [12.0]},
                             'b': {'reference': [20.0], 'other': [21.0]},
                             'd': {'reference': [40.0], 'other': [38.0]}}
  assert stored['angles']['angle']['mad'] == pytest.approx(5 / 3)
  assert stored['angles']['angle']['bands']['limits'] == [15.0, 35.0, None]
  assert stored['left_out'] == {
      'only_in_reference': [], 'only_in_other': ['e'], 'failed_in_reference': [],
      'failed_in_other': ['c'], 'without_angle': []}
  assert sorted(path.name for path in output.iterdir()) == [
      'agreement.json', 'bland_altman.png', 'index.html', 'scatter.png']
  with Image.open(output / 'bland_altman.png') as picture:
    assert picture.width > 600
  page = (output / 'index.html').read_text()
  assert page.count('<svg') == 2 and 'http' not in page.replace('http-equiv', '')
  for words in ('not a medical device', 'angles against readers', '33 %, 1 of 3', str(tables[1])):
    assert words in page, words


@pytest.mark.parametrize('places, flags, sentence', [
    ((0,), (), 'expected A.csv B.csv, got {}; see --help'),
    ((0, 1), ('--bands=25,10',), 'rising positive degrees such as 10,25,40, got 25,10'),
    ((0, 1), ('--output={}',), '--output must be a folder; {} is a file')])
def test_the_command_refuses_in_one_line(tables, places, flags, sentence):
  result = call(*(tables[i] for i in places), *(flag.format(tables[0]) for flag in flags))
  assert result.returncode == 1 and result.stdout == ''
  assert len(result.stderr.strip().splitlines()) == 1
  assert sentence.format(tables[0]) in result.stderr


def test_the_summary_of_measured_cases_is_such_a_table(tmp_path):
  curve = Curve(23.5, (20.0, 27.0), 'T5', 'T12', 'T8', 1.0, 9.0, 5.0, 'right', 'thoracic', False)
  summaries.write_summary(tmp_path / 'angles.csv', {
      'x, y': AngleResult('uca', 'ok', (curve,), 23.5, flags=('a', 'b;c')),
      'none': AngleResult('uca', 'fail', flags=('no bone',)),
      'straight': AngleResult('uca', 'ok', major_deg=0.0)})
  (tmp_path / 'truth.csv').write_text('case;cobb\nx, y;20\nnone;12\nstraight;2,5\n')
  truth, measured = angle_tables.read_pair(tmp_path / 'truth.csv', tmp_path / 'angles.csv')
  assert truth.angles == {'x, y': (20.0,), 'none': (12.0,), 'straight': (2.5,)}
  assert measured.angles == {'x, y': (23.5,), 'straight': (0.0,)} and measured.failed == ('none',)
