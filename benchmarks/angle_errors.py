"""Errors of the largest angle in many cases, and whether intervals, bounds and flags are true."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spinejax.measurement import AngleResult

NONE_DEG, MILD_DEG = 5.0, 10.0  # a true curve is at least NONE_DEG; a mild one is below MILD_DEG
WILD_DEG = 10.0  # error that no case with status ok may have
FALSE_DEG = 3.0  # by which a false lower bound is above the true angle


class Case(NamedTuple):
  """A measured case and its truth."""
  result: AngleResult
  true_deg: float  # largest true angle; 0 without a true curve
  swing_deg: float  # largest change of the true tilts, also of a spine without a curve
  milliseconds: float


def summarize(cases: Sequence[Case]) -> dict[str, float | str]:
  """Errors in degrees; failed cases count in none of them.

  Returns {mad, bias, max}, {r}, {naive} the MAD between the lines themselves, {within} the share
  within 5 degrees, {covered} the share of 95 % intervals that hold the truth and their mean
  {width}, {ms} the median time of a case; {fail}, {partial} and {ok_wild} cases, those off by more
  than 10 degrees with status ok; and as 'a/b' {false_bounds} of truncated largest curves,
  {straight} spines below 5 degrees, {mild} true curves of 5 to 10 degrees that are reported. An
  interval must hold the swing of a spine without a true curve.
  """
  measured = [case for case in cases if case.result.status != 'fail']
  counts = {'fail': len(cases) - len(measured),
            'partial': sum(case.result.status == 'partial' for case in measured)}
  if not measured:
    return counts
  errors = np.array([case.result.major_deg - case.true_deg for case in measured])
  true = np.array([case.true_deg for case in measured])
  naive = [np.nan if case.result.naive_deg is None else case.result.naive_deg - case.true_deg
           for case in measured]
  intervals = np.array([case.result.ci95 for case in measured])
  held = np.array([case.true_deg or case.swing_deg for case in measured])
  row = {'mad': np.abs(errors).mean(), 'bias': errors.mean(), 'max': np.abs(errors).max(),
         'r': np.corrcoef(errors + true, true)[0, 1] if np.ptp(true) else np.nan,
         'naive': np.abs(naive).mean(), 'within': (np.abs(errors) <= 5).mean(),
         'covered': ((intervals[:, 0] <= held) & (held <= intervals[:, 1])).mean(),
         'width': np.ptp(intervals, axis=1).mean(),
         'ms': np.median([case.milliseconds for case in cases])}
  cut = [case for case in measured
         if case.result.major_curve and case.result.major_curve.truncated]
  counts['ok_wild'] = sum(case.result.status == 'ok' and bool(abs(error) > WILD_DEG)
                          for case, error in zip(measured, errors))
  shares = {
      'false_bounds': [case.result.lower_bound_deg > case.true_deg + FALSE_DEG for case in cut],
      'straight': [case.result.major_deg < NONE_DEG for case in measured if not case.true_deg],
      'mild': [case.result.major_deg > 0 for case in measured
               if NONE_DEG <= case.true_deg < MILD_DEG]}
  return {**{name: round(float(value), 3) for name, value in row.items() if value == value},
          **counts, **{name: f'{sum(true)}/{len(true)}' for name, true in shares.items()}}
