"""Run folders that were tested, as a comparison reads them."""
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from spinejax import runs
from spinejax.metrics.results import RocCurve, TestResult, curves_from_json


@dataclasses.dataclass(frozen=True)
class TestedRun:
  """A run and the result of its test."""
  __test__ = False  # pytest collects no tests from it

  workdir: str
  classes: tuple[str, ...]  # background first
  data_name: str  # config.data.name
  fingerprint: str  # hash of the test data
  result: TestResult
  roc: Mapping[str, RocCurve]  # by class; empty where the run folder does not hold them
  training_seconds: float | None  # of the steps, without compilation and validation
  num_parameters: int | None


def load_tested(workdir: str) -> TestedRun:
  """Reads a run folder.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: it was not tested on the test cases of its dataset, or a file is damaged.
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
  manifest = runs.read_manifest(workdir)
  return TestedRun(workdir, classes, data_name, fingerprint, result,
                   _load_curves(path.with_name('roc.json'), result, remedy),
                   manifest.get('durations', {}).get('training'),
                   _num_parameters(manifest['starts']))


def _num_parameters(starts: Sequence[Any]) -> int | None:
  """The number that the last start recorded."""
  found = [start['num_parameters'] for start in starts
           if isinstance(start, dict) and isinstance(start.get('num_parameters'), int)]
  return found[-1] if found else None


def _load_curves(path: pathlib.Path, result: TestResult, remedy: str) -> Mapping[str, RocCurve]:
  """The ROC curves of a test; none if they are not stored or of another test."""
  if not path.is_file():
    return {}
  try:
    curves = curves_from_json(runs.read_json(path))
  except ValueError as error:
    raise ValueError(f'{path} does not hold the ROC curves of a test ({error}); {remedy}.'
                     ) from error
  areas = {name: curve.auc for name, curve in curves.items()}
  return curves if areas == result.auc else {}


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
