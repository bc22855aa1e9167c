"""Tables of angles, read back with the csv module."""
import csv
import dataclasses

import pytest

from spinejax.handoff import tables
from tests.handoff.results import FAILED, SPACING, bent, change_curves


def read(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_the_summary_has_a_row_for_every_case(tmp_path):
  results = {'a': dataclasses.replace(bent(30, 10), model='seam', checkpoint=100), 'b': FAILED,
             'c, "d"\né': bent(0.0, 0.0)}
  tables.write_summary(tmp_path / 's.csv', results)
  rows = read(tmp_path / 's.csv')
  assert tuple(rows[0]) == tables.SUMMARY_COLUMNS
  assert [row['case'] for row in rows] == list(results)
  first, second, third = rows
  assert (float(first['major_deg']), first['upper'], first['lower']) == (30, 'T1', 'L5')
  assert (float(first['ci_low']), float(first['ci_high'])) == (28, 32)
  assert (first['truncated'], first['model'], first['checkpoint'], first['curves']) == (
      'yes', 'seam', '100', '30')
  assert (float(first['spacing_y_mm']), float(first['spacing_x_mm'])) == SPACING
  assert first['spacing_z_mm'] == ''
  assert (second['status'], second['major_deg'], second['flags']) == (
      'fail', '', 'the mask is empty')
  assert (third['major_deg'], third['upper']) == ('0.0', '')


def test_the_summary_has_the_largest_curve_and_lists_all(tmp_path):
  result = change_curves(bent(30, 10), {'angle_deg': 12.5, 'ci95': None, 'upper': 'L1'}, {})
  result = dataclasses.replace(result, flags=('one; two', 'three'))
  tables.write_summary(tmp_path / 's.csv', {'a': result})
  tables.write_curves(tmp_path / 'c.csv', {'a': result, 'b': FAILED})
  row, = read(tmp_path / 's.csv')
  assert (row['curves'], row['upper'], row['flags']) == ('12.5; 30', 'T1', 'one; two | three')
  rows = read(tmp_path / 'c.csv')
  assert tuple(rows[0]) == tables.CURVE_COLUMNS
  assert [(row['case'], row['curve'], row['angle_deg'], row['upper'], row['ci_low'] == '')
          for row in rows] == [('a', '1', '12.5', 'L1', True), ('a', '2', '30.0', 'T1', False)]


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@sum', '\t=1', ' =1', '\r=1', '\n=1', '\tx'])
def test_no_spreadsheet_takes_a_name_for_a_formula(tmp_path, name):
  result = dataclasses.replace(bent(), model=name, flags=(name,))
  tables.write_summary(tmp_path / 's.csv', {name: result})
  row, = read(tmp_path / 's.csv')
  assert row['case'] == row['model'] == row['flags'] == f"'{name}"
  number = dataclasses.replace(FAILED, calibrated_deg=-3.5)
  tables.write_summary(tmp_path / 's.csv', {'a-b=c': number, '7': number})
  assert [(row['case'], row['calibrated_deg']) for row in read(tmp_path / 's.csv')] == [
      ('a-b=c', '-3.5'), ('7', '-3.5')]


def test_a_table_without_cases_has_a_header(tmp_path):
  tables.write_summary(tmp_path / 's.csv', {})
  assert (tmp_path / 's.csv').read_text().strip() == ','.join(tables.SUMMARY_COLUMNS)
  with pytest.raises(OSError, match='cannot be written'):
    tables.write_summary(tmp_path / 'absent' / 's.csv', {})
