"""Comparison of runs that were tested on the same cases.

The first run is compared with each other one, as in C-U-net (Wong et al., 2021, section III.C): by
one-tailed paired t-tests, here with a bootstrap interval of the mean difference for each.
"""
import csv
import dataclasses
import difflib
import io
import math
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from spinejax import runs
from spinejax.metrics import laminae
from spinejax.metrics.results import (
    CaseResult, Interval, RocCurve, TestResult, best_median_worst, mean_sd)
from spinejax.metrics.tested_runs import TestedRun, load_tested, unique_names

CONFIDENCE = 0.95  # of the intervals
NUM_RESAMPLES = 9999  # of the bootstrap
SEED = 0  # of the bootstrap
_OVERLAPS = {'dice': 'Dice', 'iou': 'IoU', 'recall': 'Recall', 'precision': 'Precision'}
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
_COLUMNS = ('metric', 'name', 'better', 'run', 'cases', 'mean', 'sd', 'compared_cases',
            'difference', 'low', 'high', 'p_value', 'adjusted_p', 'note')


@dataclasses.dataclass(frozen=True)
class RunSummary:
  """One metric of one run, over the cases in which it is defined."""
  mean: float | None
  sd: float | None
  cases: int


@dataclasses.dataclass(frozen=True)
class PairedTest:
  """Comparison of the first run with another run in one metric."""
  cases: int  # number of cases in which both are defined
  difference: float | None  # mean of first - other
  low: float | None = None  # confidence interval of the difference
  high: float | None = None
  p_value: float | None = None  # of the one-tailed test that the first run is better
  adjusted_p: float | None = None  # by `holm` over the other runs
  note: str = ''  # why something is None


@dataclasses.dataclass(frozen=True)
class ComparedMetric:
  """One metric of all runs."""
  key: str  # such as 'dice/rib' or 'missed/all'
  name: str
  better: str  # 'higher' or 'lower'
  digits: int  # decimals of means
  case_digits: int  # decimals of cases
  main: bool  # whether it is shown first
  values: Mapping[str, tuple[float | None, ...]]  # {run: one value per case}
  runs: Mapping[str, RunSummary]
  against: Mapping[str, PairedTest]  # {other run: test against the first run}


@dataclasses.dataclass(frozen=True)
class RunFact:
  """A number of each run as a whole. It has no values of cases, so it is not tested."""
  key: str  # 'auc/CLASS', 'seconds_per_image', 'training_seconds', 'step' or 'num_parameters'
  name: str
  values: Mapping[str, float | None]  # by run


@dataclasses.dataclass(frozen=True)
class MissedLaminae:
  """Number of laminae that are missed, of the true ones, over all cases."""
  missed: int
  true: int


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Runs that were tested on the same cases; the first run is compared with each other one."""
  runs: tuple[str, ...]
  cases: tuple[str, ...]
  metrics: tuple[ComparedMetric, ...]  # in the order to print
  missed: Mapping[str, Mapping[str, MissedLaminae]]  # by region and run, if all runs have laminae
  notes: tuple[str, ...]  # sentences on what is undefined
  localizer_dice: Mapping[str, float]  # of the first run, as in `LaminaeSummary`
  confidence: float = CONFIDENCE
  num_resamples: int = NUM_RESAMPLES
  seed: int = SEED
  facts: tuple[RunFact, ...] = ()  # in the order to print
  workdirs: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {run: its folder}
  fingerprint: str = ''  # hash of the test data
  is_phantom: bool = False  # whether the cases are phantoms
  classes: tuple[str, ...] = ()  # background first
  roc: Mapping[str, Mapping[str, RocCurve]] = dataclasses.field(default_factory=dict)  # by run

  def to_json(self) -> dict[str, Any]:
    """The content of comparison.json."""
    content = dataclasses.asdict(self)
    del content['is_phantom'], content['roc']
    return content


def compare_runs(workdirs: Sequence[str]) -> Comparison:
  """Compares tested run folders: the first one with each other one.

  Args:
    workdirs: at least two folders. Their configs may differ, their test cases not.

  Raises:
    FileNotFoundError: a folder holds no run.
    ValueError: only one run, one given twice, one without a test, or other classes, cases or data.
  """
  names = unique_names(workdirs)
  first, *others = tested = [load_tested(workdir) for workdir in workdirs]
  for other in others:
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
  by_name = dict(zip(names, tested))
  found = compare({name: run.result for name, run in by_name.items()}, first.classes)
  notes = [f'The ROC curves of {name} are not stored; to draw them, test it again with spinejax '
           f'test --workdir={run.workdir}.' for name, run in by_name.items() if not run.roc]
  return dataclasses.replace(
      found, workdirs=dict(zip(names, workdirs)), fingerprint=first.fingerprint,
      is_phantom=any('phantom' in run.data_name for run in tested),
      facts=_facts(by_name, first.classes),
      roc={name: run.roc for name, run in by_name.items() if run.roc},
      notes=(*found.notes, *notes))


def compare(results: Mapping[str, TestResult], classes: Sequence[str]) -> Comparison:
  """Means, deviations, paired tests and intervals of every metric that all runs have.

  The metrics are Dice, IoU, recall and precision of each foreground class and, if there are
  several, their mean; the accuracy over pixels; the absolute error of the largest angle; and the
  metrics of `metrics.laminae` over all laminae and by region.

  Args:
    results: {run: result of its test}, at least two, of the same cases.
    classes: class names, background first.
  """
  first, *others = names = list(results)
  cases, summary = list(results[first].cases), results[first].laminae
  angle_note = _why_without_angles(results)
  scores = {run: {name: _scores(case, with_angle=not angle_note)
                  for name, case in result.cases.items()} for run, result in results.items()}
  regions = [region for region in ('all', *laminae.REGIONS)
             if all(any(f'missed/{region}' in of_case for of_case in of_run.values())
                    for of_run in scores.values())]
  metrics = []
  for key, name, better, digits, main in _define_metrics(classes, regions):
    values = {run: tuple(scores[run][case].get(key) for case in cases) for run in names}
    summaries = {run: RunSummary(*mean_sd(values[run])) for run in names}
    if any(run.cases for run in summaries.values()):
      metrics.append(ComparedMetric(
          key, name, better, digits, 0 if key.split('/')[0] in _COUNTS else digits, main, values,
          summaries, against=_against(values, better)))

  def count_missed(run: str, region: str) -> MissedLaminae:
    missed, true = (sum(case.get(f'{metric}/{region}') or 0 for case in scores[run].values())
                    for metric in ('missed', 'true'))
    return MissedLaminae(int(missed), int(true))

  missed = {region: {run: count_missed(run, region) for run in names} for region in regions}
  notes = (*filter(None, [angle_note]), *_notes(results, cases, metrics))
  return Comparison(tuple(names), tuple(cases), tuple(metrics), missed, notes,
                    summary.localizer_dice if summary else {}, classes=tuple(classes))


def _against(values: Mapping[str, Sequence[float | None]], better: str) -> dict[str, PairedTest]:
  """Tests of the first run against each other one, corrected for their number."""
  first, *others = values
  tests = [paired_test(values[first], values[run], better=better) for run in others]
  adjusted = holm([test.p_value for test in tests])
  return {run: dataclasses.replace(test, adjusted_p=p)
          for run, test, p in zip(others, tests, adjusted)}


def case_dice(found: Comparison, run: str) -> dict[str, float | None]:
  """The Dice of each case, as the mean of the foreground classes."""
  key = f'dice/{"mean_foreground" if len(found.classes) > 2 else found.classes[1]}'
  values = next((metric.values[run] for metric in found.metrics if metric.key == key),
                (None,) * len(found.cases))
  return dict(zip(found.cases, values, strict=True))


def choose_cases(found: Comparison, names: Sequence[str] = ()) -> dict[str, str]:
  """{case: role} of the cases to show.

  Without names they are the worst, the median and the best case of the first run by `case_dice`.
  'all' stands for all cases.

  Raises:
    ValueError: a name is that of no test case.
  """
  dice = case_dice(found, found.runs[0])
  roles = {found.cases[i]: role for i, role in best_median_worst(list(dice.values())).items()}
  if not names:
    return dict(reversed(roles.items()))
  if list(names) == ['all']:
    names = found.cases
  for name in names:
    if name not in dice:
      nearest = difflib.get_close_matches(name, found.cases, n=1, cutoff=0)
      raise ValueError(f'{name} is not one of the {len(found.cases)} test cases; the nearest name '
                       f'is {nearest[0]}.')
  return {name: roles.get(name, '') for name in names}


def paired_test(first: Sequence[float | None], other: Sequence[float | None], *, better: str
                ) -> PairedTest:
  """One-tailed paired t-test that `first` is better, and an interval of the mean difference.

  The interval is the bias-corrected and accelerated bootstrap of `scipy.stats.bootstrap` over
  cases. Test and interval are None with fewer than two pairs and with equal differences.

  Args:
    first, other: one value per case; cases with None are left out.
    better: 'higher' or 'lower'.
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
  interval = mean_interval(differences)
  if interval is None:
    return PairedTest(count, mean, p_value=float(test.pvalue),
                      note='the bootstrap of so few different values has no interval')
  return PairedTest(count, mean, *interval, float(test.pvalue))


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval | None:
  """Bias-corrected and accelerated bootstrap interval of the mean of one value per case.

  None with fewer than two values, and with equal or too few different ones.
  """
  if len(values) < 2 or np.ptp(values) == 0:
    return None
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', stats.DegenerateDataWarning)
    low, high = map(float, stats.bootstrap(
        (values,), np.mean, n_resamples=NUM_RESAMPLES, confidence_level=CONFIDENCE,
        method='BCa', rng=np.random.default_rng(SEED)).confidence_interval)
  return (low, high) if math.isfinite(low + high) else None


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
  """P values adjusted for the number of tests by the step-down method of Holm (1979).

  The k-th smallest of m values is multiplied by m - k + 1, is at least as large as the adjusted
  values of smaller ones, and is at most 1. Rejecting where the result is at most alpha keeps the
  probability of any false rejection at alpha or below, for dependent tests too.

  Args:
    p_values: of m tests; None, a test that could not be made, stays None and is not counted.
  """
  defined = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
  adjusted, floor = list(p_values), 0.0
  for rank, (p, i) in enumerate(defined):
    floor = max(floor, min(1.0, (len(defined) - rank) * p))
    adjusted[i] = floor
  return tuple(adjusted)


def write_tables(folder: str | os.PathLike, found: Comparison) -> None:
  """Writes comparison.json, and comparison.csv with a line for each metric and run.

  The last columns of the CSV compare the first run with the run of the line. A fact of a run has
  its value as the mean.
  """
  text = io.StringIO(newline='')
  writer = csv.writer(text)
  writer.writerow(_COLUMNS)
  for metric in found.metrics:
    for run, summary in metric.runs.items():
      test = metric.against.get(run)
      compared = dataclasses.astuple(test) if test else ()
      writer.writerow([metric.key, metric.name, metric.better, run, summary.cases, summary.mean,
                       summary.sd, *compared])
  for fact in found.facts:
    for run, value in fact.values.items():
      writer.writerow([fact.key, fact.name, '', run, '', value])
  runs.write_json(pathlib.Path(folder) / 'comparison.json', found.to_json())
  runs.write_text(pathlib.Path(folder) / 'comparison.csv', text.getvalue())


def _define_metrics(classes: Sequence[str], regions: Sequence[str]
                    ) -> list[tuple[str, str, str, int, bool]]:
  """Key, name, better, digits and main of each metric."""
  names = {name: name for name in classes[1:]}
  if len(names) > 1:
    names['mean_foreground'] = 'mean of foreground'
  metrics = [(f'{metric}/{key}', f'{shown}, {name}', 'higher', 3, metric == 'dice')
             for metric, shown in _OVERLAPS.items() for key, name in names.items()]
  metrics += [('accuracy/mean_all', 'Pixel accuracy', 'higher', 3, True),
              ('angle_error', 'Angle error, degrees', 'lower', 1, True)]
  for region in regions:
    for metric, (name, digits, main) in _LAMINAE.items():
      if region != 'all':
        name, main = f'{name.removesuffix(" laminae")}, {region}', metric == 'missed'
      metrics.append((f'{metric}/{region}', name, 'lower', digits, main))
    if region != 'all':
      metrics.append((f'laminae_dice/{region}', f'Dice, {region}', 'higher', 3, False))
  return metrics


def _facts(tested: Mapping[str, TestedRun], classes: Sequence[str]) -> tuple[RunFact, ...]:
  """What is known of some run: areas under the ROC curves, durations, step and parameters."""
  areas = {name: name for name in classes[1:]} | {'any_foreground': 'any foreground'}
  facts = [RunFact(f'auc/{key}', f'AUC, {name}', {
      run: of.result.auc.get(key) for run, of in tested.items()}) for key, name in areas.items()]
  facts += [
      RunFact('seconds_per_image', 'Seconds per image', {
          run: of.result.seconds_per_image.mean if of.result.seconds_per_image else None
          for run, of in tested.items()}),
      RunFact('training_seconds', 'Training', {
          run: of.training_seconds for run, of in tested.items()}),
      RunFact('step', 'Step', {run: of.result.step for run, of in tested.items()}),
      RunFact('num_parameters', 'Parameters', {
          run: of.num_parameters for run, of in tested.items()})]
  return tuple(fact for fact in facts if any(v is not None for v in fact.values.values()))


def _why_without_angles(results: Mapping[str, TestResult]) -> str:
  """Why the angles of the runs cannot be compared; '' if they can, or if no run has angles."""
  without = [run for run, result in results.items() if not result.angles]
  if without:
    return '' if len(without) == len(results) else (
        f'Angle errors are left out: {", ".join(without)} was tested without angles.')
  for name in next(iter(results.values())).cases:
    angles = [result.cases[name].angle for result in results.values()]
    references = [angle.reference_deg if angle else None for angle in angles]
    if len({value if value is None else round(value, 6) for value in references}) > 1:
      methods = '; '.join(f'{run}: {result.angles.method}, {result.angles.reference}'
                          for run, result in results.items() if result.angles)
      return (f'Angle errors are left out: the runs have other references, such as in {name} '
              f'({methods}).')
  return ''


def _scores(case: CaseResult, with_angle: bool) -> dict[str, float | None]:
  """The values of a case by the keys of the metrics, and its true laminae."""
  scores = {f'{metric}/{name}': value for metric in (*_OVERLAPS, 'accuracy')
            for name, value in case.overlap.get(metric, {}).items()}
  angle = case.angle
  if with_angle and angle and angle.angle_deg is not None and angle.reference_deg is not None:
    scores['angle_error'] = abs(angle.angle_deg - angle.reference_deg)
  for metric, values in (case.laminae or {}).items():
    metric = 'laminae_dice' if metric == 'dice' else metric
    scores |= {f'{metric}/{region}': value for region, value in values.items()}
  return scores


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
