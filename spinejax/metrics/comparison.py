"""Runs that were tested on the same cases, compared pair by pair. Host code.

As C-U-net (Wong et al., 2021, section III.C) does it: one-tailed paired t-tests of the first run
against each other one, here with a bootstrap interval of the mean difference beside each.
"""
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from spinejax.metrics import laminae

CONFIDENCE = 0.95
NUM_RESAMPLES = 9999
_COUNTS = ('delta', 'missed', 'false')
_LAMINAE = {  # name, decimals and whether it leads; less of all of them is better
    'd3d_mean': ('Mean d₃D, voxels', 2, True),
    'd3d_sum': ('Total d₃D, voxels', 1, True),
    'd3d_mean_mm': ('Mean d₃D, mm', 2, False),
    'd3d_sum_mm': ('Total d₃D, mm', 1, False),
    'delta': ('Δ, number of laminae', 1, True),
    'missed': ('Missed laminae', 1, True),
    'false': ('False laminae', 1, True),
}


def compare(results: Mapping[str, Mapping[str, Any]], classes: Sequence[str], *, seed: int = 0,
            confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES) -> dict[str, Any]:
  """Means, deviations, paired tests and intervals of every metric that all runs have.

  Metrics are the Dice of each class but the background and, of several, their mean; and those of
  `metrics.laminae` over all laminae and by region.

  Args:
    results: {run: content of its test_metrics.json}, at least two, of the same cases; the first run
      is the one compared with the others.
    classes: class names, background first.
    seed: of the bootstrap.
    confidence: of the intervals.
    num_resamples: of the bootstrap.

  Returns:
    JSON-safe: `runs` and `cases` [names], `metrics` [one dict each], `missed` {region: {run:
    {'missed': number, 'true': number}}} over all cases, {} where a run has no laminae, `notes`
    [sentences on what is undefined], `localizer_dice` of the first run, `confidence`,
    `num_resamples` and `seed`. A metric has `key`, `name`, `better` ('higher' or 'lower'), `digits`
    to print of means and `case_digits` of cases, `main` (False: by region but for the missed ones,
    and mm), `values` {run: [one per case, None undefined]}, `runs` {run: `mean`, `sd`, `cases`}
    over the cases in which it is defined, and `against` {other run: `paired_test`}.

  Raises:
    ValueError: fewer than two runs, other cases, a value that is no number.
  """
  runs = list(results)
  if len(runs) < 2:
    raise ValueError(f'a comparison needs at least two runs, got {len(runs)}.')
  cases = list(results[runs[0]]['cases'])
  for run in runs[1:]:
    if set(results[run]['cases']) != set(cases):
      raise ValueError(f'{runs[0]} and {run} were tested on different cases; compare runs of one '
                       'split.')
  metrics = [metric for metric in _metrics(results, cases, classes)
             if any(value is not None for of in metric['values'].values() for value in of)]
  for metric in metrics:
    values = metric['values']
    metric['runs'] = {run: _describe(values[run]) for run in runs}
    metric['against'] = {
        run: paired_test(values[runs[0]], values[run], better=metric['better'], seed=seed,
                        confidence=confidence, num_resamples=num_resamples) for run in runs[1:]}
  localizer = (results[runs[0]].get('laminae') or {}).get('localizer_dice') or {}
  return {'runs': runs, 'cases': cases, 'metrics': metrics, 'missed': _missed(results, cases),
          'notes': _notes(results, cases, metrics), 'localizer_dice': localizer,
          'confidence': confidence,
          'num_resamples': num_resamples, 'seed': seed}


def paired_test(first: Sequence[float | None], other: Sequence[float | None], *, better: str,
               seed: int = 0, confidence: float = CONFIDENCE,
               num_resamples: int = NUM_RESAMPLES) -> dict[str, float | int | str | None]:
  """One-tailed paired t-test that `first` is better, and an interval of the mean difference.

  The interval is the bias-corrected and accelerated bootstrap of `scipy.stats.bootstrap`: cases are
  drawn with their pair of values.

  Args:
    first, other: value per case, None where undefined; such cases are left out.
    better: 'higher' or 'lower'.
    seed, confidence, num_resamples: of the bootstrap.

  Returns:
    `cases`, the number of pairs; `difference`, the mean of first - other, None without a pair;
    `p_value` and the interval `low`, `high`, None with fewer than two pairs and where all
    differences are equal; `note`, why something is None, or ''.
  """
  pairs = np.array([(a, b) for a, b in zip(first, other, strict=True)
                    if a is not None and b is not None], np.float64).reshape(-1, 2)
  differences = pairs[:, 0] - pairs[:, 1]
  result = {'cases': len(pairs), 'difference': float(differences.mean()) if len(pairs) else None,
            'low': None, 'high': None, 'p_value': None, 'note': ''}
  if len(pairs) < 2:
    return result | {'note': 'a test and an interval need at least two cases'}
  if np.ptp(differences) <= 1e-12 * max(1.0, np.abs(pairs).max()):
    return result | {'note': 'the difference is the same in every case, so nothing can be tested'}
  test = stats.ttest_rel(*pairs.T, alternative={'higher': 'greater', 'lower': 'less'}[better])
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', stats.DegenerateDataWarning)
    low, high = stats.bootstrap(
        (differences,), np.mean, n_resamples=num_resamples, confidence_level=confidence,
        method='BCa', rng=np.random.default_rng(seed)).confidence_interval
  result['p_value'] = float(test.pvalue)
  if not (math.isfinite(low) and math.isfinite(high)):
    return result | {'note': 'the bootstrap of so few different values has no interval'}
  return result | {'low': float(low), 'high': float(high)}



def _metrics(results, cases, classes) -> list[dict[str, Any]]:
  """What is compared, each with its values by run and case."""
  def metric(key, name, better, digits, main, *path):
    values = {run: [_value(run, case, result, path) for case in cases]
              for run, result in results.items()}
    return {'key': key, 'name': name, 'better': better, 'digits': digits, 'main': main,
            'case_digits': 0 if key.split('/')[0] in _COUNTS else digits, 'values': values}

  names = {name: name for name in classes[1:]}
  if len(names) > 1:
    names['mean_foreground'] = 'mean of foreground'
  found = [metric(f'dice/{key}', f'Dice, {name}', 'higher', 3, True, 'cases', None, 'dice', key)
           for key, name in names.items()]
  for region in _regions(results, cases):
    for key, (name, digits, main) in _LAMINAE.items():
      if region != 'all':
        name, main = f'{name.removesuffix(" laminae")}, {region}', key == 'missed'
      found.append(metric(f'{key}/{region}', name, 'lower', digits, main,
                          'laminae', 'cases', None, key, region))
    if region != 'all':
      found.append(metric(f'laminae_dice/{region}', f'Dice, {region}', 'higher', 3, False,
                          'laminae', 'cases', None, 'dice', region))
  return found


def _value(run: str, case: str, result: Mapping[str, Any], path: Sequence[str | None]
           ) -> float | None:
  """The number at `path` in a run's results, None in the path standing for the case."""
  value = result
  for key in path:
    value = value.get(case if key is None else key) if isinstance(value, Mapping) else None
  if value is None:
    return None
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
    raise ValueError(f'{run} has {value!r} instead of a number for {case} in its test results; '
                     'evaluate it again.')
  return float(value)


def _regions(results, cases) -> list[str]:
  """Regions in which every run has rated laminae in some case; none where a run rated none."""
  rated = [{key for case in cases for key in _laminae_of(result, case).get('missed', ())}
           for result in results.values()]
  return [region for region in ('all', *laminae.REGIONS) if all(region in keys for keys in rated)]


def _laminae_of(result: Mapping[str, Any], case: str) -> Mapping[str, Any]:
  return ((result.get('laminae') or {}).get('cases') or {}).get(case) or {}


def _missed(results, cases) -> dict[str, dict[str, dict[str, int]]]:
  counted = lambda run, kind, region: int(sum(
      _value(run, case, results[run], ('laminae', 'cases', None, kind, region)) or 0
      for case in cases))
  return {region: {run: {kind: counted(run, kind, region) for kind in ('missed', 'true')}
                   for run in results} for region in _regions(results, cases)}


def _describe(values: Sequence[float | None]) -> dict[str, float | int | None]:
  defined = [value for value in values if value is not None]
  return {'mean': float(np.mean(defined)) if defined else None,
          'sd': float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
          'cases': len(defined)}


def _notes(results, cases, metrics) -> list[str]:
  """What is undefined and why, in sentences."""
  notes = []
  without = [run for run, result in results.items() if not result.get('laminae')]
  if without and len(without) < len(results):
    notes.append(f'Laminae are left out: {", ".join(without)} was tested without them; evaluate '
                 'again with --mode=evaluate.')
  reasons: dict[str, list[str]] = {}
  for metric in metrics:
    for run, test in metric['against'].items():
      if test['note']:
        reasons.setdefault(test['note'], []).append(f'{metric["name"]} ({run})')
  if len(cases) < 2:
    notes.append('One case has no deviation, test or interval.')
  else:
    notes += [f'{"; ".join(where)}: {reason}.' for reason, where in reasons.items()]
  undefined: dict[str, list[str]] = {}
  for metric in metrics:
    missing = {run: len(cases) - of['cases'] for run, of in metric['runs'].items()
               if of['cases'] < len(cases)}
    if missing:
      counts = ', '.join(f'{count} of {run}' for run, count in missing.items())
      undefined.setdefault(counts, []).append(metric['name'])
  notes += [f'{"; ".join(names)}: undefined in some of the {len(cases)} cases, {counts}.'
            for counts, names in undefined.items()]
  return notes
