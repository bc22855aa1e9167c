"""Runs that were tested on the same cases, side by side: tables, paired tests and box plots.

  python -m spinejax.commands.compare --workdirs=runs/centroid,runs/dice,runs/wbce

The first run is compared with each other one. Writes comparison.json, comparison.csv, box plots
(PNG) and index.html. Runs may have any configs; they must have been tested on the same cases of the
same data.
"""
import csv
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from spinejax.commands import cli

_COLUMNS = ('metric', 'name', 'better', 'run', 'cases', 'mean', 'sd')
_TEST_COLUMNS = ('cases', 'difference', 'low', 'high', 'p_value', 'note')


class Run(NamedTuple):
  """A tested run: its folder, its config, hash of its test data, and its test_metrics.json."""
  workdir: str
  config: Mapping[str, Any]
  fingerprint: str
  results: dict[str, Any]


def compare_runs(workdirs: Sequence[str], output: str | os.PathLike | None = None
                 ) -> tuple[dict[str, Any], pathlib.Path]:
  """Compares the first run with each other one and writes what was found.

  Args:
    workdirs: at least two run folders, evaluated.
    output: folder to write to, made if absent; by default `comparison` in the first run's folder.

  Returns:
    What `metrics.comparison.compare` returns, and the path of the page.

  Raises:
    FileNotFoundError: a folder that holds no run.
    ValueError: a single run or one given twice, an untested one, other classes, cases or data.
  """
  from spinejax import runs
  from spinejax.metrics import comparison
  from spinejax.report import html

  names = unique_names(workdirs)
  tested = [load_run(workdir) for workdir in workdirs]
  for run in tested[1:]:
    check_same_cases(tested[0], run)
  found = comparison.compare({name: run.results for name, run in zip(names, tested)},
                             tuple(tested[0].config['data']['classes']))

  folder = pathlib.Path(workdirs[0]) / 'comparison' if output is None else pathlib.Path(output)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'--output must be a folder, {folder} is a file.')
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_json(folder / 'comparison.json', {
      **found, 'workdirs': dict(zip(names, map(str, workdirs))),
      'fingerprint': tested[0].fingerprint})
  write_csv(folder / 'comparison.csv', found)
  page = html.write_comparison(
      folder, comparison=found, workdirs=dict(zip(names, map(str, workdirs))),
      is_phantom=any('phantom' in run.config['data']['name'] for run in tested))
  return found, page


def unique_names(workdirs: Sequence[str]) -> list[str]:
  """The name of each folder, with those of its parents as far as needed to tell it from others.

  Raises ValueError when there are fewer than two folders, or one is given twice.
  """
  paths = [pathlib.Path(workdir).expanduser().resolve() for workdir in workdirs]
  if len(paths) < 2:
    raise ValueError('--workdirs needs at least two run folders separated by commas, got '
                     f'{",".join(workdirs) or "none"}.')
  for i, path in enumerate(paths):
    if path in paths[:i]:
      raise ValueError(f'{workdirs[i]} is given twice in --workdirs; give every run once.')
  names = []
  for path in paths:
    depth = 1
    while any(path.parts[-depth:] == other.parts[-depth:] for other in paths if other != path):
      depth += 1
    names.append('/'.join(path.parts[-depth:]))
  return names


def load_run(workdir: str) -> Run:
  """Reads a run; a sentence unless its test_metrics.json is of the test cases of its dataset."""
  from spinejax import runs

  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  path = pathlib.Path(workdir) / 'test_metrics.json'
  again = f'run python -m spinejax.main --mode=evaluate --workdir={workdir}'
  if not path.is_file():
    raise ValueError(f'{workdir} has not been tested ({path.name} is missing); {again}.')
  results = runs.read_json(path)
  cases = results.get('cases') if isinstance(results, dict) else None
  if not isinstance(cases, dict):
    raise ValueError(f'{path} is not the result of a test (it has no cases); {again}.')
  try:
    names, fingerprint = set(info['split']['test']), info['fingerprint']['test']
  except (KeyError, TypeError) as error:
    raise ValueError(f'{workdir}/dataset.json does not say what the run was tested on; {again}.'
                     ) from error
  if not names:
    raise ValueError(f'{workdir} has no test cases; there is nothing to compare.')
  if set(cases) != names:
    raise ValueError(f'{path} is of other cases than the test set in {workdir}; {again}.')
  return Run(workdir, config, fingerprint, results)


def check_same_cases(first: Run, other: Run) -> None:
  """Raises ValueError unless two runs share classes, test cases and what these hold."""
  where = f'{first.workdir} and {other.workdir}'
  classes = [tuple(run.config['data']['classes']) for run in (first, other)]
  if classes[0] != classes[1]:
    raise ValueError(f'{where} have other classes ({", ".join(classes[0])}; '
                     f'{", ".join(classes[1])}); compare runs of one problem.')
  names = [set(run.results['cases']) for run in (first, other)]
  if names[0] != names[1]:
    differing = sorted(names[0] ^ names[1])
    raise ValueError(f'{where} were tested on different cases ({len(differing)} in one of them '
                     f'only, such as {differing[0]}); compare runs of one split.')
  if first.fingerprint != other.fingerprint:
    raise ValueError(f'{where} were tested on cases of the same names but other content (the '
                     'fingerprints in dataset.json differ: other files, label map, or size or '
                     'preparation of volumes); compare runs on one dataset.')


def write_csv(path: pathlib.Path, found: Mapping[str, Any]) -> None:
  """One line per metric and run; what compares it with the first run stands beside it."""
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow([*_COLUMNS, 'compared_cases', *_TEST_COLUMNS[1:]])
    for metric in found['metrics']:
      for run in found['runs']:
        of_run, test = metric['runs'][run], metric['against'].get(run, {})
        writer.writerow([metric['key'], metric['name'], metric['better'], run, of_run['cases'],
                         of_run['mean'], of_run['sd'], *map(test.get, _TEST_COLUMNS)])


def main(argv) -> None:
  del argv
  workdirs = [workdir.strip() for workdir in flags.FLAGS.workdirs]
  found, page = compare_runs([workdir for workdir in workdirs if workdir], flags.FLAGS.output)
  from rich.console import Console

  from spinejax.report import tables

  console = Console()
  tables.print_comparison(found, console)
  console.print(f'Comparison: {page}', highlight=False, soft_wrap=True)


if __name__ == '__main__':  # flags are defined here, so that others may import the functions above
  flags.DEFINE_list('workdirs', None, 'Folders of evaluated runs, separated by commas; the first '
                    'is compared with the others.', required=True)
  flags.DEFINE_string('output', None, 'Folder for the tables, pictures and page; by default '
                      "'comparison' in the first run's folder. An older comparison there is "
                      'replaced.')
  cli.run(main)
