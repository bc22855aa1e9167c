"""Tables of angles of all kinds: which columns are taken, and what is refused."""
import pytest

from spinejax.readers import angle_tables

A = 'case,angle\na,10\nb,20\nc,30\nd,40\n'


def write(path, text, encoding='utf-8'):
  path.write_bytes(text.encode(encoding))
  return path


@pytest.fixture
def read(tmp_path):
  def of(first, second=A, **options):
    return angle_tables.read_pair(write(tmp_path / 'a.csv', first),
                                  write(tmp_path / 'b.csv', second), **options)
  return of


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
  second = write(tmp_path / 'b.csv', 'case,angle\nb,21\na,1.0\n')
  columns = (['pt'], []) if 'PT' in text else ([], [])
  first, second = angle_tables.read_pair(first, second, columns=columns)
  assert first.angles == {'a': (1.5,), 'b': (20.0,)}
  assert second.angles == {'b': (21.0,), 'a': (1.0,)} and second.path == tmp_path / 'b.csv'


def test_columns_are_guessed_together_and_can_be_named(read):
  triple = 'case,pt,mt,tl,major_deg\na,10,20,10,20\nb,5,30,0,30\n'
  first, second = read(triple, 'name;TL;MT;PT\na;5;25;10\nb;0;30;5\n')
  assert first.columns == ('pt', 'mt', 'tl') and second.columns == ('PT', 'MT', 'TL')
  assert (first.key, second.key) == ('case', 'name') and second.angles['a'] == (10.0, 25.0, 5.0)
  first, second = read(triple, 'name;cobb\na;25\nb;30\n')
  assert (first.columns, second.columns) == (('major_deg',), ('cobb',))
  first, second = read(triple, 'name;x;y\na;25;1\nb;30;2\n', columns=(['MT'], ['x']))
  assert (first.columns, second.columns) == (('mt',), ('x',))
  first, second = read('case,x,y\na,1,2\n', 'case,X,z\na,1,9\n', columns=(['x'], []))
  assert second.columns == ('X',)
  first, second = read('case,x,who\na,1,p\n', 'case,who,x\na,p,3\n', keys=('who', 'who'),
                       columns=(['x'], []))
  assert first.angles == {'p': (1.0,)} and second.angles == {'p': (3.0,)}
  first, _ = read('X,x,angle\na,1,2\n', keys=('x', None))
  assert first.angles == {'1': (2.0,)}


def test_failed_cases_missing_angles_and_methods_are_told(read):
  first, second = read('case,method,angle,status\na,spa,,ok\nb,,nan,ok\nc,uca,3,FAIL\n')
  assert first.angles == {'a': (None,), 'b': (None,)} and first.failed == ('c',)
  assert first.methods == {'spa', 'uca'} and first.cases == ['a', 'b', 'c']
  assert second.methods == frozenset()


@pytest.mark.parametrize('text, sentence', [
    ('', 'a.csv.* is empty'),
    ('\n\n', 'a.csv.* is empty'),
    ('case,angle\n', 'a.csv: there is no row below the header'),
    ('case\na\n', "a.csv: there is a single column, 'case'"),
    ('a,10\nb,20\n', r'a.csv: the first row \(a, 10\) is not a header'),
    ('a;10,5\nb;20,5\n', 'is not a header'),
    ('case,x,y\na,1,2\n', 'a.csv: it is not clear which .* --columns. Its columns: case, x, y'),
    ('case,angle\na,1\nb,2\na,3\n', "has 'a' in lines 2 and 4"),
    ('case,angle\na,1\n\nb,twelve\n', "a.csv line 4: 'twelve' in column 'angle' is not an angle"),
    ('case,angle\na,1_0\n', "line 2: '1_0'"),
    ('case,angle\na,inf\n', "line 2: 'inf'"),
    ('case,angle\na,180.5\n', 'degrees within ±180'),
    ('case,angle\na,"1.234,5"\n', "line 2: '1.234,5'"),
    ('case,angle\na,1,5\n', 'line 2: there are 3 cells for 2 columns'),
    ('case,angle\n,5\n', "line 2: the column 'case' has no name of a case"),
    ('case,angle,angle\na,1,2\n', "has 2 columns 'angle'"),
    ('case,pt,mt,tl\na,1,2,3\n', 'as many angles .* pt, mt, tl in .*a.csv and angle in .*b.csv'),
    ('PK\x03\x04', 'is a spreadsheet'),
    ('case,angle\na,\0\n', 'is not a text table'),
    ('case,angle\na,"' + 'x' * 200_000 + '"\n', 'line 2: .* cannot be read as a table'),
])
def test_hostile_tables_are_refused_with_file_and_line(read, text, sentence):
  with pytest.raises(ValueError, match=sentence):
    read(text)


@pytest.mark.parametrize('options, sentence', [
    ({'columns': (['cob'], [])}, "a.csv has no column 'cob'; choose with --columns. Its columns"),
    ({'columns': ([], ['cob'])}, "b.csv has no column 'cob'; choose with --columns_b"),
    ({'columns': (['case'], [])}, '--columns names case, which holds the names'),
    ({'keys': (None, 'who')}, "b.csv has no column 'who'; choose with --key_b")])
def test_columns_that_are_not_there_are_refused(read, options, sentence):
  with pytest.raises(ValueError, match=sentence):
    read(A, **options)


def test_paths_that_are_no_tables_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.csv'):
    angle_tables.read_pair(tmp_path / 'none.csv', tmp_path / 'none.csv')
  with pytest.raises(ValueError, match='is a folder'):
    angle_tables.read_pair(tmp_path, tmp_path)
