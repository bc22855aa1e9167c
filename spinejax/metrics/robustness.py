"""Robustness of runs: scores on the same phantoms against the strength of each artifact.

The first run is compared with each other one, artifact by artifact: by the mean over the strengths
and by the slope over them, both of each case.
"""
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spinejax import runs
from spinejax.metrics import comparison
from spinejax.metrics.comparison import PairedTest
from spinejax.metrics.results import StressScore, mean_sd

METRICS = {'dice': 'higher', 'bone_dice': 'higher', 'auc': 'higher', 'error_deg': 'lower'}  # better
_COLUMNS = ('artifact', 'strength', 'run', 'cases', *(
    f'{metric}{column}' for metric in METRICS for column in ('', '_cases', '_sd', '_low', '_high')),
            'failed_angles', 'flagged_angles', 'hole_fraction')

# Scores by strength, run and case.
Scores = Sequence[Mapping[str, Mapping[str, StressScore]]]


@dataclasses.dataclass(frozen=True)
class Spread:
  """One metric over the cases in which it is defined."""
  mean: float | None
  sd: float | None
  cases: int
  low: float | None  # bootstrap interval of the mean over cases
  high: float | None


@dataclasses.dataclass(frozen=True)
class Level:
  """One run at one strength of an artifact."""
  metrics: Mapping[str, Spread]  # by METRICS
  failed: int  # cases without an angle
  flagged: int  # cases with an angle that a flag weakens


@dataclasses.dataclass(frozen=True)
class Difference:
  """The first run minus another one over all strengths of an artifact."""
  mean: PairedTest  # of the mean over the strengths
  slope: PairedTest  # of the least-squares slope, per unit of strength


@dataclasses.dataclass(frozen=True)
class StressedArtifact:
  """One artifact at rising strengths, with those of the others unchanged."""
  hole_fraction: tuple[float, ...]  # by strength, mean over the cases
  levels: Mapping[str, tuple[Level, ...]]  # by run and strength
  against: Mapping[str, Mapping[str, Difference]]  # by other run and metric


@dataclasses.dataclass(frozen=True)
class Stress:
  """The stress suite of several runs."""
  workdirs: Mapping[str, str]  # {run: its folder}
  steps: Mapping[str, int]  # of the checkpoints
  cases: tuple[str, ...]
  strengths: tuple[float, ...]  # factors of the difficulty
  phantoms: Mapping[str, Any]  # seed, size, difficulty and the strengths that are not changed
  dice: str  # 'dice' or, of runs with different classes, 'bone_dice': what the runs share
  artifacts: Mapping[str, StressedArtifact]
  notes: tuple[str, ...]  # sentences on runs that were trained on other phantoms
  scores: Mapping[str, Scores]  # by artifact
  confidence: float = comparison.CONFIDENCE

  @property
  def shown_metrics(self) -> tuple[str, ...]:
    """The metrics that the runs share, those of angles only if a run measures any."""
    metrics = (self.dice, 'auc', 'error_deg')
    return metrics if any(
        level.failed + level.metrics['error_deg'].cases for artifact in self.artifacts.values()
        for levels in artifact.levels.values() for level in levels) else metrics[:2]


def compare_levels(scores: Scores, strengths: Sequence[float], hole_fraction: Sequence[float]
                   ) -> StressedArtifact:
  """Means of every run by strength, and the differences of the first run to the others.

  A case without a value at one of the strengths is left out of the differences in that metric.
  """
  first, *others = names = list(scores[0])
  levels = {run: tuple(_summarize(list(at[run].values())) for at in scores) for run in names}
  curves = {run: {metric: _curves([at[run] for at in scores], metric) for metric in METRICS}
            for run in names}
  return StressedArtifact(tuple(hole_fraction), levels, {
      run: {metric: Difference(*(
          comparison.paired_test(reduce(curves[first][metric]), reduce(curves[run][metric]),
                                 better=better)
          for reduce in (_means, lambda values: _slopes(values, strengths))))
            for metric, better in METRICS.items()}
      for run in others})


def write_tables(folder: str | os.PathLike, found: Stress) -> None:
  """Writes stress.json, and stress.csv with a line for each artifact, strength and run."""
  text = io.StringIO(newline='')
  writer = csv.writer(text)
  writer.writerow(_COLUMNS)
  for artifact, stressed in found.artifacts.items():
    for i, strength in enumerate(found.strengths):
      for run, levels in stressed.levels.items():
        spreads = [(spread.mean, spread.cases, spread.sd, spread.low, spread.high)
                   for spread in levels[i].metrics.values()]
        writer.writerow([artifact, strength, run, len(found.cases), *sum(spreads, ()),
                         levels[i].failed, levels[i].flagged, stressed.hole_fraction[i]])
  runs.write_json(pathlib.Path(folder) / 'stress.json', dataclasses.asdict(found))
  runs.write_text(pathlib.Path(folder) / 'stress.csv', text.getvalue())


def _summarize(scores: Sequence[StressScore]) -> Level:
  spreads = {}
  for metric in METRICS:
    values = [value for score in scores if (value := getattr(score, metric)) is not None]
    spreads[metric] = Spread(*mean_sd(values), *(comparison.mean_interval(values) or (None, None)))
  status = [score.status for score in scores]
  return Level(spreads, status.count('fail'), status.count('partial'))


def _curves(scores: Sequence[Mapping[str, StressScore]], metric: str) -> np.ndarray:
  """Values [cases, strengths], NaN where undefined."""
  return np.array([[getattr(at[case], metric) for at in scores] for case in scores[0]], float)


def _means(values: np.ndarray) -> list[float | None]:
  return _defined(values.mean(1))


def _slopes(values: np.ndarray, strengths: Sequence[float]) -> list[float | None]:
  """Least-squares slopes [cases] over the strengths; None with one strength."""
  centered = np.asarray(strengths) - np.mean(strengths)
  scale = (centered**2).sum()
  return _defined(values @ centered / scale) if scale else [None] * len(values)


def _defined(values: np.ndarray) -> list[float | None]:
  return [float(value) if np.isfinite(value) else None for value in values]
