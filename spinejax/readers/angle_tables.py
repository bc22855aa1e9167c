"""Tables of angles: which columns hold the cases and the angles, and the angles themselves."""
import os
import re
from collections.abc import Sequence

from spinejax.measurement.results import AngleTable
from spinejax.readers import contents

MAX_DEG = 180.0  # no angle is larger
# Usual names of columns, as `_plain` writes them.
KEYS = ('case', 'name', 'id', 'file', 'filename', 'image', 'patient', 'subject')
ANGLES = ('major', 'angle', 'cobb', 'cobb_angle', 'major_angle', 'uca', 'spa')
CASE_ANGLES = ('pt', 'mt', 'tl')  # three angles of a case, as in the AASCE challenge
_MISSING = ('', 'nan', 'na', 'n/a', 'none', 'null', '-', '–')
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.IGNORECASE)


def read_pair(reference: str | os.PathLike, other: str | os.PathLike, *,
              keys: tuple[str | None, str | None] = (None, None),
              columns: tuple[Sequence[str], Sequence[str]] = ((), ())
              ) -> tuple[AngleTable, AngleTable]:
  """Reads two CSV tables with the same number of angles for each case.

  A case whose column 'status' says fail has no angle. Empty cells, nan, na, none and - are no
  angle; decimal commas and degree signs are understood.

  Args:
    reference, other: tables with a header.
    keys: column of the case names in each; None takes the first one named like one of KEYS, else
      the first column.
    columns: columns of angles in each, in the same order; () takes those of the other table if this
      one has them, else one named like ANGLES or CASE_ANGLES, else the only other column.

  Raises:
    FileNotFoundError, ValueError: a table cannot be read, or its columns cannot be told; a case is
      unnamed or twice in a table; a cell is no angle within ±180 degrees.
  """
  first, second = _read_table(reference), _read_table(other)
  first_key, second_key = (
      _find_column(table, key, flag) if key else
      next((name for name in table.columns if _plain(name) in KEYS), table.columns[0])
      for table, key, flag in ((first, keys[0], 'key'), (second, keys[1], 'key_b')))
  first_groups = _column_groups(first, first_key, 'columns', columns[0], columns[1])
  second_groups = _column_groups(second, second_key, 'columns_b', columns[1], columns[0])
  pairs = [(a, b) for a in first_groups for b in second_groups if len(a) == len(b)]
  if not pairs:
    raise ValueError(f'expected as many angles in both tables, got {", ".join(first_groups[0])} in '
                     f'{first.path} and {", ".join(second_groups[0])} in {second.path}; choose '
                     'with --columns and --columns_b.')
  chosen = next(((a, b) for a, b in pairs if list(map(_plain, a)) == list(map(_plain, b))),
                pairs[0])
  return _read_angles(first, first_key, chosen[0]), _read_angles(second, second_key, chosen[1])


def _read_table(path: str | os.PathLike) -> contents.Table:
  """A table with a header of two columns or more and a row below it."""
  table = contents.read_table(path)
  columns = [' '.join(name.split()) for name in table.columns]
  if not columns:
    raise ValueError(f'{path}: the table is empty; expected a header row.')
  if (not any(_plain(name) in KEYS for name in columns)
      and any(_to_number(name) is not None for name in columns)):
    raise ValueError(f'{path}: the first row ({", ".join(columns[:4])}) is not a header; put the '
                     'names of the columns there.')
  if len(columns) < 2:
    raise ValueError(f'{path}: there is a single column, {columns[0][:40]!r}; expected a column '
                     'with the name of the case and one with its angle.')
  if not table.rows:
    raise ValueError(f'{path}: there is no row below the header.')
  for line, cells in table.rows:
    if len(cells) > len(columns):
      raise ValueError(f'{path} line {line}: there are {len(cells)} cells for {len(columns)} '
                       'columns; put quotes around cells with a comma, or separate by semicolons.')
  return table._replace(columns=columns)


def _column_groups(table: contents.Table, key: str, flag: str, asked: Sequence[str],
                   asked_of_other: Sequence[str]) -> list[list[str]]:
  """Groups of columns that may hold the angles, the likeliest first."""
  if asked:
    named = [_find_column(table, name, flag) for name in asked]
    if key in named:
      raise ValueError(f'--{flag} names {key}, which holds the names of the cases in {table.path}.')
    return [named]
  same = [name for name in (_matching(table, name) for name in asked_of_other) if name]
  groups = [same] if asked_of_other and len(same) == len(asked_of_other) else []
  others = [name for name in table.columns if name != key]
  by_name = {_plain(name): name for name in reversed(others)}
  guesses = [[by_name[name]] for name in ANGLES if name in by_name]
  if by_name.keys() >= set(CASE_ANGLES):
    guesses.append([by_name[name] for name in CASE_ANGLES])
  groups += guesses or ([others] if len(others) == 1 else [])
  if not groups:
    raise ValueError(f'{table.path}: it is not clear which column holds the angle; name it with '
                     f'--{flag}. {_list_columns(table)}')
  return groups


def _find_column(table: contents.Table, name: str, flag: str) -> str:
  found = _matching(table, name)
  if found is None:
    raise ValueError(f'{table.path} has no column {name!r}; choose with --{flag}. '
                     f'{_list_columns(table)}')
  return found


def _matching(table: contents.Table, name: str) -> str | None:
  """The column of that name, or the only one that differs in capitals or signs alone."""
  if name in table.columns:
    return name
  alike = {column for column in table.columns if _plain(column) == _plain(name)}
  return alike.pop() if len(alike) == 1 else None


def _list_columns(table: contents.Table) -> str:
  return f'Its columns: {", ".join(name or "(no name)" for name in table.columns)}.'


def _plain(name: str) -> str:
  """A column name in lower case and underscores, without its unit: 'Cobb (°)' is 'cobb'."""
  name = re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')
  return re.sub(r'_(deg|degrees?)$', '', name)


def _read_angles(table: contents.Table, key: str, columns: Sequence[str]) -> AngleTable:
  for name in (key, *columns):
    if table.columns.count(name) > 1:
      raise ValueError(f'{table.path} has {table.columns.count(name)} columns {name!r}; give each '
                       'its own name.')
  places = [table.columns.index(name) for name in columns]
  plain = [_plain(name) for name in table.columns]
  angles, failed, methods = {}, [], set()
  lines: dict[str, int] = {}
  for line, cells in table.rows:
    case = ' '.join(cells[table.columns.index(key)].split())
    if not case:
      raise ValueError(f'{table.path} line {line}: the column {key!r} has no name of a case.')
    if case in lines:
      raise ValueError(f'{table.path} has {case!r} in lines {lines[case]} and {line}; give each '
                       'case one row, or name another column with --key.')
    lines[case] = line
    values = tuple(_read_angle(cells[place], f'{table.path} line {line}', table.columns[place])
                   for place in places)
    if 'status' in plain and cells[plain.index('status')].lower() in ('fail', 'failed'):
      failed.append(case)
    else:
      angles[case] = values
    if 'method' in plain:
      methods.add(cells[plain.index('method')])
  return AngleTable(table.path, key, tuple(columns), angles, tuple(failed),
                    frozenset(methods - {''}))


def _read_angle(cell: str, where: str, column: str) -> float | None:
  text = cell.removesuffix('°').strip()
  if text.lower() in _MISSING:
    return None
  angle = _to_number(text)
  if angle is None or abs(angle) > MAX_DEG:
    raise ValueError(f'{where}: {cell[:40]!r} in column {column!r} is not an angle; expected '
                     f'degrees within ±{MAX_DEG:g}.')
  return angle


def _to_number(text: str) -> float | None:
  """The number in a cell, with a decimal point or comma; None if there is none."""
  text = text.replace('−', '-')
  if '.' not in text:
    text = text.replace(',', '.', 1)
  return float(text) if _NUMBER.fullmatch(text) else None
