"""The command that compares two tables of angles: from files of all kinds to what it writes."""
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from spinejax.commands import agree as agreement
from spinejax.measure import angles
from spinejax.metrics import agreement as metrics
from spinejax.report import agreement_figures
from spinejax.report import agreement_page
from spinejax.handoff import files as handoff
from tests import tiny

A = 'case,angle\na,10\nb,20\nc,30\nd,40\n'
B = ('case,method,status,major_deg,flags\nd,uca,ok,38,"one, two"\nb,uca,partial,21,\n'
     'a,uca,ok,12,\ne,uca,ok,50,\nc,uca,fail,,no mask\n')


def write(path, text, encoding='utf-8'):
  path.write_bytes(text.encode(encoding))
  return path


@pytest.fixture
def compare(tmp_path):
  def of(first, second=A, **options):
    return agreement.compare_tables(write(tmp_path / 'a.csv', first),
                                    write(tmp_path / 'b.csv', second), **options)
  return of


def call(*arguments):
  return subprocess.run([sys.executable, '-m', 'spinejax.commands.agree', *map(str, arguments)],
                        cwd=tiny.ROOT, capture_output=True, text=True, timeout=120, check=False)


def printed(found, width=80):
  out = io.StringIO()
  agreement_page.print_agreement(found, Console(file=out, width=width))
  return out.getvalue()


def test_two_tables_from_the_command_to_the_files(tmp_path):
  tables = write(tmp_path / 'readers.csv', A), write(tmp_path / 'angles.csv', B)
  result = call(*tables, f'--output={tmp_path / "new" / "out"}', '--limit=1', '--bands=15,35')
  assert result.returncode == 0, result.stderr
  output = tmp_path / 'new' / 'out'
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


def test_the_command_refuses_in_one_line(tmp_path):
  table = write(tmp_path / 'a.csv', A)
  for arguments, sentence in (([table], f'expected A.csv B.csv, got {table}; see --help'),
                              ([table, table, table], 'unexpected argument')):
    result = call(*arguments)
    assert result.returncode == 1 and result.stdout == ''
    assert len(result.stderr.strip().splitlines()) == 1 and sentence in result.stderr


def test_help_is_fast():
  result = subprocess.run(
      [sys.executable, '-X', 'importtime', '-m', 'spinejax.commands.agree', '--help'], cwd=tiny.ROOT,
      capture_output=True, text=True, timeout=120, check=False)
  imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
  assert 'absl.app' in imported and not {'jax', 'numpy', 'scipy', 'matplotlib'} & imported
  assert '--columns' in result.stdout and 'The first table is the reference' in result.stdout


@pytest.mark.parametrize('text, encoding', [
    ('case,angle\na,1.5\nb,20\n', 'utf-8'),
    ('\ufeffcase,angle\r\na,1.5\r\nb,20\r\n', 'utf-8'),
    ('Patient;Cobb (°)\na;1,5\nb;20,0\n', 'cp1252'),
    ('"name"\t"Angle [deg]"\n"a"\t"1,5°"\n\n"b"\t 20\n', 'utf-16'),
    ('sep=;\nfile;note;cobb\na;"x, y, z";+1.5\nb;;2e1\n', 'utf-8'),
    ('ID, age ,UCA,\na, 12, 1.5,\nb, 13, 20.0,\n,,,\n', 'utf-8'),
    ('case,PT,MT\n a ,"1,5",7\nb,"20",\n', 'utf-8'),
    ('"the\n case",angle\n"a",1.5\nb,20\n', 'utf-8'),
    ('what,x\na,1.5\nb,20\n', 'utf-8'),
])
def test_tables_of_all_kinds(tmp_path, text, encoding):
  first = write(tmp_path / 'a.csv', text, encoding)
  columns = (['pt'], []) if 'PT' in text else ([], [])
  found = agreement.compare_tables(first, write(tmp_path / 'b.csv', 'case,angle\nb,21\na,1.0\n'),
                                   columns=columns)
  assert found['cases'] == {'a': {'reference': [1.5], 'other': [1.0]},
                            'b': {'reference': [20.0], 'other': [21.0]}}


def test_the_summary_of_measured_cases_is_such_a_table(tmp_path):
  curve = {'angle_deg': 23.5, 'ci95': [20.0, 27.0], 'upper': 'T5', 'lower': 'T12', 'apex': 'T8',
           'side': 'right', 'region': 'thoracic', 'truncated': False}
  results = {
      'x, y': angles.make_result('uca', spacing=(1.0, 1.0), curves=[curve], flags=['a', 'b;c']),
      'none': angles.make_result('uca', spacing=None, failure='no bone'),
      'straight': angles.make_result('uca', spacing=(1.0, 1.0))}
  handoff.write_summary(tmp_path / 'angles.csv', results)
  truth = write(tmp_path / 'truth.csv', 'case;cobb\nx, y;20\nnone;12\nstraight;2,5\n')
  found = agreement.compare_tables(truth, tmp_path / 'angles.csv')
  assert found['cases'] == {'x, y': {'reference': [20.0], 'other': [23.5]},
                            'straight': {'reference': [2.5], 'other': [0.0]}}
  assert found['left_out']['failed_in_other'] == ['none']


def test_columns_are_guessed_together_and_can_be_named(compare):
  triple = 'case,pt,mt,tl,major_deg\na,10,20,10,20\nb,5,30,0,30\n'
  found = compare(triple, 'name;TL;MT;PT\na;5;25;10\nb;0;30;5\n')
  assert found['other']['columns'] == ['PT', 'MT', 'TL'] and found['reference']['key'] == 'case'
  assert list(found['angles']) == ['pt', 'mt', 'tl']
  assert found['case_smape']['smape'] == pytest.approx(100 * (10 / 80 + 0) / 2)
  assert 'SMAPE over the 3 angles of a case: 6.2 %' in ' '.join(printed(found).split())
  found = compare(triple, 'name;cobb\na;25\nb;30\n')
  assert list(found['angles']) == ['major_deg'] and found['case_smape'] is None
  found = compare(triple, 'name;x;y\na;25;1\nb;30;2\n', columns=(['MT'], ['x']))
  assert found['reference']['columns'] == ['mt'] and found['angles']['mt']['bias'] == 2.5
  found = compare('case,x,y\na,1,2\n', 'case,X,z\na,1,9\n', columns=(['x'], []))
  assert found['other']['columns'] == ['X']
  found = compare('case,x,who\na,1,p\n', 'case,who,x\na,p,3\n', keys=('who', 'who'),
                  columns=(['x'], []))
  assert found['cases'] == {'p': {'reference': [1.0], 'other': [3.0]}}


def test_two_readers_in_one_table(tmp_path):
  table = write(tmp_path / 'readers.csv', 'case,first,second\na,10,12\nb,20,21\n')
  found = agreement.compare_tables(table, table, columns=(['first'], ['second']))
  assert (found['reference']['name'], found['other']['name']) == ('first', 'second')
  with pytest.raises(ValueError, match='would be compared with itself'):
    agreement.compare_tables(table, table, columns=(['first'], []))


def test_tables_of_one_name_are_told_apart(tmp_path):
  for folder in 'xy':
    (tmp_path / folder).mkdir()
    write(tmp_path / folder / 'angles.csv', A)
  found = agreement.compare_tables(tmp_path / 'x' / 'angles.csv', tmp_path / 'y' / 'angles.csv')
  assert (found['reference']['name'], found['other']['name']) == ('x/angles', 'y/angles')


def test_what_is_left_out_is_counted_and_named(compare):
  known = ''.join(f'x{i},5,ok\n' for i in range(7))
  found = compare(f'case,angle,status\n{known}a,,\nb,nan,\nc,3,FAIL\n')
  assert found['left_out'] == {
      'only_in_reference': [f'x{i}' for i in range(7)], 'only_in_other': ['d'],
      'failed_in_reference': ['c'], 'failed_in_other': [], 'without_angle': ['a', 'b']}
  assert found['angles']['angle']['pairs'] == 0 and found['angles']['angle']['left_out'] == 2
  text = ' '.join(printed(found).split())
  assert 'only in a: 7 (x0, x1, x2, x3, x4, …)' in text and 'there is no pair of angles' in text
  assert 'nan' not in text.lower() and 'Same band: –' in text


def test_different_methods_are_noted(compare):
  found = compare('case,method,angle\na,spa,3\n', 'case,method,angle\na,uca,4\n')
  assert 'The angles are of different methods, spa, uca' in printed(found)


@pytest.mark.parametrize('text, sentence', [
    ('', 'a.csv: the file is empty'),
    ('\n\n', 'a.csv is empty'),
    ('case,angle\n', 'a.csv has a header but no row'),
    ('case\na\n', "a.csv has a single column, 'case'"),
    ('a,10\nb,20\n', 'no header row .its first row is a, 10'),
    ('a;10,5\nb;20,5\n', 'no header row'),
    ('case,x,y\na,1,2\n', 'a.csv: no telling .* --columns. Its columns: case, x, y'),
    ('case,angle\na,1\nb,2\na,3\n', "has 'a' in rows 2 and 4"),
    ('case,angle\na,1\n\nb,twelve\n', "a.csv, row 4: 'twelve' in column 'angle' is no angle"),
    ('case,angle\na,1_0\n', "row 2: '1_0'"),
    ('case,angle\na,inf\n', "row 2: 'inf'"),
    ('case,angle\na,180.5\n', 'a number within ±180'),
    ('case,angle\na,"1.234,5"\n', "row 2: '1.234,5'"),
    ('case,angle\na,1,5\n', 'row 2 has 3 cells under 2 column names'),
    ('case,angle\n,5\n', "row 2 has no name of a case in column 'case'"),
    ('case,angle,angle\na,1,2\n', "has 2 columns 'angle'"),
    ('case,angle\nq,1\nr,2\n', "no case in common; 2 such as 'q' against 4 such as 'a'"),
    ('case,pt,mt,tl\na,1,2,3\n', 'pt, mt, tl of .*a.csv against angle of .*b.csv: give as many'),
    ('PK\x03\x04', 'is a spreadsheet'),
    ('case,angle\na,\0\n', 'is not a text table'),
    ('case,angle\na,"' + 'x' * 200_000 + '"\n', 'line 2: the line cannot be read as a table'),
])
def test_hostile_tables_are_refused_with_file_and_row(compare, text, sentence):
  with pytest.raises(ValueError, match=sentence):
    compare(text)


def test_wrong_paths_columns_and_bands_are_refused(compare, tmp_path):
  with pytest.raises(FileNotFoundError, match='none.csv: there is no such file'):
    agreement.compare_tables(tmp_path / 'none.csv', tmp_path / 'none.csv')
  with pytest.raises(ValueError, match='is a folder'):
    agreement.compare_tables(tmp_path, tmp_path)
  for options, sentence in (
      ({'columns': (['cob'], [])}, "a.csv has no column 'cob'; choose with --columns. Its columns"),
      ({'columns': ([], ['cob'])}, "b.csv has no column 'cob'; choose with --columns_b"),
      ({'columns': (['case'], [])}, '--columns names case, which holds the names'),
      ({'keys': (None, 'who')}, "b.csv has no column 'who'; choose with --key_b"),
      ({'bands': (25, 10)}, '--bands takes rising positive degrees .* not 25,10')):
    with pytest.raises(ValueError, match=sentence):
      compare(A, **options)
  with pytest.raises(ValueError, match='must be a folder, .* is a file'):
    agreement.write_files(write(tmp_path / 'file', ''), compare(B, A))


def test_pages_are_renewed_and_hold_strange_names(compare, tmp_path):
  strange = 'case,$x_1$,<i>mt\n"<b>$x_1$",1,2\n'
  found = compare(strange, strange.replace('2', '4'), columns=(['$x_1$', '<i>mt'], []))
  page = agreement.write_files(tmp_path / 'out', found)
  text = page.read_text()
  assert '<b>$x' not in text and '<i>mt' not in text and '&lt;b&gt;$x_1$' in text
  assert {path.name for path in page.parent.glob('*.png')} == {
      'bland_altman_1_x_1.png', 'bland_altman_2_i_mt.png', 'scatter_1_x_1.png',
      'scatter_2_i_mt.png'}
  agreement.write_files(tmp_path / 'out', compare(A, B))
  assert {path.name for path in page.parent.glob('*.png')} == {'bland_altman.png', 'scatter.png'}


@pytest.mark.parametrize('n', [0, 1, 2, 300])
def test_figures_draw_what_is_defined(n):
  rng = np.random.default_rng(0)
  a = rng.uniform(0, 70, n)
  b = a + rng.normal(0, 4, n)
  found = metrics.agree(a, b)
  plot = agreement_figures.bland_altman([*a, None], [*b, 3.0], found, ('$a_1$', 'b')).axes[0]
  texts = [text.get_text() for text in plot.texts]
  assert len(texts) == {0: 1, 1: 1}.get(n, 3)
  for axis in (plot, agreement_figures.scatter(a, b, found).axes[0]):
    axis.figure.canvas.draw()
    if n:
      dots = next(line for line in axis.get_lines() if line.get_linestyle() == 'None')
      x, y = dots.get_data()
      assert len(x) == n
      for values, (low, high) in ((x, axis.get_xlim()), (y, axis.get_ylim())):
        assert low <= values.min() and values.max() <= high
    else:
      assert [text.get_text() for text in axis.texts] == ['no pair of angles']
  if n > 1:
    dashed = [line.get_ydata()[0] for line in agreement_figures.bland_altman(
        a, b, found).axes[0].get_lines() if line.get_linestyle() == '--']
    assert sorted(dashed) == found['limits']
