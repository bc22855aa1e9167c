"""Compares runs that were tested on the same cases: tables, paired tests and box plots.

  spinejax compare --workdirs=runs/centroid,runs/dice,runs/wbce
  spinejax compare --workdirs=runs/a,runs/b --cases=phantom_2000003,phantom_2000007 --probabilities

The first run is compared with each other one in every metric, with paired t-tests, Holm's
correction and intervals. The output folder gets index.html, comparison.json, comparison.csv, and as
PNG the box plots, the joint ROC curves and a picture of some cases. The configs of the runs may
differ; their test cases and data must be the same.
"""
import dataclasses
import pathlib

from absl import flags

from spinejax import devices

POSITIONALS = ()

_WORKDIRS = flags.DEFINE_list(
    'workdirs', None, 'Folders of tested runs, separated by commas; the first is compared with the '
    'others.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, "Folder for tables, pictures and page; by default 'comparison' in the folder "
    'of the first run. It replaces an older comparison.')
_CASES = flags.DEFINE_list(
    'cases', [], 'Test cases to show, separated by commas, or all; by default the worst, the '
    'median and the best case of the first run by Dice.')
_PROBABILITIES = flags.DEFINE_bool(
    'probabilities', False, 'Segment these cases again with the network of each run, to show the '
    'probabilities too.')


def main(_) -> None:
  from spinejax.inference import compared  # late: --help needs no scipy
  from spinejax.metrics import comparison
  from spinejax.report import pages, terminal

  workdirs = [workdir.strip() for workdir in _WORKDIRS.value if workdir.strip()]
  found = comparison.compare_runs(workdirs)
  roles = comparison.choose_cases(found, _CASES.value)
  if _PROBABILITIES.value:
    devices.configure_jax()
  try:
    cases = compared.load_cases(found, roles, with_probs=_PROBABILITIES.value)
  except (ValueError, OSError) as error:
    if _CASES.value or _PROBABILITIES.value:
      raise
    found, cases = dataclasses.replace(
        found, notes=(*found.notes, f'No case is shown: {error}')), []
  folder = pathlib.Path(_OUTPUT.value or f'{workdirs[0]}/comparison')
  page = pages.write_comparison(folder, found, cases)
  comparison.write_tables(folder, found)
  terminal.print_comparison(found)
  print(f'Comparison: {page}')
