"""From the tilts along a spine to its curves.

y runs down the spine and x to the right of the image. A tilt is atan(dx/dy) in degrees. The angle
of a curve is |tilt(upper end) - tilt(lower end)|.
"""
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from spinejax.measurement.fit import Midline
from spinejax.measurement.results import MIN_DEG, Curve
from spinejax.measurement.spacing import Numbers

LEVELS = tuple(f'T{i}' for i in range(1, 13)) + tuple(f'L{i}' for i in range(1, 6))

# Heights of T1..L5 in mm, each with the disc below; means of adults.
LEVEL_HEIGHTS = np.array([19.5, 20.5, 21, 21.5, 22, 22.5, 23, 24, 25, 26.5, 28, 29.5, 31.5, 33.5,
                          34.5, 35, 35])
FLOOR_DEG = 0.5  # degrees, error of the tilt of a level that the replicates do not show
_CENTERS = (np.cumsum(LEVEL_HEIGHTS) - LEVEL_HEIGHTS / 2) / LEVEL_HEIGHTS.sum()


@dataclasses.dataclass(frozen=True)
class Profile:
  """The tilts of a fitted spine, from top to bottom.

  Attributes:
    tilts: [n] degrees.
    rows: [n] positions along the first axis, pixels.
    names: [n] names of the levels, None where unknown.
    samples: [b, n] tilts of the bootstrap replicates, or None.
    apex_names: [n] names for the apices; `names` by default.
    region_names: [n] names that tell the regions; `apex_names` by default.
    floor_deg: standard error of a tilt, degrees, that the replicates do not show.
  """
  tilts: np.ndarray
  rows: np.ndarray
  names: Sequence[str | None]
  samples: np.ndarray | None = None
  apex_names: Sequence[str | None] | None = None
  region_names: Sequence[str | None] | None = None
  floor_deg: float = 0.0


def profile_by_height(midline: Midline, draws: Midline, y: np.ndarray,
                      extent: tuple[float, float], step: float,
                      floor_deg: float = 0.0) -> Profile:
  """The tilts of a midline and its replicates at y [n] mm, with apices named by their height.

  `extent` holds y of T1's top and of L5's bottom, and `step` the mm per pixel down.
  """
  by_height = levels_by_height((y - extent[0]) / (extent[1] - extent[0]))
  return Profile(midline.tilt(y), y / step, [None] * len(y), draws.tilt(y), by_height,
                 floor_deg=floor_deg)


@dataclasses.dataclass(frozen=True)
class Span:
  """Indices of the upper end, the apex and the lower end of a curve."""
  upper: int
  apex: int
  lower: int


def extremes(tilts: Numbers, min_deg: float = MIN_DEG) -> list[int]:
  """Indices of the ends of the curves, by the extremes rule.

  The rule starts from both ends of the spine and all local extremes. It drops the smallest
  difference between neighbors until every difference is at least `min_deg`. An interior difference
  is dropped with both of its ends, the first or last one with its outer end.

  Args:
    tilts: [n] degrees, top to bottom. Of equal neighbors the first one counts.
    min_deg: degrees.

  Returns:
    Increasing indices; fewer than two mean that there is no curve.

  Raises:
    ValueError: the tilts are not one row of finite numbers, or `min_deg` is negative.
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


def find_curves(profile: Profile, min_deg: float = MIN_DEG) -> tuple[Curve, ...]:
  """The curves of a spine, top to bottom."""
  return tuple(_make_curve(profile, span) for span in find_spans(profile.tilts, min_deg))


def _make_curve(profile: Profile, span: Span) -> Curve:
  tilts, rows, names = profile.tilts, profile.rows, profile.names
  apex_names = profile.apex_names or names
  region_names = profile.region_names or apex_names
  return Curve(
      angle_deg=round(float(abs(tilts[span.upper] - tilts[span.lower])), 2),
      ci95=_interval(profile, span), upper=names[span.upper], lower=names[span.lower],
      apex=apex_names[span.apex], upper_row=round(float(rows[span.upper]), 2),
      lower_row=round(float(rows[span.lower]), 2), apex_row=round(float(rows[span.apex]), 2),
      side='right' if tilts[span.upper] > tilts[span.lower] else 'left',
      region=region_of(region_names[span.apex]),
      truncated=span.upper == 0 or span.lower == len(tilts) - 1)


def _interval(profile: Profile, span: Span) -> tuple[float, float] | None:
  """The 95 % percentile interval of the angle between two given levels.

  The levels are those of the fit. If each replicate chose its own ends, it would take a largest
  difference, which is biased upward. 1.96 sqrt(2) floor_deg is added in quadrature to both arms.
  """
  tilts, samples = profile.tilts, profile.samples
  if samples is None or not len(samples):
    return None
  sign = 1 if tilts[span.upper] > tilts[span.lower] else -1
  angle = sign * (tilts[span.upper] - tilts[span.lower])
  angles = sign * (samples[:, span.upper] - samples[:, span.lower])
  arms = np.percentile(angles, [2.5, 97.5]) - angle
  low, high = angle + np.hypot(arms, 1.96 * math.sqrt(2) * profile.floor_deg) * [-1, 1]
  return round(max(float(low), 0.0), 2), round(max(float(high), 0.0), 2)


def region_of(level: str | None) -> str | None:
  """The region of a curve by the level of its apex.

  T11 and above are 'thoracic', T12 and L1 'thoracolumbar', L2 and below 'lumbar'.
  """
  if level not in LEVELS:
    return None
  place = LEVELS.index(level)
  return 'thoracic' if place < 11 else 'thoracolumbar' if place < 13 else 'lumbar'


def levels_by_height(share: np.ndarray) -> list[str]:
  """The levels of mean anatomy at the fractions [n] of the way from T1's top to L5's bottom."""
  return [LEVELS[i] for i in np.abs(np.reshape(share, (-1, 1)) - _CENTERS).argmin(1)]
