"""Curves: from the tilts along a spine to its curves.

y runs down the spine and x to the right of the image. A tilt is atan(dx/dy) in degrees. The angle
of a curve is |tilt(upper end) - tilt(lower end)|.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spinejax.measurement.results import MIN_DEG, Curve
from spinejax.measurement.spacing import Numbers

LEVELS = tuple(f'T{i}' for i in range(1, 13)) + tuple(f'L{i}' for i in range(1, 6))

# Heights of T1..L5 in mm, each with the disc below; means of adults.
LEVEL_HEIGHTS = np.array([19.5, 20.5, 21, 21.5, 22, 22.5, 23, 24, 25, 26.5, 28, 29.5, 31.5, 33.5,
                          34.5, 35, 35])
FLOOR_DEG = 0.5  # degrees, error of the tilt of a level that the replicates do not show
_CENTERS = (np.cumsum(LEVEL_HEIGHTS) - LEVEL_HEIGHTS / 2) / LEVEL_HEIGHTS.sum()

Names = Sequence[str | None]


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
                samples: np.ndarray | None = None, *, apex_names: Names | None = None,
                region_names: Names | None = None, floor_deg: float = 0.0,
                min_deg: float = MIN_DEG) -> tuple[Curve, ...]:
  """The curves of a spine, top to bottom.

  Args:
    tilts: [n] degrees, top to bottom.
    rows: [n] positions along the first axis, pixels.
    names: [n] of the levels, None where unknown.
    samples: [b, n] tilts of the bootstrap replicates, or None.
    apex_names, region_names: [n] for the apices and their regions; by default those before.
    floor_deg: standard error of a tilt, degrees, that the replicates do not show.
    min_deg: see `extremes`.
  """
  apex_names = apex_names or names
  region_names = region_names or apex_names
  found = []
  for upper, apex, lower in find_spans(tilts, min_deg):
    turn = float(tilts[upper] - tilts[lower])
    angles = None if samples is None else samples[:, upper] - samples[:, lower]
    found.append(Curve(
        angle_deg=round(abs(turn), 2), ci95=_interval(turn, angles, floor_deg),
        upper=names[upper], lower=names[lower], apex=apex_names[apex],
        upper_row=round(float(rows[upper]), 2), lower_row=round(float(rows[lower]), 2),
        apex_row=round(float(rows[apex]), 2), side='right' if turn > 0 else 'left',
        region=region_of(region_names[apex]),
        truncated=upper == 0 or lower == len(tilts) - 1))
  return tuple(found)


def _interval(turn: float, turns: np.ndarray | None,
              floor_deg: float) -> tuple[float, float] | None:
  """The 95 % percentile interval of |turn| from replicates [b] with the same ends.

  If each replicate chose its own ends, it would take a largest difference, which is biased upward.
  1.96 sqrt(2) floor_deg is added in quadrature to both arms.
  """
  if turns is None or not len(turns):
    return None
  angle, angles = np.sign(turn) * turn, np.sign(turn) * turns
  arms = np.percentile(angles, [2.5, 97.5]) - angle
  low, high = angle + np.hypot(arms, 1.96 * math.sqrt(2) * floor_deg) * [-1, 1]
  return round(max(float(low), 0.0), 2), round(max(float(high), 0.0), 2)


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
