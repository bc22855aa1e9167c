"""Two tables of angles, paired by case."""
import pathlib

import pytest

from spinejax.measurement.results import AngleTable
from spinejax.metrics import paired_tables


def table(path, angles, columns=('angle',), **fields):
  return AngleTable(pathlib.Path(path), 'case', columns, angles, **fields)


TRIPLE = table('a.csv', {'a': (10.0, 20.0, 10.0), 'b': (5.0, 30.0, 0.0)}, ('pt', 'mt', 'tl'))


def test_each_angle_is_rated_and_all_angles_of_a_case_together():
  other = table('b.csv', {'b': (5.0, 30.0, 0.0), 'a': (10.0, 25.0, 5.0)}, ('PT', 'MT', 'TL'))
  found = paired_tables.compare_tables(TRIPLE, other, limit=4, bands=(15, 25))
  assert list(found.angles) == ['pt', 'mt', 'tl'] and found.other.columns == ('PT', 'MT', 'TL')
  assert found.angles['mt'].bias == 2.5 and found.angles['mt'].num_within == 1
  assert found.angles['mt'].bands.names == ('below 15°', '15 to 25°', '25° and more')
  assert found.case_smape.smape == pytest.approx(100 * (10 / 80 + 0) / 2)
  assert found.cases['a'] == {'reference': (10.0, 20.0, 10.0), 'other': (10.0, 25.0, 5.0)}
  assert (found.reference.name, found.other.name) == ('a', 'b')


def test_cases_left_out_are_told():
  known = {f'x{i}': (5.0,) for i in range(7)}
  first = table('a.csv', {**known, 'a': (None,), 'b': (None,)}, failed=('c',))
  second = table('b.csv', {case: (10.0,) for case in 'abcd'})
  found = paired_tables.compare_tables(first, second)
  assert found.left_out == {
      'only_in_reference': tuple(known), 'only_in_other': ('d',), 'failed_in_reference': ('c',),
      'failed_in_other': (), 'without_angle': ('a', 'b')}
  assert found.angles['angle'].pairs == 0 and found.angles['angle'].left_out == 2
  assert found.case_smape is None


@pytest.mark.parametrize('first, second, names', [
    ('a.csv', 'b.csv', ('a', 'b')), ('x/a.csv', 'y/a.csv', ('x/a', 'y/a')),
    ('a.csv', 'a.csv', ('first', 'second'))])
def test_measurements_have_different_names(first, second, names):
  found = paired_tables.compare_tables(table(first, {'a': (1.0,)}, ('first',)),
                                       table(second, {'a': (2.0,)}, ('second',)))
  assert (found.reference.name, found.other.name) == names


def test_other_methods_are_noted():
  first, second = (table(f'{name}.csv', {'a': (3.0,)}, methods=frozenset([name]))
                   for name in ('spa', 'uca'))
  assert 'of different methods (spa, uca)' in paired_tables.compare_tables(first, second).notes[0]
  assert paired_tables.compare_tables(first, table('b.csv', {'a': (3.0,)})).notes == ()


def test_tables_that_cannot_be_compared_are_refused():
  with pytest.raises(ValueError, match='would be compared with itself'):
    paired_tables.compare_tables(TRIPLE, TRIPLE)
  with pytest.raises(ValueError, match="no case in common; 2 such as 'a' against 1 such as 'q'"):
    paired_tables.compare_tables(TRIPLE, table('b.csv', {'q': (1.0,) * 3}, ('pt', 'mt', 'tl')))
