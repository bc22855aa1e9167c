"""The stress suite: trained runs on phantoms whose artifacts get stronger, one artifact at a time.

RSN-U-net (Huang et al., 2020) claims robustness to speckle and regular occlusion. Every run
predicts the same test phantoms; their anatomy and the random numbers of artifacts stay the same.
"""
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from spinejax import evaluate, interrupts, logs, phantoms, runs
from spinejax.config import did_you_mean
from spinejax.data import datasets
from spinejax.inference import load, predict
from spinejax.metrics import robustness, roc, segmentation, tested_runs
from spinejax.metrics.results import StressScore, mean_sd, stress_scores_from_json
from spinejax.readers.records import Record
from spinejax.report import pages
from spinejax.version import __version__

ARTIFACTS = tuple(field.name for field in dataclasses.fields(phantoms.Strengths))
_PHANTOM_FIELDS = ('split_seed', 'render_size', 'difficulty', 'strengths')  # of config.data
_Scores = Mapping[str, StressScore]  # by case


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the suite draws; ValueError for an unknown artifact, a wrong strength or no case."""
  artifacts: tuple[str, ...] = ARTIFACTS
  strengths: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0)
  num_cases: int = 29

  def __post_init__(self):
    for name in self.artifacts:
      if name not in ARTIFACTS:
        raise ValueError(f'there is no artifact {name!r}{did_you_mean(name, ARTIFACTS)}; '
                         f'there is {", ".join(ARTIFACTS)}.')
    for name, values in (('artifacts', self.artifacts), ('strengths', self.strengths)):
      if not values or len(set(values)) < len(values):
        raise ValueError(f'--{name} must be different values separated by commas, not '
                         f'{",".join(map(str, values)) or "none"}.')
    for strength in self.strengths:
      phantoms.Strengths(strength)
    if self.num_cases < 1:
      raise ValueError(f'--cases must be at least 1, not {self.num_cases}.')


@dataclasses.dataclass(frozen=True)
class Samples:
  """One phantom at every strength of an artifact, uint8 [H,W] each."""
  name: str
  images: Mapping[str, tuple[np.ndarray, ...]]  # by artifact


@dataclasses.dataclass(frozen=True)
class _Phantoms:
  """What is kept of the phantoms of one set of strengths."""
  sample: np.ndarray
  hole_fraction: float
  scores: Mapping[str, _Scores]  # by run


def stress_runs(workdirs: Sequence[str], output: str | os.PathLike, settings: Settings, *,
                checkpoint: str = 'best') -> tuple[robustness.Stress, Samples]:
  """Scores runs on phantoms of the first run's seeds, size and difficulty.

  The scores of a run on the phantoms of one set of strengths are kept in OUTPUT/cells. They are
  used again if neither the run nor the phantoms changed, so a stopped suite goes on where it was.

  Raises:
    FileNotFoundError: a folder holds no run, or no checkpoint.
    ValueError: a run given twice, or one that was not trained on VPI phantoms.
    Interrupted: Ctrl-C; what is finished is kept.
  """
  names = _name_runs(workdirs)
  configs = [_load_config(workdir) for workdir in workdirs]
  trained = {name: load.restore_run(workdir, checkpoint)
             for name, workdir in zip(names, workdirs)}
  data = configs[0].data
  usual = phantoms.Strengths(**data.get('strengths', {}))
  grid = {artifact: [dataclasses.replace(usual, **{artifact: strength})
                     for strength in sorted(settings.strengths)] for artifact in settings.artifacts}
  cells = pages.open_folder(output) / 'cells'
  cells.mkdir(parents=True, exist_ok=True)
  try:
    drawn = _score_all(trained, data, list(dict.fromkeys(sum(grid.values(), []))), settings, cells)
  except KeyboardInterrupt:
    raise interrupts.Interrupted(f'stopped; {cells} keeps what is finished, and the same command '
                                 'goes on from there.') from None
  scores = {artifact: [drawn[strengths].scores for strengths in row]
            for artifact, row in grid.items()}
  strengths = tuple(sorted(settings.strengths))
  artifacts = {artifact: robustness.compare_levels(
      scores[artifact], strengths, [drawn[at].hole_fraction for at in row])
               for artifact, row in grid.items()}
  cases = tuple(next(iter(drawn.values())).scores[names[0]])
  same_classes = len({tuple(config.data.classes) for config in configs}) == 1
  found = robustness.Stress(
      dict(zip(names, workdirs)), {name: run.step for name, run in trained.items()}, cases,
      strengths, _describe(data), 'dice' if same_classes else 'bone_dice', artifacts,
      _notes(names, configs), scores)
  return found, Samples(cases[0], {artifact: tuple(drawn[at].sample for at in row)
                                   for artifact, row in grid.items()})


def _name_runs(workdirs: Sequence[str]) -> list[str]:
  if len(workdirs) == 1:
    return [pathlib.Path(workdirs[0]).expanduser().resolve().name]
  return tested_runs.unique_names(workdirs)


def _load_config(workdir: str) -> ConfigDict:
  """The config of a run, which must have been trained on VPI phantoms of a difficulty above 0."""
  config = runs.load_config(workdir)
  data = config.get('data', {})
  if data.get('name') != 'vpi_phantom':
    raise ValueError(f'{workdir} was trained on {data.get("name")}, not on vpi_phantom; the stress '
                     'suite draws VPI phantoms.')
  if not data['difficulty']:
    raise ValueError(f'config.data.difficulty of {workdir} is 0; the strengths of artifacts are '
                     'its factors, so its phantoms have none.')
  return config


def _score_all(trained: Mapping[str, load.Run], data: ConfigDict,
               grid: Sequence[phantoms.Strengths], settings: Settings, cells: pathlib.Path
               ) -> dict[phantoms.Strengths, _Phantoms]:
  """Scores of every run on the phantoms of every set of strengths, behind a progress bar."""
  digests = {name: _digest(run) for name, run in trained.items()}

  @functools.cache
  def compiled(name):
    return load.create_predictor(trained[name])

  drawn, total = {}, len(grid) * len(trained) * settings.num_cases
  with logs.progress_of('stress', total, Console()) as progress:
    for strengths in grid:
      source = datasets.load_test_phantoms(data, settings.num_cases, strengths)
      scores = {}
      for name in trained:
        path = cells / f'{digests[name]}_{source.fingerprint}.json'
        cell = _read_cell(path)
        if cell is None:
          cell = _score_run(compiled(name), source, progress)
          runs.write_json(path, cell)
        else:
          progress.advance(len(source))
        scores[name] = stress_scores_from_json(cell['scores'])
      drawn[strengths] = _Phantoms(source[0].image[..., 0], cell['hole_fraction'], scores)
      progress.note(f'{_describe_strengths(strengths)}: AUC ' + ', '.join(
          f'{name} {mean:.3f}' for name, of in scores.items()
          if (mean := mean_sd(score.auc for score in of.values())[0]) is not None))
  return drawn


def _score_run(predictor: load.Predictor, source: datasets.Source, progress: logs.Progress
               ) -> dict[str, Any]:
  """The content of a cell: scores of a run on some phantoms, and their fraction of holes."""
  records = [datasets.convert_record(source[i], predictor.config.data) for i in range(len(source))]
  scores = {}
  for record, prediction in zip(records, predict.predict_images(
      predictor, (record.image for record in records))):
    scores[record.name] = dataclasses.asdict(_score(predictor, record, prediction))
    progress.advance()
  holes = float(np.mean([record.hole_fraction or 0.0 for record in records]))
  return {'hole_fraction': holes, 'scores': scores}


def _score(predictor: load.Predictor, record: Record, prediction: predict.Prediction
           ) -> StressScore:
  case = evaluate.score_case(predictor, record, prediction)
  classes, angle = tuple(predictor.config.data.classes), case.angle
  dice = segmentation.case_metrics(case.counts, classes, any_foreground=True)['dice']
  histogram = roc.foreground_histogram(prediction.probs, np.asarray(record.label))
  measured = angle.major_deg if angle else None
  return StressScore(
      dice['mean_foreground'], dice.get('any_foreground', dice[classes[1]]),
      roc.roc_curve(histogram).auc,
      None if measured is None or case.reference_deg is None else abs(
          measured - case.reference_deg), angle.status if angle else None)


def _read_cell(path: pathlib.Path) -> dict[str, Any] | None:
  """A finished cell; None if it is absent or damaged."""
  try:
    cell = runs.read_json(path)
    stress_scores_from_json(cell['scores'])
    return cell if math.isfinite(cell['hole_fraction']) else None
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _digest(run: load.Run) -> str:
  """Changes with the weights of a run, its config, its gray levels and the version of the code."""
  code = hashlib.blake2b(digest_size=16)
  facts = __version__, runs.plain(run.config), run.info['mean'], run.info['std'], run.step
  code.update(json.dumps(facts, sort_keys=True).encode())
  for leaf in jax.tree.leaves(run.variables):
    code.update(np.ascontiguousarray(leaf).tobytes())
  return code.hexdigest()


def _describe(data: ConfigDict) -> dict[str, Any]:
  """The fields of config.data that say which phantoms are drawn."""
  described = {field: data[field] for field in _PHANTOM_FIELDS[:-1]}
  return runs.plain({**described, 'strengths': dataclasses.asdict(
      phantoms.Strengths(**data.get('strengths', {})))})


def _describe_strengths(strengths: phantoms.Strengths) -> str:
  """The strengths that are not 1, such as 'speckle 2'."""
  changed = [f'{name.replace("_", " ")} {value:g}' for name, value in vars(strengths).items()
             if value != 1]
  return ', '.join(changed) or 'all 1'


def _notes(names: Sequence[str], configs: Sequence[ConfigDict]) -> tuple[str, ...]:
  """Sentences on runs that were trained on other phantoms than those of the first run."""
  drawn, *others = [_describe(config.data) for config in configs]
  return tuple(
      f'{name} was trained with config.data.{field} {other[field]}; the phantoms are those of '
      f'{names[0]}, {drawn[field]}.'
      for name, other in zip(names[1:], others) for field in drawn if other[field] != drawn[field])
