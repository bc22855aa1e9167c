"""How well two tables of angles agree: a table on the terminal, two pictures and a page.

  python -m spinejax.commands.agree readers.csv angles.csv
  python -m spinejax.commands.agree readers.csv readers.csv --columns=first --columns_b=second
  python -m spinejax.commands.agree truth.csv angles.csv --columns=pt,mt,tl --output=agreement

The first table is the reference. Each has a row per case, a column with its name and one or several
with angles in degrees, such as angles.csv of spinejax.predict; cases are paired by name. Separators
and decimal commas are recognized. Cases in one table only, cases of status fail and empty angles
are left out and counted. --output=DIR gets agreement.json, bland_altman.png, scatter.png and
index.html.
"""
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from spinejax import __version__
from spinejax.commands import cli
from spinejax.readers import tables as text_tables
from spinejax.readers.tables import Table

NOTICE = 'Research software, not a medical device.'
KEYS = ('case', 'name', 'id', 'file', 'filename', 'image', 'patient', 'subject')
ANGLES = ('major', 'angle', 'cobb', 'cobb_angle', 'major_angle', 'uca', 'spa')
CASE_ANGLES = ('pt', 'mt', 'tl')  # of the AASCE challenge
_MISSING = ('', 'nan', 'na', 'n/a', 'none', 'null', '-', '–')
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.IGNORECASE)


class Angles(NamedTuple):
  """The angles of a table: {case: one per column, None where empty}, and the failed cases."""
  cases: dict[str, list[float | None]]
  failed: list[str]


def compare_tables(reference: str | os.PathLike, other: str | os.PathLike, *,
                   keys: tuple[str | None, str | None] = (None, None),
                   columns: tuple[Sequence[str], Sequence[str]] = ((), ()),
                   limit: float | None = None, bands: Sequence[float] = ()) -> dict[str, Any]:
  """Pairs two tables by case and rates how their angles agree.

  Args:
    reference, other: CSV tables with a header row.
    keys: column of the case's name in each; None: the first named like one of `KEYS`, else the
      first column.
    columns: angle columns of each, paired in order; empty: those of the other table if it has them,
      else one named like `ANGLES` or `CASE_ANGLES`, or the only other column.
    limit: of `metrics.agreement.agree`, 5 degrees by default.
    bands: degrees between the bands, by default those of `measure.angles.BANDS`.

  Returns:
    JSON-safe: `reference` and `other` {path, name, key, columns}, `angles` {column of the
    reference: what `metrics.agreement.agree` returns}, `case_smape` (`metrics.agreement.smape` over
    several angles of a case, else None), `cases` {name: {'reference': [angles], 'other':
    [angles]}}, `left_out` {'only_in_reference', 'only_in_other', 'failed_in_reference',
    'failed_in_other', 'without_angle': [names]}, `notes` [sentences], `version` and `notice`.

  Raises:
    FileNotFoundError: a table that is not there.
    ValueError: one that cannot be read, with its path and row; no case in both.
  """
  from spinejax.metrics import agreement

  tables = read_table(reference), read_table(other)
  keys = _find_key(tables[0], keys[0], 'key'), _find_key(tables[1], keys[1], 'key_b')
  columns = choose_columns(tables, keys, columns)
  if tables[0].path.resolve() == tables[1].path.resolve() and columns[0] == columns[1]:
    raise ValueError(f'{tables[0].path} would be compared with itself; give two tables, or other '
                     'columns of one with --columns and --columns_b.')
  first, second = (read_angles(*of) for of in zip(tables, keys, columns))
  known = [dict.fromkeys([*angles.cases, *angles.failed]) for angles in (first, second)]
  if not known[0].keys() & known[1].keys():
    raise ValueError(f'{tables[0].path} and {tables[1].path} have no case in common; '
                     f'{_example(known[0])} against {_example(known[1])}.')
  cases = [case for case in first.cases if case in second.cases]
  pairs = {case: {'reference': first.cases[case], 'other': second.cases[case]} for case in cases}
  values = [[pairs[case][of] for case in cases] for of in ('reference', 'other')]
  options: dict[str, Any] = {} if limit is None else {'limit': limit}
  if bands:
    options['bands'] = name_bands(bands)
  rated = {column: agreement.agree(*([angles[i] for angles in of] for of in values), **options)
           for i, column in enumerate(columns[0])}
  names = _names(tables, columns)
  several = len(columns[0]) > 1
  return {
      **{of: {'path': str(table.path), 'name': name, 'key': key, 'columns': list(chosen)}
         for of, table, name, key, chosen in zip(('reference', 'other'), tables, names, keys,
                                                 columns)},
      'angles': rated, 'case_smape': agreement.smape(*values) if several else None,
      'cases': pairs,
      'left_out': {
          'only_in_reference': [case for case in known[0] if case not in known[1]],
          'only_in_other': [case for case in known[1] if case not in known[0]],
          'failed_in_reference': [case for case in first.failed if case in known[1]],
          'failed_in_other': [case for case in second.failed if case in known[0]],
          'without_angle': [case for case in cases if None in [*first.cases[case],
                                                               *second.cases[case]]]},
      'notes': _notes(tables), 'version': __version__, 'notice': NOTICE}


def read_table(path: str | os.PathLike) -> Table:
  """Reads a table of angles, see `readers.tables.read_table`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: as `readers.tables.read_table`; no header, a single column, no row below the header,
      a row with more cells than the header.
  """
  table = text_tables.read_table(path)
  path, header, rows = table
  if not header:
    raise ValueError(f'{path} is empty; expected a table with a header row.')
  if (not any(_plain(name) in KEYS for name in header)
      and any(_to_number(name) is not None for name in header)):
    raise ValueError(f'{path} has no header row (its first row is {", ".join(header[:4])}); put '
                     'the names of the columns there.')
  if len(header) < 2:
    raise ValueError(f'{path} has a single column, {header[0][:40]!r}; expected a column with the '
                     'name of the case and one with its angle.')
  if not rows:
    raise ValueError(f'{path} has a header but no row of data.')
  for number, cells in rows:
    if len(cells) > len(header):
      raise ValueError(f'{path}, row {number} has {len(cells)} cells under {len(header)} column '
                       'names; put quotes around cells with a comma, or separate by semicolons.')
  return Table(path, [_single_blanks(name) for name in header],
               [(number, [_single_blanks(cell) for cell in cells]) for number, cells in rows])


def _single_blanks(text: str) -> str:
  return ' '.join(text.split())


def choose_columns(tables: tuple[Table, Table], keys: tuple[str, str],
                   asked: tuple[Sequence[str], Sequence[str]]) -> tuple[list[str], list[str]]:
  """The angle columns of two tables, as many of each; see `compare_tables`.

  Raises:
    ValueError: a column that is not there, other numbers of them, or no telling which.
  """
  flags_of, groups = ('columns', 'columns_b'), []
  for i, table in enumerate(tables):
    if asked[i]:
      groups.append([[_find_column(table, name, flags_of[i]) for name in asked[i]]])
      if keys[i] in groups[i][0]:
        raise ValueError(f'--{flags_of[i]} names {keys[i]}, which holds the names of the cases in '
                         f'{table.path}.')
    else:
      found = [_matching(table, name) for name in asked[1 - i]]
      same = [name for name in found if name is not None]
      guesses = _guess_columns(table, keys[i])
      groups.append([same] * (bool(same) and len(same) == len(found)) + guesses)
    if not groups[i]:
      raise ValueError(f'{table.path}: no telling which column holds the angle; name it with '
                       f'--{flags_of[i]}. {_columns_of(table)}')
  plain = lambda names: [_plain(name) for name in names]
  for is_match in (lambda a, b: plain(a) == plain(b), lambda a, b: len(a) == len(b)):
    for first in groups[0]:
      for second in groups[1]:
        if is_match(first, second):
          return first, second
  raise ValueError(f'{", ".join(groups[0][0])} of {tables[0].path} against '
                   f'{", ".join(groups[1][0])} of {tables[1].path}: give as many angles of both '
                   'with --columns and --columns_b.')


def _guess_columns(table: Table, key: str) -> list[list[str]]:
  """Groups of columns that look like angles, the likeliest first."""
  by_name = {_plain(name): name for name in reversed(table.columns) if name != key}
  groups = [[by_name[name]] for name in ANGLES if name in by_name]
  if all(name in by_name for name in CASE_ANGLES):
    groups.append([by_name[name] for name in CASE_ANGLES])
  others = [name for name in table.columns if name != key]
  return groups or ([others] if len(others) == 1 else [])


def _find_key(table: Table, asked: str | None, flag: str) -> str:
  if asked:
    return _find_column(table, asked, flag)
  return next((name for name in table.columns if _plain(name) in KEYS), table.columns[0])


def _find_column(table: Table, name: str, flag: str) -> str:
  found = _matching(table, name)
  if found is None:
    raise ValueError(f'{table.path} has no column {name!r}; choose with --{flag}. '
                     f'{_columns_of(table)}')
  return found


def _matching(table: Table, name: str) -> str | None:
  """The column of that name, or the only one with other capitals or signs."""
  if name in table.columns:
    return name
  alike = {column for column in table.columns if _plain(column) == _plain(name)}
  return alike.pop() if len(alike) == 1 else None


def _columns_of(table: Table) -> str:
  return f'Its columns: {", ".join(name or "(no name)" for name in table.columns)}.'


def _plain(name: str) -> str:
  """A column's name in small letters and underscores, without its unit: 'Cobb (°)' is 'cobb'."""
  name = re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')
  return re.sub(r'_(deg|degrees?)$', '', name)


def read_angles(table: Table, key: str, columns: Sequence[str]) -> Angles:
  """The angles of each case of a table, in the order of its rows.

  A case whose column 'status' says fail has none. An empty cell, nan, na, none or - is no angle; a
  decimal comma and a degree sign are understood.

  Raises:
    ValueError: two columns of one name, a row without a case or a case in two rows, a cell that is
      no angle within ±180.
  """
  for name in (key, *columns):
    if table.columns.count(name) > 1:
      raise ValueError(f'{table.path} has {table.columns.count(name)} columns {name!r}; give each '
                       'its own name.')
  places = [table.columns.index(name) for name in columns]
  status = next((i for i, name in enumerate(table.columns) if _plain(name) == 'status'), None)
  cases, failed = {}, []
  seen: dict[str, int] = {}
  for number, cells in table.rows:
    case = cells[table.columns.index(key)]
    if not case:
      raise ValueError(f'{table.path}, row {number} has no name of a case in column {key!r}.')
    if case in seen:
      raise ValueError(f'{table.path} has {case!r} in rows {seen[case]} and {number}; give each '
                       'case one row, or name another column with --key.')
    seen[case] = number
    angles = [_read_angle(cells[place], table, number, table.columns[place]) for place in places]
    if status is not None and cells[status].lower() in ('fail', 'failed'):
      failed.append(case)
    else:
      cases[case] = angles
  return Angles(cases, failed)


def _read_angle(cell: str, table: Table, number: int, column: str) -> float | None:
  from spinejax.metrics import agreement

  text = cell.removesuffix('°').strip()
  if text.lower() in _MISSING:
    return None
  angle = _to_number(text)
  if angle is None or abs(angle) > agreement.MAX_DEG:
    raise ValueError(f'{table.path}, row {number}: {cell[:40]!r} in column {column!r} is no angle '
                     f'in degrees, a number within ±{agreement.MAX_DEG:g}.')
  return angle


def _to_number(text: str) -> float | None:
  """The number that a cell holds, with a decimal point or comma; None if it holds none."""
  text = text.replace('−', '-')
  if '.' not in text:
    text = text.replace(',', '.', 1)
  return float(text) if _NUMBER.fullmatch(text) else None


def name_bands(limits: Sequence[float]) -> list[tuple[str, float]]:
  """Bands between rising limits: none, mild, moderate and severe if there are three.

  Raises ValueError unless the limits are positive and rise.
  """
  from spinejax.measure import angles

  limits = list(limits)
  if not all(0 < a < b for a, b in zip(limits, [*limits[1:], float('inf')])):
    raise ValueError('--bands takes rising positive degrees such as 10,25,40, not '
                     f'{",".join(f"{limit:g}" for limit in limits)}.')
  names = [name for name, _ in angles.BANDS]
  if len(limits) + 1 != len(names):
    names = [f'below {limits[0]:g}°', *(f'{a:g} to {b:g}°' for a, b in zip(limits, limits[1:])),
             f'{limits[-1]:g}° and more']
  return list(zip(names, [*limits, float('inf')]))


def _names(tables: tuple[Table, Table], columns: tuple[list[str], list[str]]) -> tuple[str, str]:
  """A name for each measurement: its file, else its folder and file, else its column."""
  paths = [table.path.resolve() for table in tables]
  for names in ([path.stem for path in paths],
                [f'{path.parent.name}/{path.stem}' for path in paths],
                [', '.join(of) for of in columns]):
    if len(set(names)) == 2:
      return names[0], names[1]
  return 'A', 'B'


def _example(cases: Mapping[str, Any]) -> str:
  return f'{len(cases)} such as {next(iter(cases))!r}'


def _notes(tables: tuple[Table, Table]) -> list[str]:
  """Says so where the tables name other methods: their angles are not the same quantity."""
  methods = []
  for table in tables:
    place = next((i for i, name in enumerate(table.columns) if _plain(name) == 'method'), None)
    methods.append({cells[place] for _, cells in table.rows if cells[place]} if place is not None
                   else set())
  if all(methods) and len(methods[0] | methods[1]) > 1:
    return [f'The angles are of different methods, {", ".join(sorted(methods[0] | methods[1]))}: '
            'a bias between them is not an error.']
  return []


def write_files(output: str | os.PathLike, found: dict[str, Any]) -> pathlib.Path:
  """Writes agreement.json, both pictures of every angle and the page; returns the page's path.

  Raises ValueError when `output` is a file.
  """
  from spinejax import runs
  from spinejax.report import agreement_page

  folder = pathlib.Path(output)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'--output must be a folder, {folder} is a file.')
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_json(folder / 'agreement.json', found)
  return agreement_page.write_agreement(folder, found)


def main(argv) -> None:
  values = flags.FLAGS
  found = compare_tables(
      argv[1], argv[2], keys=(values.key, values.key_b or values.key),
      columns=(values.columns, values.columns_b), limit=values.limit,
      bands=cli.numbers('bands', values.bands))
  from rich.console import Console

  from spinejax.report import agreement_page

  console = Console()
  page = write_files(values.output, found) if values.output else None
  agreement_page.print_agreement(found, console)
  if page:
    console.print(f'Agreement: {page}', highlight=False, soft_wrap=True)


if __name__ == '__main__':  # flags are defined here, so that others may import the functions above
  flags.DEFINE_string('key', None, 'Column with the name of the case; by default the first called '
                      f'{", ".join(KEYS[:4])} or so, else the first column.')
  flags.DEFINE_string('key_b', None, 'The same in the second table, where it differs.')
  flags.DEFINE_list('columns', [], 'Columns with the angles, such as major_deg or pt,mt,tl; by '
                    'default what looks like them.')
  flags.DEFINE_alias('column', 'columns')
  flags.DEFINE_list('columns_b', [], 'The same in the second table, in the same order, where they '
                    'differ.')
  flags.DEFINE_float('limit', 5.0, 'Degrees that a difference may have to count as within.',
                     lower_bound=0.0)
  flags.DEFINE_list('bands', ['10', '25', '40'], 'Degrees between none, mild, moderate and severe.')
  flags.DEFINE_string('output', None, 'Folder for agreement.json, the pictures and the page.')
  cli.run(main, positionals=('A.csv', 'B.csv'))
