"""Agreement of two measurements of the same angles, in degrees.

A difference is other - reference. A statistic that cannot be computed is None, and `undefined` says
why. Pairs with None, NaN or infinity are left out. Standard deviations have n - 1 degrees of
freedom.
"""
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from spinejax.measurement.results import BAND_LIMITS, BAND_NAMES
from spinejax.metrics.results import Agreement, BandAgreement, Decision, Interval, Smape

LIMIT_DEG = 5.0  # degrees; the error of Cobb angles that is commonly accepted
CONFIDENCE = 0.95
_Z95 = float(stats.norm.ppf(0.975))
_NO_PAIR = 'there is no pair of angles'

Values = Sequence[float | None] | Sequence[Sequence[float | None]] | np.ndarray
Statistics = dict[str, Any]  # attributes of `Agreement`, None where undefined


def agree(reference: Values, other: Values, *, limit: float = LIMIT_DEG,
          bands: Sequence[float] = BAND_LIMITS, confidence: float = CONFIDENCE) -> Agreement:
  """All published statistics of the agreement of two measurements, with one angle per case.

  With d = other - reference, mad = mean |d|, bias = mean d and limits = bias ± 1.96 SD(d) (Bland
  and Altman, 1999); sem = sqrt(MS_error) = SD(d) / sqrt(2) and mdc95 = 1.96 sqrt(2) sem (Weir,
  2005). The sem equals SD sqrt(1 - ICC(3,1)) with the mean variance of the two measurements. sem
  and mdc95 do not include the bias. Intervals of the bias and of the limits are those of the t
  distribution, with the approximate standard error of Bland and Altman for the limits. The interval
  of Pearson's r is that of Fisher's transformation.

  Args:
    reference, other: [n] degrees.
    limit: of `within`, in degrees; the limit counts as within.
    bands: as in `rate_bands`.
    confidence: of the intervals.

  Raises:
    ValueError: the bands do not rise.
  """
  pairs = _to_pairs(reference, other)
  finite = _finite_rows(pairs)
  # The tolerance counts 12.3 - 7.3 as 5, which it exceeds in binary.
  num_within = int((np.abs(finite[:, 1] - finite[:, 0]) <= limit + 1e-9).sum())
  percentage = smape(*finite.T)
  values = {**_differences(finite, confidence), **_pearson(finite, confidence),
            **icc(finite, confidence=confidence),
            'within': num_within / len(finite) if len(finite) else None}
  undefined = {key: _why_undefined(key, finite) for key, value in values.items() if value is None}
  return Agreement(
      **values, undefined={**undefined, **percentage.undefined}, pairs=len(finite),
      left_out=len(pairs) - len(finite), limit=float(limit), num_within=num_within,
      smape=percentage.smape, smape_cases=percentage.smape_cases,
      bands=rate_bands(*finite.T, limits=bands), confidence=confidence)


def _why_undefined(key: str, pairs: np.ndarray) -> str:
  """Why a statistic of finite pairs [n,2] is None."""
  n = len(pairs)
  if not n:
    return _NO_PAIR
  if key in ('r', 'r_ci', 'r2'):
    if n > 2 and any(_is_constant(column) for column in pairs.T):
      return 'one of the two measured the same angle in every case'
    return f'needs at least {"three" if n < 3 else "four"} pairs of angles'
  if n < 2:
    return 'needs at least two pairs of angles'
  if _is_constant(pairs):
    return 'all angles are equal'
  return 'its degrees of freedom are undefined' if key == 'icc2_1_ci' else 'the cases do not differ'


def _differences(pairs: np.ndarray, confidence: float) -> Statistics:
  """Mean, deviation, limits and errors of the differences of finite pairs [n,2]."""
  n, difference = len(pairs), pairs[:, 1] - pairs[:, 0]
  values: Statistics = dict.fromkeys((
      'mad', 'mad_sd', 'bias', 'bias_ci', 'sd', 'limits', 'lower_limit_ci', 'upper_limit_ci',
      'sem', 'mdc95'))
  if n:
    bias = float(difference.mean())
    values |= {'mad': float(np.abs(difference).mean()), 'bias': bias}
  if n > 1:
    sd, t = float(difference.std(ddof=1)), float(stats.t.ppf((1 + confidence) / 2, n - 1))
    low, high = bias - _Z95 * sd, bias + _Z95 * sd
    error, limit_error = (t * sd * math.sqrt(x) for x in (1 / n, 1 / n + _Z95**2 / (2 * (n - 1))))
    values |= {
        'mad_sd': float(np.abs(difference).std(ddof=1)), 'sd': sd, 'limits': (low, high),
        'bias_ci': (bias - error, bias + error),
        'lower_limit_ci': (low - limit_error, low + limit_error),
        'upper_limit_ci': (high - limit_error, high + limit_error),
        'sem': sd / math.sqrt(2), 'mdc95': _Z95 * sd}
  return values


def _pearson(pairs: np.ndarray, confidence: float) -> Statistics:
  """Pearson's r, its interval and its square, of finite pairs [n,2]; r of any two pairs is ±1."""
  if len(pairs) < 3 or any(_is_constant(column) for column in pairs.T):
    return {'r': None, 'r_ci': None, 'r2': None}
  found = stats.pearsonr(*pairs.T)
  r, interval = float(found.statistic), None
  if len(pairs) > 3:
    low, high = found.confidence_interval(confidence)
    interval = float(low), float(high)
  return {'r': r, 'r_ci': interval, 'r2': r * r}


def icc(ratings: np.ndarray, *, confidence: float = CONFIDENCE) -> Statistics:
  """Intraclass correlations of single ratings: absolute agreement, and consistency.

  With mean squares R of rows, C of columns and E of the error, n rows and k columns,
    ICC(2,1) = (R - E) / (R + (k - 1) E + k (C - E) / n)   raters are a sample: a bias counts
    ICC(3,1) = (R - E) / (R + (k - 1) E)                   fixed raters: a bias does not count
  (Shrout and Fleiss, 1979). The intervals are those of McGraw and Wong (1996), table 7, cases A,1
  and C,1. Without an error but a bias the interval of ICC(3,1) is (1, 1). Estimates and limits may
  be negative.

  Args:
    ratings: finite [n,k], a row per case and a column per rater, k > 1.
    confidence: of the intervals.

  Returns:
    icc2_1, icc3_1, icc2_1_ci and icc3_1_ci.
  """
  n, k = ratings.shape
  values: Statistics = dict.fromkeys(('icc2_1', 'icc3_1', 'icc2_1_ci', 'icc3_1_ci'))
  if n < 2 or _is_constant(ratings):
    return values
  grand = ratings.mean()
  row_means, column_means = ratings.mean(1, keepdims=True), ratings.mean(0, keepdims=True)
  residuals = ratings - row_means - column_means + grand
  squares = (k * ((row_means - grand)**2).sum() / (n - 1),
             n * ((column_means - grand)**2).sum() / (k - 1),
             (residuals**2).sum() / ((n - 1) * (k - 1)))
  smallest = (1e-12 * np.abs(ratings).max())**2  # of what is more than rounding
  rows, columns, error = squares = tuple(float(x) if x > smallest else 0.0 for x in squares)
  agreement = _ratio(rows - error, rows + columns * k / n + error * (k - 1 - k / n))
  if agreement is not None:
    values['icc2_1'] = agreement
    values['icc2_1_ci'] = _agreement_interval(agreement, squares, (n, k), confidence)
  if rows + error * (k - 1) > 0:
    values['icc3_1'] = (rows - error) / (rows + error * (k - 1))
    values['icc3_1_ci'] = _consistency_interval(squares, (n, k), confidence)
  return values


def _agreement_interval(rho: float, squares: tuple[float, ...], shape: tuple[int, int],
                        confidence: float) -> Interval | None:
  (rows, columns, error), (n, k) = squares, shape
  if columns == error == 0:
    return 1.0, 1.0
  a = k * rho / (n * (1 - rho)) * columns
  b = (1 + k * rho * (n - 1) / (n * (1 - rho))) * error
  spread = a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1))
  if not spread > 0:
    return None
  degrees = (a + b)**2 / spread  # approximation of Satterthwaite
  lower, upper = _quantile(confidence, n - 1, degrees), _quantile(confidence, degrees, n - 1)
  rest = k * columns + (k * n - k - n) * error
  low = _ratio(n * (rows - lower * error), lower * rest + n * rows)
  high = _ratio(n * (upper * rows - error), rest + n * upper * rows)
  return None if low is None or high is None or not math.isfinite(low + high) else (low, high)


def _consistency_interval(squares: tuple[float, ...], shape: tuple[int, int], confidence: float
                          ) -> Interval:
  (rows, _, error), (n, k) = squares, shape
  if error == 0:
    return 1.0, 1.0
  degrees = n - 1, (n - 1) * (k - 1)
  low = rows / error / _quantile(confidence, *degrees)
  high = rows / error * _quantile(confidence, *degrees[::-1])
  return (low - 1) / (low + k - 1), (high - 1) / (high + k - 1)


def _quantile(confidence: float, *degrees: float) -> float:
  """The upper limit of a two-sided interval of the F distribution."""
  return float(stats.f.ppf((1 + confidence) / 2, *degrees))


def _ratio(numerator: float, denominator: float) -> float | None:
  return numerator / denominator if denominator > 0 else None


def smape(reference: Values, other: Values) -> Smape:
  """Symmetric mean absolute percentage error: mean over cases of 100 sum|a - b| / sum(a + b), in %.

  The sums run over the angles of a case. In the AASCE challenge (Wang et al., 2021), whose score
  this is, a case has three: proximal thoracic, main thoracic and thoracolumbar. Deviation: the
  denominator is sum(|a| + |b|), which is the same for angles without a sign.

  Args:
    reference, other: [n] or [n, angles]. Cases whose angles are all 0 are left out too, because
      the error is undefined for them.
  """
  pairs = _to_pairs(reference, other)
  pairs = _finite_rows(pairs[..., None] if pairs.ndim == 2 else pairs)
  size = np.abs(pairs).sum((1, 2))
  error = np.abs(pairs[:, 1] - pairs[:, 0]).sum(1)[size > 0]
  if not len(error):
    return Smape(None, 0, {'smape': 'all angles are 0' if len(pairs) else _NO_PAIR})
  return Smape(float(100 * (error / size[size > 0]).mean()), len(error), {})


def rate_bands(reference: Values, other: Values, *, limits: Sequence[float] = BAND_LIMITS
               ) -> BandAgreement:
  """Whether the other measurement puts a case into the band of severity of the reference.

  Sensitivity = TP / (TP + FN) and specificity = TN / (TN + FP), with the reference as the truth.
  Bands ignore the sign of an angle. Kappa = 1 - sum(w observed) / sum(w expected), with w = |i - j|
  (Cohen, 1968), is undefined if each measurement puts all cases into the same one band.

  Args:
    reference, other: [n] degrees.
    limits: rising limits in degrees between the bands, which are called none to severe if there
      are three limits.

  Raises:
    ValueError: the limits are not positive and rising.
  """
  names = _name_bands(limits)
  pairs = _finite_rows(_to_pairs(reference, other))
  truth, found = np.searchsorted(limits, np.abs(pairs), side='right').T
  confusion = np.zeros((len(names), len(names)), np.int64)
  np.add.at(confusion, (truth, found), 1)
  weights = np.abs(np.subtract.outer(*[np.arange(len(names))] * 2))
  expected = np.outer(confusion.sum(1), confusion.sum(0)) / max(len(pairs), 1)
  disagreement = _ratio(float((weights * confusion).sum()), float((weights * expected).sum()))
  return BandAgreement(
      names=tuple(names), limits=(*map(float, limits), None),
      confusion=tuple(map(tuple, confusion.tolist())),
      accuracy=float((truth == found).mean()) if len(pairs) else None,
      kappa=None if disagreement is None else 1 - disagreement,
      each={name: _decide(truth == i, found == i) for i, name in enumerate(names)},
      at_least={name: _decide(truth >= i, found >= i, float(limits[i - 1]))
                for i, name in enumerate(names) if i})


def _name_bands(limits: Sequence[float]) -> list[str]:
  shown = [f'{limit:g}' for limit in limits]
  if not shown or len(set(shown)) < len(shown) or not all(
      0 < low < high for low, high in zip(limits, [*limits[1:], math.inf])):
    raise ValueError('bands must be rising positive degrees such as 10,25,40, got '
                     f'{",".join(shown) or "none"}.')
  if len(limits) + 1 == len(BAND_NAMES):
    return list(BAND_NAMES)
  return [f'below {shown[0]}°', *(f'{low} to {high}°' for low, high in zip(shown, shown[1:])),
          f'{shown[-1]}° and more']


def _decide(truth: np.ndarray, found: np.ndarray, from_deg: float | None = None) -> Decision:
  tp, fn = int((truth & found).sum()), int((truth & ~found).sum())
  fp, tn = int((~truth & found).sum()), int((~truth & ~found).sum())
  return Decision(tp, fn, fp, tn, _ratio(tp, tp + fn), _ratio(tn, tn + fp), from_deg)


def _to_pairs(reference: Values, other: Values) -> np.ndarray:
  """Both measurements as float64 [n,2,...]; None becomes NaN."""
  return np.stack([np.asarray(values, np.float64) for values in (reference, other)], 1)


def _finite_rows(values: np.ndarray) -> np.ndarray:
  return values[np.isfinite(values).all(tuple(range(1, values.ndim)))]


def _is_constant(values: np.ndarray) -> bool:
  return bool(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()))
