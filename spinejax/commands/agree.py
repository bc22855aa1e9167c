"""Compares two tables of angles: prints how well they agree and, if asked, writes a page.

  spinejax agree readers.csv angles.csv
  spinejax agree readers.csv readers.csv --columns=first --columns_b=second
  spinejax agree truth.csv angles.csv --columns=pt,mt,tl --output=agreement

The first table is the reference. Each table has one row per case, a column with the name of the
case and one or more columns of angles in degrees, such as angles.csv of `spinejax predict`. Cases
are paired by name. Separators and decimal commas are recognized. Cases that are in one table only,
have the status fail or have an empty angle are left out and counted. --output=DIR writes
agreement.json, bland_altman.png, scatter.png and index.html.
"""
from absl import flags

from spinejax.commands import cli

POSITIONALS = ('A.csv', 'B.csv')

_KEY = flags.DEFINE_string(
    'key', None, 'Column with the names of the cases. Default: the first one called case, name, '
    'id, file or similar, else the first column.')
_KEY_B = flags.DEFINE_string('key_b', None, 'The same for the second table, if it differs.')
_COLUMNS = flags.DEFINE_list(
    'columns', [], 'Columns with the angles, such as pt,mt,tl. Default: the usual names.')
flags.DEFINE_alias('column', 'columns')
_COLUMNS_B = flags.DEFINE_list(
    'columns_b', [], 'The same for the second table, in the same order, if they differ.')
_LIMIT = flags.DEFINE_float(
    'limit', 5.0, 'Degrees that a difference may have to count as within.', lower_bound=0.0)
_BANDS = cli.define_bands()
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for agreement.json, pictures and page.')


def main(argv) -> None:
  bands = cli.numbers('bands', _BANDS.value)
  from spinejax.metrics import paired_tables
  from spinejax.readers import angle_tables
  from spinejax.report import pages, terminal

  tables = angle_tables.read_pair(
      argv[1], argv[2], keys=(_KEY.value, _KEY_B.value or _KEY.value),
      columns=(_COLUMNS.value, _COLUMNS_B.value))
  found = paired_tables.compare_tables(*tables, limit=_LIMIT.value, bands=bands)
  page = pages.write_agreement(_OUTPUT.value, found) if _OUTPUT.value else None
  terminal.print_agreement(found)
  if page:
    print(f'Agreement: {page}')
