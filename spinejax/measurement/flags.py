"""Flags: from curves and flags to the result, with status, severity band and calibration."""
import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from spinejax.measurement.results import BAND_NAMES, AngleResult, Curve, Options
from spinejax.measurement.spacing import Numbers

MIN_LEVELS = 6  # fewer levels give no angle
GAP = 1.7  # level spacings between neighbors above which a level is missing
SCATTER_DEG = 8.0  # degrees; robust standard deviation of the lines that is flagged
NAIVE_DEG = 10.0  # degrees; difference of fitted and naive angle that is flagged
INNER = 0.9  # share of the largest angle from which an inner curve comes first
PARTIAL_DEG = 3.5  # degrees; an expected error above it makes an angle partial


class NoAngle(Exception):
  """The input gives no angle; the message is the reason."""


def require(condition: bool | np.bool_, reason: str) -> None:
  """Raises NoAngle with a reason unless the condition holds."""
  if not condition:
    raise NoAngle(reason)


def no_angle(method: str, spacing: Numbers | None, reason: str | NoAngle) -> AngleResult:
  """A failed result with its reason."""
  return AngleResult(method, 'fail', flags=(str(reason),), spacing=_steps(spacing))


def make_result(method: str, spacing: Numbers | None, curves: Sequence[Curve] = (), *,
                straight: tuple[tuple[float, float], float] | None = None,
                flags: Sequence[str] = (), notes: Sequence[str] = (), inner_first: bool = False,
                options: Options = Options(), **entries: Any) -> AngleResult:
  """The result of a measurement that gave an angle.

  The flags weaken the angle and make it partial, as an expected error above PARTIAL_DEG does. The
  notes, which are listed after them, do not. `straight` holds interval and expected error of the
  largest angle where there is no curve. `inner_first` is that of `find_major`. `entries` are other
  fields of `AngleResult`.
  """
  worst = find_major(curves, inner_first)
  major, interval, error, bound = 0.0, None, None, None
  if worst:
    major, interval = worst.angle_deg, worst.ci95
    error, bound = worst.expected_error_deg, worst.lower_bound_deg
  elif straight:
    (interval, error), bound = straight, 0.0
  flags, notes = list(flags), list(notes)
  if error is not None and error > PARTIAL_DEG:
    flags.insert(0, f'the expected error of the largest angle is {error:.1f} degrees')
  if worst and worst.truncated:
    notes.append('the largest curve reaches the first or last level found'
                 + ('' if bound is None else f': at least {bound:.0f} degrees'))
  low, high = interval or (major, major)
  first, last = (bisect.bisect(options.bands, angle)  # an angle at a limit is in the band above it
                 for angle in (min(low, major), max(high, major)))
  calibration = options.get_calibration()
  return AngleResult(
      method, 'partial' if flags else 'ok', tuple(curves), major,
      ' or '.join(BAND_NAMES[first:last + 1]), ci95=interval, expected_error_deg=error,
      lower_bound_deg=bound, flags=(*flags, *notes), spacing=_steps(spacing),
      calibration=calibration,
      calibrated_deg=calibration.apply(major) if calibration else None, **entries)


def find_major(curves: Sequence[Curve], inner_first: bool) -> Curve | None:
  """The curve that gives the result its angle; None without curves.

  It is the largest one. With `inner_first`, if that touches an end of the spine, it is the largest
  one that touches no end and has at least INNER of the angle, if there is one.
  """
  largest = max(curves, key=lambda curve: curve.angle_deg, default=None)
  if not (largest and inner_first and largest.truncated):
    return largest
  return max((curve for curve in curves
              if not curve.truncated and curve.angle_deg >= INNER * largest.angle_deg),
             key=lambda curve: curve.angle_deg, default=largest)


def flag_gaps(rows: np.ndarray, spacings: np.ndarray) -> list[str]:
  """Flags of missing levels between the rows [n], which are `spacings` [n - 1] apart."""
  return [f'a level seems to be missing between rows {rows[i]:.0f} and {rows[i + 1]:.0f}'
          for i in np.flatnonzero(spacings > GAP)]


def flag_scatter(line_deg: np.ndarray, tilts: np.ndarray, naive: float,
                 curves: Sequence[Curve]) -> list[str]:
  """A flag if the lines [n] scatter about the fitted tilts [n] or have another largest angle."""
  residual = 1.4826 * float(np.median(np.abs(line_deg - tilts)))
  major = max((curve.angle_deg for curve in curves), default=0.0)
  if residual <= SCATTER_DEG and abs(naive - major) <= NAIVE_DEG:
    return []
  return [f'the lines scatter about the fitted spine: {residual:.1f} degrees; largest angle '
          f'between the lines themselves {naive:.1f}']


def _steps(spacing: Numbers | None) -> tuple[float, ...] | None:
  return None if spacing is None else tuple(float(step) for step in spacing)
