"""Run folders that were tested: read, checked for the same cases, and compared."""
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from spinejax import runs
from spinejax.metrics import comparison
from spinejax.metrics.comparison import Comparison
from spinejax.metrics.results import TestResult

_COLUMNS = ('metric', 'name', 'better', 'run', 'cases', 'mean', 'sd', 'compared_cases',
            'difference', 'low', 'high', 'p_value', 'note')


@dataclasses.dataclass(frozen=True)
class TestedRun:
  """A run folder with the result of its test.

  Attributes:
    workdir: the folder.
    classes: class names, background first.
    data_name: `config.data.name`.
    fingerprint: hash of the test data.
    result: content of test_metrics.json.
  """
  __test__ = False  # pytest collects no tests from it

  workdir: str
  classes: tuple[str, ...]
  data_name: str
  fingerprint: str
  result: TestResult


@dataclasses.dataclass(frozen=True)
class RunComparison:
  """A comparison of run folders.

  Attributes:
    comparison: of the runs, by name.
    workdirs: {run: its folder}.
    fingerprint: hash of the test data.
    is_phantom: whether the cases are phantoms.
  """
  comparison: Comparison
  workdirs: Mapping[str, str]
  fingerprint: str
  is_phantom: bool

  def to_json(self) -> dict[str, Any]:
    """The content of comparison.json."""
    return {**self.comparison.to_json(), 'workdirs': self.workdirs,
            'fingerprint': self.fingerprint}


def compare_runs(workdirs: Sequence[str]) -> RunComparison:
  """Compares the first run with each other one.

  Args:
    workdirs: at least two folders of tested runs. Their configs may differ, their test cases not.

  Raises:
    FileNotFoundError: a folder holds no run.
    ValueError: only one run, one given twice, one without a test, or other classes, cases or data.
  """
  names = unique_names(workdirs)
  tested = [load_tested_run(workdir) for workdir in workdirs]
  for run in tested[1:]:
    _check_same_cases(tested[0], run)
  found = comparison.compare(
      {name: run.result for name, run in zip(names, tested)}, tested[0].classes)
  return RunComparison(found, dict(zip(names, workdirs)), tested[0].fingerprint,
                       any('phantom' in run.data_name for run in tested))


def unique_names(workdirs: Sequence[str]) -> list[str]:
  """The name of each folder, preceded by its parents as far as needed to be unique.

  Raises:
    ValueError: fewer than two folders, or one given twice.
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


def load_tested_run(workdir: str) -> TestedRun:
  """Reads a run folder with the result of its test.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: the run was not tested on the test cases of its dataset.
  """
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  path = pathlib.Path(workdir) / 'test_metrics.json'
  remedy = f'run spinejax test --workdir={workdir}'
  if not path.is_file():
    raise ValueError(f'{workdir} has not been tested ({path.name} is missing); {remedy}.')
  try:
    result = TestResult.from_json(runs.read_json(path))
  except ValueError as error:
    raise ValueError(f'{path} is not the result of a test ({error}); {remedy}.') from error
  try:
    names, fingerprint = set(info['split']['test']), info['fingerprint']['test']
    classes, data_name = tuple(config['data']['classes']), config['data']['name']
  except (KeyError, TypeError) as error:
    raise ValueError(f'the files of {workdir} do not say what the run was tested on; {remedy}.'
                     ) from error
  if not names:
    raise ValueError(f'{workdir} has no test cases; there is nothing to compare.')
  if set(result.cases) != names:
    raise ValueError(f'{path} is of other cases than the test set in {workdir}; {remedy}.')
  return TestedRun(workdir, classes, data_name, fingerprint, result)


def _check_same_cases(first: TestedRun, other: TestedRun) -> None:
  """Raises ValueError unless two runs share classes, test cases and test data."""
  where = f'{first.workdir} and {other.workdir}'
  if first.classes != other.classes:
    raise ValueError(f'{where} have other classes ({", ".join(first.classes)}; '
                     f'{", ".join(other.classes)}); compare runs of one problem.')
  differing = sorted(set(first.result.cases) ^ set(other.result.cases))
  if differing:
    raise ValueError(f'{where} were tested on different cases ({len(differing)} in one of them '
                     f'only, such as {differing[0]}); compare runs of one split.')
  if first.fingerprint != other.fingerprint:
    raise ValueError(f'{where} were tested on cases of the same names but other content (the '
                     'fingerprints in dataset.json differ: other files, label map, or size or '
                     'preparation of volumes); compare runs on one dataset.')


def write_tables(folder: str | os.PathLike, found: RunComparison) -> None:
  """Writes comparison.json, and comparison.csv with a line for each metric and run.

  The last columns of the CSV compare the first run with the run of the line.
  """
  text = io.StringIO(newline='')
  writer = csv.writer(text)
  writer.writerow(_COLUMNS)
  for metric in found.comparison.metrics:
    for run, summary in metric.runs.items():
      test = metric.against.get(run)
      compared = dataclasses.astuple(test) if test else (None,) * 6
      writer.writerow([metric.key, metric.name, metric.better, run, summary.cases, summary.mean,
                       summary.sd, *compared])
  runs.write_json(pathlib.Path(folder) / 'comparison.json', found.to_json())
  runs.write_text(pathlib.Path(folder) / 'comparison.csv', text.getvalue())
