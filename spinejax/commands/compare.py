"""Compares runs that were tested on the same cases: tables, paired tests and box plots.

  spinejax compare --workdirs=runs/centroid,runs/dice,runs/wbce

The first run is compared with each other one. The output folder gets comparison.json,
comparison.csv, box plots (PNG) and index.html. The configs of the runs may differ; their test
cases and data must be the same.
"""
import pathlib

from absl import flags

POSITIONALS = ()

_WORKDIRS = flags.DEFINE_list(
    'workdirs', None, 'Folders of tested runs, separated by commas; the first is compared with the '
    'others.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, "Folder for tables, pictures and page; by default 'comparison' in the folder "
    'of the first run. It replaces an older comparison.')


def main(_) -> None:
  from spinejax.metrics import comparison  # late: --help needs no scipy
  from spinejax.report import pages, terminal

  workdirs = [workdir.strip() for workdir in _WORKDIRS.value if workdir.strip()]
  found = comparison.compare_runs(workdirs)
  folder = pathlib.Path(_OUTPUT.value or f'{workdirs[0]}/comparison')
  page = pages.write_comparison(folder, found)
  comparison.write_tables(folder, found)
  terminal.print_comparison(found)
  print(f'Comparison: {page}')
