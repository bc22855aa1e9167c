"""Finished runs as rows of a results file: what the tables need, in a line of about 4 KB a run."""
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from benchmarks import facts
from spinejax import config as config_lib
from spinejax import logs, runs
from spinejax.metrics.results import CaseResult, TestResult

Values = Sequence[float | None]
CONFIG_FLAG = re.compile(r'--config[= ](\S+)')
OWN = ('optimizer.learning_rate', 'seed', 'num_steps', 'data.difficulty')  # fields of a row
LAMINAE = ('d3d_sum', 'delta', 'missed', 'false')
ANGLES = ('mad', 'bias', 'within', 'r')


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """A tested run. `values` are per case, by the name of the case; None is undefined."""
  config: str  # such as 'seam:fpn,small'
  changed: Mapping[str, Any]  # fields that differ from this config, but for the next four
  learning_rate: float
  seed: int
  num_steps: int  # 0 where the config counts epochs
  difficulty: float  # of the phantoms
  test_data: str  # fingerprint of the test cases
  step: int  # of the tested checkpoint, the best by validation
  score: float | None  # of the tested checkpoint by validation: mean Dice, or negative loss
  validation: Sequence[tuple[int, float]]  # steps, and mean Dice of the foreground classes
  parameters: int
  cases: int
  dice: Mapping[str, float | None]  # mean over the cases by class
  auc: Mapping[str, float | None]  # over all pixels, by class
  at_network_size: Mapping[str, float]  # cross entropy and pixel accuracy
  values: Mapping[str, Values]  # 'mean_foreground', classes, 'angle', 'reference', laminae
  angles: Mapping[str, Any] | None  # agreement over all cases, and that of the naive angle
  durations: Mapping[str, float]  # seconds by phase
  seconds_per_image: float | None  # of a prediction, median
  device: str
  cores: int
  versions: Mapping[str, str]
  date: str  # of the last start

  @property
  def key(self) -> tuple[str, str, int, float, float, int]:
    """What a row is sorted by and replaced by."""
    return (self.config, json.dumps(self.changed, sort_keys=True), self.num_steps,
            self.difficulty, self.learning_rate, self.seed)


def read_file(path: pathlib.Path) -> list[FinishedRun]:
  """The runs of a JSON Lines file; none where there is no file.

  Raises ValueError for other content.
  """
  lines = path.read_text().splitlines() if path.is_file() else []
  try:
    return [FinishedRun(**row) for row in map(json.loads, lines)]
  except (ValueError, TypeError) as error:
    raise ValueError(f'{path} does not hold rows of this version of benchmarks.collect ({error}); '
                     'delete it and collect again.') from error


def write_file(path: pathlib.Path, found: Iterable[FinishedRun]) -> None:
  """Writes runs by `key`; of several with one key the last is written."""
  rows = {run.key: run for run in found}
  runs.write_text(path, ''.join(json.dumps(dataclasses.asdict(rows[key])) + '\n'
                                for key in sorted(rows)))


def read_folders(roots: Sequence[str], variant: str) -> tuple[list[FinishedRun], list[str]]:
  """The runs below folders whose config has a variant, and why other folders were left out."""
  found, left_out = [], []
  for folder in sorted(path.parent for root in roots
                       for path in pathlib.Path(root).rglob('config.json')):
    try:
      run = read_folder(folder)
    except (ValueError, FileNotFoundError) as error:
      left_out.append(str(error))
    else:
      if variant in run.config.partition(':')[2].split(','):
        found.append(run)
  return found, left_out


def read_folder(folder: pathlib.Path) -> FinishedRun:
  """The row of a run folder.

  The date and the versions are those of its last start. The processor is that of this machine,
  where the run used no other device.

  Raises:
    ValueError: the run is not finished, or its config is none of the package's.
    FileNotFoundError: the folder holds no run.
  """
  workdir = str(folder)
  if not (folder / 'test_metrics.json').is_file():
    raise ValueError(f'{folder} is not finished: it has no test_metrics.json.')
  config, manifest = runs.load_config(workdir), runs.read_manifest(workdir)
  result = TestResult.from_json(runs.read_json(folder / 'test_metrics.json'))
  name, start = _config_name(manifest, folder), manifest['starts'][-1]
  cases = [result.cases[case] for case in sorted(result.cases)]
  kind = start['devices'][0].partition(' ')[2]
  machine = facts.machine_facts()
  return FinishedRun(
      config=name, changed=_changed(config, config_lib.load_config(name)),
      learning_rate=config.optimizer.learning_rate, seed=config.seed,
      num_steps=config.num_steps, difficulty=config.data.difficulty,
      test_data=runs.load_dataset_info(workdir)['fingerprint']['test'][:12], step=result.step,
      **_validation(logs.read_metrics(workdir), result.step, config.evaluation.best),
      parameters=start['num_parameters'],
      cases=len(cases), dice=_rounded(result.per_image['dice']), auc=_rounded(result.auc),
      at_network_size=_rounded(dataclasses.asdict(result.at_network_size)
                               if result.at_network_size else {}),
      values=_values(cases, config.data.classes[1:]), angles=_angles(result),
      durations=_rounded(manifest['durations'], 1),
      seconds_per_image=_round(getattr(result.seconds_per_image, 'median', None), 4),
      device=machine['device'] if kind == 'cpu' else kind, cores=machine['cores'],
      versions={package: start['versions'][package] for package in machine['versions']},
      date=start['date'])


def _config_name(manifest: Mapping[str, Any], folder: pathlib.Path) -> str:
  """'seam:fpn,small' of the flag --config=configs/seam.py:fpn,small of the last start."""
  found = CONFIG_FLAG.search(manifest['starts'][-1]['command'] if manifest['starts'] else '')
  if not found:
    raise ValueError(f'{folder} does not say which config it was trained with; '
                     'its manifest.json names no --config.')
  path, _, variant = found[1].partition(':')
  return f'{pathlib.Path(path).stem}:{variant}'.removesuffix(':')


def _changed(config: ConfigDict, named: ConfigDict) -> dict[str, Any]:
  """Fields of `config` that differ from those of the named config, where both have the field."""
  default = dict(runs.flatten(runs.plain(named)))
  return {key: value for key, value in runs.flatten(runs.plain(config))
          if key in default and key not in OWN and value != default[key]}


def _validation(history: Sequence[Mapping[str, Any]], step: int, best: str) -> dict[str, Any]:
  rows = {row['step']: row for row in history if row['phase'] == 'validation'}
  key, sign = ('loss', -1) if best == 'loss' else ('dice/mean_foreground', 1)
  dice = [(number, _round(row['dice/mean_foreground'], 4)) for number, row in sorted(rows.items())]
  return {'score': _round(sign * rows[step][key], 4) if step in rows else None, 'validation': dice}


def _values(cases: Sequence[CaseResult], classes: Sequence[str]) -> dict[str, list[float | None]]:
  """Dice by class, where there are several; angles; and the laminae of volumes, per case."""
  names = ['mean_foreground', *(classes if len(classes) > 1 else ())]
  values = {name: [_round(case.overlap['dice'][name], 4) for case in cases] for name in names}
  angles = [case.angle for case in cases if case.angle]
  if angles:
    values['angle'] = [_round(angle.angle_deg, 2) for angle in angles]
    values['reference'] = [_round(angle.reference_deg, 2) for angle in angles]
  laminae = [case.laminae for case in cases if case.laminae]
  if laminae:
    values |= {name: [_round(table[name]['all'], 2) for table in laminae] for name in LAMINAE}
  return values


def _angles(result: TestResult) -> dict[str, Any] | None:
  angles = result.angles
  if not angles:
    return None
  tables = {name: {key: _round(getattr(table, key, None), 4) for key in ANGLES}
            for name, table in (('agreement', angles.agreement), ('naive', angles.naive))}
  return {'method': angles.method, 'failed': angles.failed, **tables}


def _round(value: float | None, digits: int) -> float | None:
  return None if value is None else round(value, digits)


def _rounded(values: Mapping[str, float | None], digits: int = 4) -> dict[str, Any]:
  return {name: _round(value, digits) for name, value in values.items()}
