"""From tilts along the spine to curves, and the one documented result of every measurement.

y runs down the spine and x to the image's right; a tilt is atan(dx/dy) in degrees. A curve's angle
is |tilt(upper end) - tilt(lower end)|; it bows to the side its midline is convex to.
"""
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spinejax import __version__

SCHEMA = 'spinejax.measure/1'
LEVELS = tuple(f'T{i}' for i in range(1, 13)) + tuple(f'L{i}' for i in range(1, 6))
MIN_DEG = 5.0
MIN_LEVELS = 6
BANDS = (('none', 10.0), ('mild', 25.0), ('moderate', 40.0), ('severe', math.inf))

Result = dict[str, Any]
Numbers = Sequence[float] | np.ndarray
Spacing = Numbers | float | None  # mm along each axis of the array, or one number for all

# Vertebra with its disc, T1..L5, mm (adult means).
LEVEL_HEIGHTS = np.array([19.5, 20.5, 21, 21.5, 22, 22.5, 23, 24, 25, 26.5, 28, 29.5, 31.5, 33.5,
                          34.5, 35, 35])
_CENTERS = (np.cumsum(LEVEL_HEIGHTS) - LEVEL_HEIGHTS / 2) / LEVEL_HEIGHTS.sum()


def extremes(tilts: Sequence[float] | np.ndarray, min_deg: float = MIN_DEG) -> list[int]:
  """Indices of the tilts between which the curves lie: the extremes rule.

  Both ends and the local extremes are taken; the smallest swing is dropped, an interior one with
  both its ends, a first or last one with its outer end, until every swing is at least `min_deg`.

  Args:
    tilts: [n] degrees, top to bottom, of the levels found; of equal neighbors the first counts.
    min_deg: degrees.

  Returns:
    Increasing indices; fewer than two mean that there is no curve. Empty for no tilts.

  Raises:
    ValueError: tilts that are not one row of finite numbers, or a negative `min_deg`.
  """
  tilts = np.asarray(tilts, np.float64)
  if tilts.ndim != 1 or not np.isfinite(tilts).all():
    raise ValueError('tilts must be one row of finite degrees, top to bottom; leave out the '
                     'levels that were not found.')
  if not min_deg >= 0:
    raise ValueError(f'min_deg must be a number of degrees of at least 0, not {min_deg}.')
  kept: list[int] = []
  for i, tilt in enumerate(tilts):
    if kept and tilt == tilts[kept[-1]]:
      continue
    if len(kept) > 1 and (tilt > tilts[kept[-1]]) == (tilts[kept[-1]] > tilts[kept[-2]]):
      kept.pop()
    kept.append(i)
  while len(kept) > 1:
    swings = np.abs(np.diff(tilts[kept]))
    smallest = int(swings.argmin())
    if swings[smallest] >= min_deg:
      break
    if smallest == 0:
      del kept[0]
    elif smallest == len(swings) - 1:
      del kept[-1]
    else:
      del kept[smallest:smallest + 2]
  return kept


def find_curves(tilts: np.ndarray, names: Sequence[str | None], rows: np.ndarray,
                samples: np.ndarray | None = None, min_deg: float = MIN_DEG, *,
                region_names: Sequence[str] | None = None,
                floor_deg: float = 0.0) -> list[Result]:
  """The curves of a spine with their intervals.

  Args:
    tilts: [n] degrees, top to bottom.
    names: [n] levels, None where unknown.
    rows: [n] positions along the first axis in pixels.
    samples: [b, n] tilts of bootstrap replicates; their angles between the same two ends give the
      percentile interval. (Ends chosen anew in every replicate only push the interval up, by the
      optimism of a largest difference.) None leaves `ci95` None.
    min_deg: smallest swing of a curve, degrees.
    region_names: [n] levels by which the region is told, `names` by default.
    floor_deg: error of a tilt that no residual shows; 1.96 sqrt(2) floor_deg is added in
      quadrature to both arms of an interval.

  Returns:
    {angle_deg, ci95 [low, high], upper, lower, apex, upper_row, lower_row, apex_row, side (of the
    image), region, truncated} top to bottom; `truncated` where an end is the first or last level,
    so that the angle is a lower bound.
  """
  kept = extremes(tilts, min_deg)
  curves = []
  for a, b in zip(kept, kept[1:]):
    apex = a + int(np.abs(tilts[a:b + 1] - (tilts[a] + tilts[b]) / 2).argmin())
    sign = 1 if tilts[a] > tilts[b] else -1
    interval = None
    if samples is not None and len(samples):
      angle, floor = sign * (tilts[a] - tilts[b]), 1.96 * math.sqrt(2) * floor_deg
      arms = np.percentile(sign * (samples[:, a] - samples[:, b]), [2.5, 97.5]) - angle
      ends = angle + np.hypot(arms, floor) * [-1, 1]
      interval = [round(max(float(end), 0.0), 2) for end in ends]
    curves.append({
        'angle_deg': round(float(abs(tilts[a] - tilts[b])), 2), 'ci95': interval,
        'upper': names[a], 'lower': names[b], 'apex': names[apex],
        'upper_row': round(float(rows[a]), 2), 'lower_row': round(float(rows[b]), 2),
        'apex_row': round(float(rows[apex]), 2), 'side': 'right' if sign > 0 else 'left',
        'region': region_of((region_names or names)[apex]),
        'truncated': bool(a == 0 or b == len(tilts) - 1)})
  return curves


def region_of(level: str | None) -> str | None:
  """Region of a curve by the level of its apex: T11 and above, T12 and L1, L2 and below."""
  if level not in LEVELS:
    return None
  place = LEVELS.index(level)
  return 'thoracic' if place < 11 else 'thoracolumbar' if place < 13 else 'lumbar'


def levels_by_height(share: np.ndarray) -> list[str]:
  """The level of mean anatomy at each share [n] of the way from T1's top to L5's bottom."""
  return [LEVELS[i] for i in np.abs(np.reshape(share, (-1, 1)) - _CENTERS).argmin(1)]


def band_of(angle: float, bands: Sequence[tuple[str, float]] = BANDS) -> str:
  """The first band (name, upper limit in degrees, excluded) that holds the angle."""
  return next(name for name, limit in bands if angle < limit)


def make_result(method: str, *, spacing: Numbers | None, curves: Sequence[Result] = (),
                failure: str | None = None, flags: Sequence[str] = (), partial: bool = False,
                levels_found: int = 0, level_confidence: str = 'none',
                bands: Sequence[tuple[str, float]] = BANDS, calibration: Mapping | None = None,
                **extra: Any) -> Result:
  """The documented result; JSON-safe, an angle never without status, interval and flags.

  Args:
    method: 'uca', 'spa', 'center of lamina', 'centerline Cobb' or 'landmark Cobb'.
    spacing: mm per pixel in array order, None where unknown.
    curves: of `find_curves`.
    failure: why there is no angle, in words; makes the status 'fail'.
    flags: what a reader must know, in words; `partial` tells that one of them weakens the angle.
    levels_found, level_confidence: number of levels; 'high', 'low' or 'none'.
    bands: (name, limit) by rising limit, the last infinite.
    calibration: {slope, intercept, source} of the user; the calibrated angle then stands beside
      the measured one and never in its place.
    **extra: further entries, plain Python values.

  Returns:
    {schema, method, status (ok | partial | fail), curves, major_deg, band (both joined by ' or '
    where the interval crosses a limit), levels_found, level_confidence, flags, spacing, model,
    checkpoint, version} and the extra entries. `major_deg` is None on failure and the largest
    angle otherwise, 0 with no curve.
  """
  flags = list(flags)
  major, band, calibrated = None, None, None
  if failure is not None:
    flags, curves = [failure, *flags], []
  else:
    worst = max(curves, key=lambda curve: curve['angle_deg'], default=None)
    major = worst['angle_deg'] if worst else 0.0
    ends = (worst['ci95'] or [major, major]) if worst else [major, major]
    names = [name for name, _ in bands]
    low, high = (names.index(band_of(angle, bands)) for angle in
                 (min(ends[0], major), max(ends[1], major)))
    band = ' or '.join(names[low:high + 1])
    if worst and worst['truncated']:
      flags.append('the largest curve reaches the first or last level found: at least this angle')
    if calibration:
      calibrated = round(calibration['slope'] * major + calibration['intercept'], 2)
      extra['calibration'] = dict(calibration)
      extra['calibrated_deg'] = calibrated
  status = 'fail' if failure is not None else 'partial' if partial else 'ok'
  return {
      'schema': SCHEMA, 'method': method, 'status': status, 'curves': list(curves),
      'major_deg': major, 'band': band, 'levels_found': int(levels_found),
      'level_confidence': level_confidence, 'flags': flags,
      'spacing': None if spacing is None else [float(step) for step in spacing],
      'model': None, 'checkpoint': None, 'version': __version__} | extra


def check_spacing(spacing: Spacing, ndim: int) -> np.ndarray | None:
  """mm per pixel [ndim], or None where any is missing, not finite or not positive.

  Raises ValueError when the number of entries is wrong. A single number serves every axis; 1 is
  for pixels known to be square but of unknown size, since an angle needs their shape only.
  """
  if spacing is None:
    return None
  try:
    steps = np.asarray(spacing, np.float64)
  except (TypeError, ValueError):
    raise ValueError(f'spacing must be {ndim} numbers in mm, not {spacing!r}.') from None
  steps = np.full(ndim, steps) if steps.ndim == 0 else steps
  if steps.shape != (ndim,):
    raise ValueError(f'spacing must be {ndim} numbers in mm, one per axis of the array; got '
                     f'{steps.size}.')
  return steps if (np.isfinite(steps) & (steps > 0)).all() else None


NO_SPACING = ('the spacing is unknown: give mm per pixel, or 1 if the pixels are known to be '
              'square')
