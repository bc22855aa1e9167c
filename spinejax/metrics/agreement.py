"""How well two measurements of the same angles agree. Host code; degrees throughout.

A difference is other - reference. What cannot be computed is None, with the reason in `undefined`.
"""
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from spinejax.measure import angles

LIMIT_DEG = 5.0
CONFIDENCE = 0.95
MAX_DEG = 180.0
_Z95 = float(stats.norm.ppf(0.975))
_NO_PAIR = 'there is no pair of angles'
_ONE_PAIR = 'needs at least two pairs of angles'

Values = Sequence[float | None] | Sequence[Sequence[float | None]] | np.ndarray
Interval = list[float]


def agree(reference: Values, other: Values, *, limit: float = LIMIT_DEG,
          bands: Sequence[tuple[str, float]] = angles.BANDS,
          confidence: float = CONFIDENCE) -> dict[str, Any]:
  """Everything published on the agreement of two measurements, of one angle per case.

  With d = other - reference: mad = mean |d|, bias = mean d, limits = bias ± 1.96 SD(d) (Bland and
  Altman, 1999); sem = sqrt(MS_error) = SD(d) / sqrt(2), which is SD sqrt(1 - ICC(3,1)) with the
  mean variance of the two; mdc95 = 1.96 sqrt(2) sem (Weir, 2005). Neither counts the bias.

  Args:
    reference, other: [n] degrees within ±180; pairs with None, NaN or infinity are left out.
    limit: of `within`, degrees, itself included.
    bands: (name, upper limit in degrees, excluded) by rising limit, the last infinite.
    confidence: of the intervals, all named `..._ci` [low, high].

  Returns:
    JSON-safe: `pairs`, `left_out`; `mad` and `mad_sd` (of |d|); `bias`, `bias_ci`, `sd` (of d);
    `limits` [low, high], `lower_limit_ci`, `upper_limit_ci` (t distribution, the approximate
    standard error of Bland and Altman); `within` (share with |d| <= `limit`), `num_within`,
    `limit`; `r`, `r_ci`, `r2` (`pearson`); `icc2_1`, `icc3_1` with `..._ci` (`icc`); `sem`,
    `mdc95`; `smape` (`smape`); `bands` (`rate_bands`); `confidence`; `undefined` {key: why it is
    None}. SDs have n - 1 degrees of freedom.

  Raises:
    ValueError: lengths differ, an angle beyond ±180, bands or a share that cannot be.
  """
  if not 0 < confidence < 1:
    raise ValueError(f'confidence must lie between 0 and 1, got {confidence}.')
  if not limit >= 0:
    raise ValueError(f'the limit must be at least 0 degrees, got {limit}.')
  pairs = _pairs(reference, other)
  left_out, pairs = len(pairs), pairs[np.isfinite(pairs).all(1)]
  left_out -= len(pairs)
  found: dict[str, Any] = {'pairs': len(pairs), 'left_out': left_out}
  undefined: dict[str, str] = {}
  for part in (_differences(pairs, limit, confidence), pearson(*pairs.T, confidence=confidence),
               icc(pairs, confidence=confidence), smape(*pairs.T)):
    undefined |= part.pop('undefined')
    found |= part
  return found | {'bands': rate_bands(*pairs.T, bands=bands), 'confidence': confidence,
                  'undefined': undefined}


def _differences(pairs: np.ndarray, limit: float, confidence: float) -> dict[str, Any]:
  """The part of `agree` that needs the differences alone."""
  n, difference = len(pairs), pairs[:, 1] - pairs[:, 0]
  several = ('mad_sd', 'bias_ci', 'sd', 'limits', 'lower_limit_ci', 'upper_limit_ci', 'sem',
             'mdc95')
  found: dict[str, Any] = dict.fromkeys(('mad', 'bias', 'within', *several))
  found |= {'num_within': 0, 'limit': float(limit)}
  if not n:
    return found | {'undefined': dict.fromkeys(('mad', 'bias', 'within', *several), _NO_PAIR)}
  size, bias = np.abs(difference), float(difference.mean())
  # A limit is meant in decimals: 12.3 - 7.3 is within 5, though not in binary.
  within = int((size <= limit + 1e-9).sum())
  found |= {'mad': float(size.mean()), 'bias': bias, 'num_within': within, 'within': within / n}
  if n < 2:
    return found | {'undefined': dict.fromkeys(several, _ONE_PAIR)}
  sd = float(difference.std(ddof=1))
  t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
  around = lambda center, error: [center - t * error, center + t * error]
  limits = [bias - _Z95 * sd, bias + _Z95 * sd]
  error = sd * math.sqrt(1 / n + _Z95**2 / (2 * (n - 1)))
  sem = sd / math.sqrt(2)
  return found | {
      'mad_sd': float(size.std(ddof=1)), 'bias_ci': around(bias, sd / math.sqrt(n)), 'sd': sd,
      'limits': limits, 'lower_limit_ci': around(limits[0], error),
      'upper_limit_ci': around(limits[1], error), 'sem': sem, 'mdc95': _Z95 * math.sqrt(2) * sem,
      'undefined': {}}


def pearson(reference: Values, other: Values, *, confidence: float = CONFIDENCE) -> dict[str, Any]:
  """Pearson's r with the interval of Fisher's transformation, tanh(atanh r ± z / sqrt(n - 3)).

  Args:
    reference, other: [n]; pairs with None, NaN or infinity are left out.

  Returns:
    `r`, `r_ci`, `r2` = r², that of the straight line through the pairs, and `undefined`: r needs
    three pairs (of two it is ±1 whatever they are) and values that are not all equal, its interval
    four.
  """
  pairs = _pairs(reference, other)
  pairs = pairs[np.isfinite(pairs).all(1)]
  found: dict[str, Any] = {'r': None, 'r_ci': None, 'r2': None}
  reason = ''
  if len(pairs) < 3:
    reason = 'needs at least three pairs of angles' if len(pairs) else _NO_PAIR
  elif any(_is_constant(values) for values in pairs.T):
    reason = 'one of the two measured the same angle in every case'
  if reason:
    return found | {'undefined': dict.fromkeys(found, reason)}
  r = float(np.clip(np.corrcoef(pairs.T)[0, 1], -1, 1))
  if 1 - abs(r) < 1e-14:
    r = math.copysign(1.0, r)
  found |= {'r': r, 'r2': r * r}
  if len(pairs) < 4:
    return found | {'undefined': {'r_ci': 'needs at least four pairs of angles'}}
  if abs(r) == 1:
    return found | {'r_ci': [r, r], 'undefined': {}}
  half = float(stats.norm.ppf((1 + confidence) / 2)) / math.sqrt(len(pairs) - 3)
  return found | {'r_ci': [math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)],
                  'undefined': {}}


def icc(ratings: np.ndarray, *, confidence: float = CONFIDENCE) -> dict[str, Any]:
  """Intraclass correlations of single ratings: absolute agreement, and consistency.

  With the mean squares of rows R, columns C and error E, n rows and k columns,
    ICC(2,1) = (R - E) / (R + (k - 1) E + k (C - E) / n)   raters are a sample: a bias counts
    ICC(3,1) = (R - E) / (R + (k - 1) E)                   these raters: a bias does not count
  (Shrout and Fleiss, 1979); the intervals are those of McGraw and Wong (1996), table 7, for A,1 and
  C,1. Where nothing but a bias is left of the error, the interval of ICC(3,1) is [1, 1].

  Args:
    ratings: [n, k], a row per case and a column per rater; rows with a value that is not finite are
      left out.

  Returns:
    `icc2_1`, `icc2_1_ci`, `icc3_1`, `icc3_1_ci`, and `undefined`: they need two rows, two columns
    and values that are not all equal. Estimates and limits may be negative.

  Raises:
    ValueError: not two axes, fewer than two columns.
  """
  ratings = np.asarray(ratings, np.float64)
  if ratings.ndim != 2 or ratings.shape[1] < 2:
    raise ValueError('expected ratings [cases, raters] of at least two raters, got shape '
                     f'{ratings.shape}.')
  ratings = ratings[np.isfinite(ratings).all(1)]
  n, k = ratings.shape
  keys = ('icc2_1', 'icc2_1_ci', 'icc3_1', 'icc3_1_ci')
  if n < 2 or _is_constant(ratings):
    reason = 'all angles are equal' if n > 1 else _ONE_PAIR if n else _NO_PAIR
    return dict.fromkeys(keys) | {'undefined': dict.fromkeys(keys, reason)}
  rows, columns, error = _mean_squares(ratings)
  agreement = _ratio(rows - error, rows + columns * k / n + error * (k - 1 - k / n))
  consistency = _ratio(rows - error, rows + error * (k - 1))
  found: dict[str, Any] = {'icc2_1': agreement, 'icc2_1_ci': None,
                           'icc3_1': consistency, 'icc3_1_ci': None}
  if agreement is not None:
    found['icc2_1_ci'] = _agreement_interval(agreement, rows, columns, error, n, k, confidence)
  if consistency is not None:
    found['icc3_1_ci'] = _consistency_interval(rows, error, n, k, confidence)
  reasons = {'icc2_1': 'the cases do not differ', 'icc3_1': 'the cases do not differ',
             'icc2_1_ci': 'its degrees of freedom are undefined',
             'icc3_1_ci': 'the cases do not differ'}
  return found | {'undefined': {key: reasons[key] for key in keys if found[key] is None}}


def _mean_squares(ratings: np.ndarray) -> tuple[float, ...]:
  """Of rows, columns and error, in a two-way layout [n, k]; those of rounding alone are 0."""
  n, k = ratings.shape
  grand = ratings.mean()
  of_rows, of_columns = ratings.mean(1, keepdims=True), ratings.mean(0, keepdims=True)
  error = ratings - of_rows - of_columns + grand
  squares = (k * ((of_rows - grand)**2).sum() / (n - 1),
             n * ((of_columns - grand)**2).sum() / (k - 1),
             (error**2).sum() / ((n - 1) * (k - 1)))
  smallest = (1e-12 * np.abs(ratings).max())**2
  return tuple(float(square) if square > smallest else 0.0 for square in squares)


def _ratio(numerator: float, denominator: float) -> float | None:
  return numerator / denominator if denominator > 0 else None


def _agreement_interval(rho: float, rows: float, columns: float, error: float, n: int, k: int,
                        confidence: float) -> Interval | None:
  if columns == error == 0:
    return [1.0, 1.0]
  a = k * rho / (n * (1 - rho)) * columns
  b = (1 + k * rho * (n - 1) / (n * (1 - rho))) * error
  spread = a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1))
  if not spread > 0:
    return None
  freedom = (a + b)**2 / spread  # Satterthwaite's
  quantile = lambda *of: float(stats.f.ppf((1 + confidence) / 2, *of))
  lower, upper = quantile(n - 1, freedom), quantile(freedom, n - 1)
  other = k * columns + (k * n - k - n) * error
  low = _ratio(n * (rows - lower * error), lower * other + n * rows)
  high = _ratio(n * (upper * rows - error), other + n * upper * rows)
  ends = [end for end in (low, high) if end is not None and math.isfinite(end)]
  return ends if len(ends) == 2 else None


def _consistency_interval(rows: float, error: float, n: int, k: int, confidence: float) -> Interval:
  if error == 0:
    return [1.0, 1.0]
  freedom = n - 1, (n - 1) * (k - 1)
  quantile = lambda *of: float(stats.f.ppf((1 + confidence) / 2, *of))
  low, high = rows / error / quantile(*freedom), rows / error * quantile(*freedom[::-1])
  return [(ratio - 1) / (ratio + k - 1) for ratio in (low, high)]


def smape(reference: Values, other: Values) -> dict[str, Any]:
  """Symmetric mean absolute percentage error: mean over cases of 100 sum|a - b| / sum(a + b), in %.

  The sums run over the angles of a case, which are three (proximal thoracic, main thoracic,
  thoracolumbar) in the AASCE challenge (Wang et al., 2021), whose score this is. Deviation: the
  denominator is sum(|a| + |b|), the same for angles that have no sign.

  Args:
    reference, other: [n] or [n, angles]; cases with None, NaN or infinity are left out, and so are
      cases in which all angles are 0, for which it is undefined.

  Returns:
    `smape` in percent, 0 to 100, `smape_cases`, the number it is a mean of, and `undefined`.
  """
  pairs = _pairs(reference, other)
  pairs = pairs[..., None] if pairs.ndim == 2 else pairs
  pairs = pairs[np.isfinite(pairs).all((1, 2))]
  size = np.abs(pairs).sum((1, 2))
  error = np.abs(pairs[:, 1] - pairs[:, 0]).sum(1)[size > 0]
  found: dict[str, Any] = {'smape': None, 'smape_cases': len(error)}
  if not len(error):
    return found | {'undefined': {'smape': 'all angles are 0' if len(pairs) else _NO_PAIR}}
  return found | {'smape': float(100 * (error / size[size > 0]).mean()), 'undefined': {}}


def rate_bands(reference: Values, other: Values, *,
               bands: Sequence[tuple[str, float]] = angles.BANDS) -> dict[str, Any]:
  """Whether the other measurement puts a case into the band of severity that the reference does.

  Sensitivity = TP / (TP + FN), specificity = TN / (TN + FP), the reference being the truth. An
  angle's band is that of its size, without its sign.

  Args:
    reference, other: [n] degrees; pairs with None, NaN or infinity are left out.
    bands: (name, upper limit in degrees, excluded) by rising limit, the last infinite.

  Returns:
    `names`, `limits` (upper, the last None), `confusion` [reference][other] of cases, `accuracy`
    (share in the same band), `kappa` (Cohen's with linear weights |i - j|, over the bands; None
    where each measurement has all cases in the same one band), `each` {name: decision: the band
    against all others} and `at_least` {name: decision: this band or a higher one}, without the
    first. A decision has `tp`, `fn`, `fp`, `tn`, `sensitivity` (None without a true case) and
    `specificity` (None without a false one); those of `at_least` have `from_deg`, too.

  Raises:
    ValueError: bands that do not rise to infinity, or share a name.
  """
  names, limits = [name for name, _ in bands], np.array([limit for _, limit in bands], np.float64)
  if not len(bands) or limits[-1] != math.inf or not (np.diff(limits) > 0).all() or limits[0] <= 0:
    raise ValueError('bands need upper limits that rise from above 0 to infinity, got '
                     f'{", ".join(f"{limit:g}" for limit in limits) or "none"}.')
  if len(set(names)) < len(names):
    raise ValueError(f'bands need different names, got {", ".join(names)}.')
  pairs = _pairs(reference, other)
  pairs = pairs[np.isfinite(pairs).all(1)]
  truth, found = np.searchsorted(limits, np.abs(pairs), side='right').T
  confusion = np.zeros((len(bands), len(bands)), np.int64)
  np.add.at(confusion, (truth, found), 1)
  starts = dict(zip(names[1:], map(float, limits)))
  return {
      'names': names, 'limits': [*map(float, limits[:-1]), None], 'confusion': confusion.tolist(),
      'accuracy': float((truth == found).mean()) if len(pairs) else None,
      'kappa': _weighted_kappa(confusion),
      'each': {name: _decision(truth == i, found == i) for i, name in enumerate(names)},
      'at_least': {name: {'from_deg': starts[name]} | _decision(truth >= i, found >= i)
                   for i, name in enumerate(names) if i}}


def _decision(truth: np.ndarray, found: np.ndarray) -> dict[str, Any]:
  tp, fn, fp, tn = (int((truth == a)[found == b].sum())
                    for a, b in ((True, True), (True, False), (False, True), (False, False)))
  return {'tp': tp, 'fn': fn, 'fp': fp, 'tn': tn, 'sensitivity': _ratio(tp, tp + fn),
          'specificity': _ratio(tn, tn + fp)}


def _weighted_kappa(confusion: np.ndarray) -> float | None:
  """1 - sum(w observed) / sum(w expected), w = |i - j| (Cohen, 1968)."""
  weights = np.abs(np.subtract.outer(*[np.arange(len(confusion))] * 2))
  expected = np.outer(confusion.sum(1), confusion.sum(0)) / max(confusion.sum(), 1)
  by_chance = float((weights * expected).sum())
  return 1 - float((weights * confusion).sum()) / by_chance if by_chance > 0 else None


def _pairs(reference: Values, other: Values) -> np.ndarray:
  """[n, 2, ...] float64; None is NaN."""
  try:
    both = [np.asarray(values, np.float64) for values in (reference, other)]
  except (TypeError, ValueError) as error:
    raise ValueError(f'angles must be numbers, None where there is none ({error}).') from error
  if both[0].shape != both[1].shape or both[0].ndim not in (1, 2):
    raise ValueError('expected two lists of angles of the same cases, got shapes '
                     f'{both[0].shape} and {both[1].shape}.')
  pairs = np.stack(both, 1)
  beyond = pairs[np.isfinite(pairs) & (np.abs(pairs) > MAX_DEG)]
  if len(beyond):
    raise ValueError(f'angles must lie within ±{MAX_DEG:g} degrees, got {beyond[0]:g}.')
  return pairs


def _is_constant(values: np.ndarray) -> bool:
  return bool(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()))
