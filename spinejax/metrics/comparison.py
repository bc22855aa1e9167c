"""Comparison of runs that were tested on the same cases.

The first run is compared with each other one, as in C-U-net (Wong et al., 2021, section III.C): by
one-tailed paired t-tests, here with a bootstrap interval of the mean difference for each.
"""
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from spinejax.metrics import laminae
from spinejax.metrics.results import CaseResult, TestResult

CONFIDENCE = 0.95
NUM_RESAMPLES = 9999
_COUNTS = ('delta', 'missed', 'false')  # printed without decimals for a case
_LAMINAE = {  # name, decimals, and whether it is shown first; lower is better for all
    'd3d_mean': ('Mean d₃D, voxels', 2, True),
    'd3d_sum': ('Total d₃D, voxels', 1, True),
    'd3d_mean_mm': ('Mean d₃D, mm', 2, False),
    'd3d_sum_mm': ('Total d₃D, mm', 1, False),
    'delta': ('Δ, number of laminae', 1, True),
    'missed': ('Missed laminae', 1, True),
    'false': ('False laminae', 1, True),
}
_GetValue = Callable[[CaseResult], float | None]


@dataclasses.dataclass(frozen=True)
class RunSummary:
  """One metric of one run, over the cases in which it is defined."""
  mean: float | None
  sd: float | None
  cases: int


@dataclasses.dataclass(frozen=True)
class PairedTest:
  """The first run against another one, in one metric.

  Attributes:
    cases: number of cases in which both are defined.
    difference: mean of first - other.
    low, high: confidence interval of the mean difference.
    p_value: of the one-tailed test that the first run is better.
    note: why something is None, or ''.
  """
  cases: int
  difference: float | None
  low: float | None = None
  high: float | None = None
  p_value: float | None = None
  note: str = ''


@dataclasses.dataclass(frozen=True)
class ComparedMetric:
  """One metric of all runs.

  Attributes:
    key: such as 'dice/rib' or 'missed/all'.
    name: to print.
    better: 'higher' or 'lower'.
    digits, case_digits: decimals of means and of cases.
    main: whether it is shown first.
    values: {run: one value per case}.
    runs: {run: summary}.
    against: {other run: test against the first run}.
  """
  key: str
  name: str
  better: str
  digits: int
  case_digits: int
  main: bool
  values: Mapping[str, tuple[float | None, ...]]
  runs: Mapping[str, RunSummary]
  against: Mapping[str, PairedTest]


@dataclasses.dataclass(frozen=True)
class MissedLaminae:
  """Number of laminae that are missed, of the true ones, over all cases."""
  missed: int
  true: int


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Runs that were tested on the same cases.

  Attributes:
    runs: names; the first run is compared with each other one.
    cases: names.
    metrics: in the order to print.
    missed: {region: {run: counts}}; empty unless all runs have laminae.
    notes: sentences on what is undefined.
    localizer_dice: of the first run, as in `LaminaeSummary`.
    confidence: of the intervals.
    num_resamples, seed: of the bootstrap.
  """
  runs: tuple[str, ...]
  cases: tuple[str, ...]
  metrics: tuple[ComparedMetric, ...]
  missed: Mapping[str, Mapping[str, MissedLaminae]]
  notes: tuple[str, ...]
  localizer_dice: Mapping[str, float]
  confidence: float
  num_resamples: int
  seed: int

  def to_json(self) -> dict[str, Any]:
    """The content of comparison.json."""
    return dataclasses.asdict(self)


def compare(results: Mapping[str, TestResult], classes: Sequence[str], *, seed: int = 0,
            confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES) -> Comparison:
  """Means, deviations, paired tests and intervals of every metric that all runs have.

  The metrics are the Dice of each foreground class, their mean if there are several, and the
  metrics of `metrics.laminae` over all laminae and by region.

  Args:
    results: {run: result of its test}, at least two, of the same cases.
    classes: class names, background first.
    seed: of the bootstrap.
    confidence: of the intervals.
    num_resamples: of the bootstrap.

  Raises:
    ValueError: fewer than two runs, or different cases.
  """
  runs = list(results)
  if len(runs) < 2:
    raise ValueError(f'a comparison needs at least two runs, got {len(runs)}.')
  first, cases = runs[0], list(results[runs[0]].cases)
  for run in runs[1:]:
    if set(results[run].cases) != set(cases):
      raise ValueError(f'{first} and {run} were tested on different cases; compare runs of one '
                       'split.')
  regions = _common_regions(results.values())

  def compare_metric(key: str, name: str, better: str, digits: int, main: bool,
                     value_of: _GetValue) -> ComparedMetric:
    values = {run: tuple(value_of(result.cases[case]) for case in cases)
              for run, result in results.items()}
    return ComparedMetric(
        key, name, better, digits, 0 if key.split('/')[0] in _COUNTS else digits, main, values,
        runs={run: _summarize(values[run]) for run in runs},
        against={run: paired_test(values[first], values[run], better=better, seed=seed,
                                  confidence=confidence, num_resamples=num_resamples)
                 for run in runs[1:]})

  metrics = [compare_metric(*definition) for definition in _define_metrics(classes, regions)]
  metrics = [metric for metric in metrics
             if any(summary.cases for summary in metric.runs.values())]
  summary = results[first].laminae
  return Comparison(
      tuple(runs), tuple(cases), tuple(metrics),
      missed={region: {run: _count_missed(result, region) for run, result in results.items()}
              for region in regions},
      notes=_notes(results, cases, metrics),
      localizer_dice=summary.localizer_dice if summary else {},
      confidence=confidence, num_resamples=num_resamples, seed=seed)


def paired_test(first: Sequence[float | None], other: Sequence[float | None], *, better: str,
                seed: int = 0, confidence: float = CONFIDENCE,
                num_resamples: int = NUM_RESAMPLES) -> PairedTest:
  """One-tailed paired t-test that `first` is better, and an interval of the mean difference.

  The interval is the bias-corrected and accelerated bootstrap of `scipy.stats.bootstrap` over
  cases. Test and interval are None with fewer than two pairs and with equal differences.

  Args:
    first, other: one value per case; cases with None are left out.
    better: 'higher' or 'lower'.
    seed, confidence, num_resamples: of the bootstrap.
  """
  pairs = np.array([(a, b) for a, b in zip(first, other, strict=True)
                    if a is not None and b is not None], np.float64).reshape(-1, 2)
  count, differences = len(pairs), pairs[:, 0] - pairs[:, 1]
  mean = float(differences.mean()) if count else None
  if count < 2:
    return PairedTest(count, mean, note='a test and an interval need at least two cases')
  if np.ptp(differences) <= 1e-12 * max(1.0, np.abs(pairs).max()):
    return PairedTest(count, mean, note='the difference is the same in every case, so nothing can '
                                        'be tested')
  test = stats.ttest_rel(*pairs.T, alternative={'higher': 'greater', 'lower': 'less'}[better])
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', stats.DegenerateDataWarning)
    low, high = map(float, stats.bootstrap(
        (differences,), np.mean, n_resamples=num_resamples, confidence_level=confidence,
        method='BCa', rng=np.random.default_rng(seed)).confidence_interval)
  if not math.isfinite(low + high):
    return PairedTest(count, mean, p_value=float(test.pvalue),
                      note='the bootstrap of so few different values has no interval')
  return PairedTest(count, mean, low, high, float(test.pvalue))


def _define_metrics(classes: Sequence[str], regions: Sequence[str]
                    ) -> list[tuple[str, str, str, int, bool, _GetValue]]:
  """Key, name, better, digits, main, and the function that reads the value of a case."""
  names = {name: name for name in classes[1:]}
  if len(names) > 1:
    names['mean_foreground'] = 'mean of foreground'

  def get_dice(name: str) -> _GetValue:
    return lambda case: case.overlap.get('dice', {}).get(name)

  def get_lamina_value(metric: str, region: str) -> _GetValue:
    return lambda case: _lamina_value(case, metric, region)

  definitions = [(f'dice/{key}', f'Dice, {name}', 'higher', 3, True, get_dice(key))
                 for key, name in names.items()]
  for region in regions:
    for metric, (name, digits, main) in _LAMINAE.items():
      if region != 'all':
        name, main = f'{name.removesuffix(" laminae")}, {region}', metric == 'missed'
      definitions.append((f'{metric}/{region}', name, 'lower', digits, main,
                          get_lamina_value(metric, region)))
    if region != 'all':
      definitions.append((f'laminae_dice/{region}', f'Dice, {region}', 'higher', 3, False,
                          get_lamina_value('dice', region)))
  return definitions


def _lamina_value(case: CaseResult, metric: str, region: str) -> float | None:
  return (case.laminae or {}).get(metric, {}).get(region)


def _count_missed(result: TestResult, region: str) -> MissedLaminae:
  missed, true = (sum(_lamina_value(case, metric, region) or 0 for case in result.cases.values())
                  for metric in ('missed', 'true'))
  return MissedLaminae(int(missed), int(true))


def _common_regions(results: Iterable[TestResult]) -> list[str]:
  """Regions in which every run has rated laminae in some case."""
  rated = [{region for case in result.cases.values()
            for region in (case.laminae or {}).get('missed', ())} for result in results]
  return [region for region in ('all', *laminae.REGIONS) if all(region in of for of in rated)]


def _summarize(values: Sequence[float | None]) -> RunSummary:
  defined = [value for value in values if value is not None]
  return RunSummary(float(np.mean(defined)) if defined else None,
                    float(np.std(defined, ddof=1)) if len(defined) > 1 else None, len(defined))


def _notes(results: Mapping[str, TestResult], cases: Sequence[str],
           metrics: Sequence[ComparedMetric]) -> tuple[str, ...]:
  """Sentences on what is undefined and why."""
  notes = []
  without = [run for run, result in results.items() if not result.laminae]
  if without and len(without) < len(results):
    notes.append(f'Laminae are left out: {", ".join(without)} was tested without them; test it '
                 'again with spinejax test.')
  reasons: dict[str, list[str]] = {}
  undefined: dict[str, list[str]] = {}
  for metric in metrics:
    for run, test in metric.against.items():
      if test.note:
        reasons.setdefault(test.note, []).append(f'{metric.name} ({run})')
    missing = ', '.join(f'{len(cases) - summary.cases} of {run}'
                        for run, summary in metric.runs.items() if summary.cases < len(cases))
    if missing:
      undefined.setdefault(missing, []).append(metric.name)
  if len(cases) < 2:
    notes.append('One case has no deviation, test or interval.')
  else:
    notes += [f'{"; ".join(where)}: {reason}.' for reason, where in reasons.items()]
  notes += [f'{"; ".join(names)}: undefined in some of the {len(cases)} cases, {missing}.'
            for missing, names in undefined.items()]
  return tuple(notes)
