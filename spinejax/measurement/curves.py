"""Curves: from the tilts along a spine to its curves.

y runs down the spine and x to the right of the image. A tilt is atan(dx/dy) in degrees. The angle
of a curve is |tilt(upper end) - tilt(lower end)|.
"""
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from spinejax.measurement.results import MIN_DEG, Curve
from spinejax.measurement.spacing import Numbers

LEVELS = tuple(f'T{i}' for i in range(1, 13)) + tuple(f'L{i}' for i in range(1, 6))

# Heights of T1..L5 in mm, each with the disc below; means of adults.
LEVEL_HEIGHTS = np.array([19.5, 20.5, 21, 21.5, 22, 22.5, 23, 24, 25, 26.5, 28, 29.5, 31.5, 33.5,
                          34.5, 35, 35])
_RISE_DEG = 0.3  # degrees per level by which the end of a truncated curve still rises
_SURE_DEG, _SURE_ERRORS = 10.0, 0.4  # degrees and expected errors of a curve that may be none
_CENTERS = (np.cumsum(LEVEL_HEIGHTS) - LEVEL_HEIGHTS / 2) / LEVEL_HEIGHTS.sum()

Names = Sequence[str | None]


class Spread(NamedTuple):
  """The expected error e of an angle with standard deviation sd over the samples of a midline:

    e^2 = (factor sd)^2 + 2 floor_deg^2
  """
  factor: float = 1.0
  floor_deg: float = 0.0  # error of the tilt of a level that the samples do not show


class SureCurves(NamedTuple):
  """Curves, a note for each curve that may be none, and what is known without a curve."""
  curves: tuple[Curve, ...]
  notes: list[str]
  straight: tuple[tuple[float, float], float]  # of `straight_interval`


class Span(NamedTuple):
  """Indices of the upper end, the apex and the lower end of a curve."""
  upper: int
  apex: int
  lower: int


def extremes(tilts: Numbers, min_deg: float = MIN_DEG) -> list[int]:
  """Indices of the ends of the curves, by the extremes rule; fewer than two if there is no curve.

  The rule starts from both ends of the spine and all local extremes of the tilts [n] in degrees,
  top to bottom. Of equal neighbors the first one counts. It drops the smallest difference between
  neighbors until every difference is at least `min_deg`: an interior one with both of its ends, the
  first or last one with its outer end. ValueError unless the tilts are one row of finite numbers
  and `min_deg` is not negative.
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


def find_spans(tilts: Numbers, min_deg: float = MIN_DEG) -> list[Span]:
  """The curves of `extremes`; the apex has the tilt nearest to the mean of both ends."""
  kept, tilts = extremes(tilts, min_deg), np.asarray(tilts, np.float64)
  return [Span(a, a + int(np.abs(tilts[a:b + 1] - (tilts[a] + tilts[b]) / 2).argmin()), b)
          for a, b in zip(kept, kept[1:])]


def largest_swing(tilts: np.ndarray, min_deg: float = MIN_DEG) -> float:
  """The largest angle by the extremes rule, degrees; 0 without a curve."""
  return float(np.abs(np.diff(tilts[extremes(tilts, min_deg)])).max(initial=0.0))


def find_curves(tilts: np.ndarray, rows: np.ndarray, names: Names,
                samples: np.ndarray | None = None, *, spread: Spread = Spread(), reach: int = 1,
                per_level: int = 1, error_deg: float | None = None,
                apex_names: Names | None = None, region_names: Names | None = None,
                min_deg: float = MIN_DEG) -> tuple[Curve, ...]:
  """The curves of a spine, top to bottom.

  With samples the angle of a curve is the mean over the samples of the difference between the most
  tilted level near its upper end and the most tilted one near its lower end. That of the mean
  midline alone is too small, because it is smoother than a midline. Intervals are 1.96, and lower
  bounds 1.645 expected errors wide, cut at 0.

  Args:
    tilts: [n] degrees of the mean midline, top to bottom; they decide where the ends are.
    rows: [n] positions along the first axis, pixels.
    names: [n] of the levels, None where unknown.
    samples: [b, n] tilts of midlines drawn from the posterior, or None.
    spread: from the samples to the expected error.
    reach: number of levels beside an end that are near it.
    per_level: number of steps of the tilts in the distance of two levels. A curve is truncated if
      its end is the first or last tilt and still rises by _RISE_DEG over that distance.
    error_deg: expected error of every angle, if there are no samples; None where unknown.
    apex_names, region_names: [n] for the apices and their regions; by default those before.
    min_deg: see `extremes`.
  """
  apex_names = apex_names or names
  region_names = region_names or apex_names
  found = []
  for upper, apex, lower in find_spans(tilts, min_deg):
    turn = float(tilts[upper] - tilts[lower])
    angle, error = abs(turn), error_deg
    if samples is not None:
      signed = np.sign(turn) * samples
      most, least = (signed[:, max(end - reach, 0):end + reach + 1] for end in (upper, lower))
      angle = float((most.max(1) - least.min(1)).mean())
      error = expected_error(samples[:, upper] - samples[:, lower], spread)
    interval, bound = interval_of(angle, error)
    found.append(Curve(
        angle_deg=round(angle, 2), ci95=interval,
        upper=names[upper], lower=names[lower], apex=apex_names[apex],
        upper_row=round(float(rows[upper]), 2), lower_row=round(float(rows[lower]), 2),
        apex_row=round(float(rows[apex]), 2), side='right' if turn > 0 else 'left',
        region=region_of(region_names[apex]),
        truncated=((upper == 0 and _rises(turn, tilts[:per_level + 1]))
                   or (lower == len(tilts) - 1 and _rises(turn, tilts[-per_level - 1:]))),
        expected_error_deg=None if error is None else round(error, 2), lower_bound_deg=bound))
  return tuple(found)


def _rises(turn: float, tilts: np.ndarray) -> bool:
  """Whether the tilts from one end of the spine to the next level go on with a curve's turn."""
  return bool(np.sign(turn) * (tilts[0] - tilts[-1]) > _RISE_DEG)


def expected_error(turns: np.ndarray, spread: Spread) -> float:
  """Expected error in degrees of an angle with samples [b]."""
  return float(np.hypot(spread.factor * turns.std(), math.sqrt(2) * spread.floor_deg))


def interval_of(angle: float, error: float | None
                ) -> tuple[tuple[float, float] | None, float | None]:
  """The 95 % interval and the lower bound of an angle, above which it lies in 95 %; degrees."""
  if error is None:
    return None, None
  low, high = (round(max(angle + sign * 1.96 * error, 0.0), 2) for sign in (-1, 1))
  return (low, high), round(max(angle - 1.645 * error, 0.0), 2)


def find_sure_curves(tilts: np.ndarray, rows: np.ndarray, names: Names, samples: np.ndarray, *,
                     spread: Spread, min_deg: float = MIN_DEG, **options: Any) -> SureCurves:
  """The curves of `find_curves` that are not within their error of none."""
  every = find_curves(tilts, rows, names, samples, spread=spread, min_deg=min_deg, **options)
  kept, notes = split_doubtful(every, min_deg)
  return SureCurves(kept, notes, straight_interval(tilts, samples, spread))


def split_doubtful(found: Sequence[Curve], min_deg: float = MIN_DEG
                   ) -> tuple[tuple[Curve, ...], list[str]]:
  """The curves without those that may be none, and a note for each of these.

  A curve below 10 degrees may be none if it is less than 0.4 expected errors above `min_deg`.
  """
  doubtful = [curve for curve in found if curve.expected_error_deg is not None
              and curve.angle_deg < _SURE_DEG
              and curve.angle_deg - _SURE_ERRORS * curve.expected_error_deg < min_deg]
  notes = [f'a curve of {curve.angle_deg:.1f} degrees at row {curve.apex_row:.0f} is within its '
           'error of none' for curve in doubtful]
  return tuple(curve for curve in found if curve not in doubtful), notes


def straight_interval(tilts: np.ndarray, samples: np.ndarray, spread: Spread
                      ) -> tuple[tuple[float, float], float]:
  """The 95 % interval and the expected error of the largest angle of a spine without a curve.

  The interval ends 1.96 errors above the largest difference of two tilts [n].
  """
  high, low = int(tilts.argmax()), int(tilts.argmin())
  error = expected_error(samples[:, high] - samples[:, low], spread)
  return (0.0, round(float(tilts[high] - tilts[low]) + 1.96 * error, 2)), round(error, 2)


def region_of(level: str | None) -> str | None:
  """Region of a curve by its apex: 'thoracic' to T11, 'thoracolumbar' to L1, then 'lumbar'."""
  if level not in LEVELS:
    return None
  place = LEVELS.index(level)
  return 'thoracic' if place < 11 else 'thoracolumbar' if place < 13 else 'lumbar'


def levels_by_height(y: np.ndarray, top: float, bottom: float) -> list[str]:
  """The levels of mean anatomy at y [n] if T1 begins at `top` and L5 ends at `bottom`."""
  share = (y - top) / (bottom - top)
  return [LEVELS[i] for i in np.abs(share[:, None] - _CENTERS).argmin(1)]
