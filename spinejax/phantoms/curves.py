"""Scoliotic spine curves with exact Cobb angles.

Conventions: y runs down the spine and x to the image's right; a tilt is the angle in degrees of
the spine's direction against the vertical, dx/dy = tan(tilt); u is the fraction of the way from
the upper face of T1 (0) to the lower face of L5 (1). A curve's angle is tilt(upper end) -
tilt(lower end), so a curve convex to the image's right is positive.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from spinejax.measure.angles import extremes, LEVEL_HEIGHTS, LEVELS, MIN_DEG, Numbers

NODE_JITTER = 0.035
RIGHT_THORACIC = 0.8
LEAN_DEG = 1.0


class Family(NamedTuple):
  """Probability of a curve pattern, u of its end vertebrae, and the range of each Cobb angle."""
  probability: float
  nodes: tuple[float, ...]
  angles: tuple[tuple[float, float], ...]


FAMILIES = {
    'normal': Family(0.15, (0.0, 0.25, 0.62, 1.0), ((0, 4), (1, 9), (0, 5))),
    'main_thoracic': Family(0.25, (0.0, 0.22, 0.60, 0.90), ((4, 14), (12, 55), (5, 22))),
    'thoracolumbar': Family(0.15, (0.15, 0.48, 0.82, 1.0), ((3, 14), (12, 50), (3, 15))),
    'lumbar': Family(0.15, (0.15, 0.55, 0.93), ((4, 18), (12, 45))),
    'double_major': Family(0.20, (0.0, 0.22, 0.56, 0.92), ((3, 15), (20, 60), (18, 50))),
    'double_thoracic': Family(0.10, (0.0, 0.20, 0.55, 0.90), ((16, 35), (20, 55), (5, 20))),
}


class Curve(NamedTuple):
  """One curve: end levels, signed angle in degrees (positive = convex right), apex level."""
  upper: str
  lower: str
  angle: float
  apex: str


class Spine(NamedTuple):
  """A spine in the coronal plane; lengths are fractions of the distance from T1 to L5.

  Attributes:
    family: name of the curve pattern, a key of FAMILIES.
    u: [17] centers of the levels T1..L5.
    tilts: [17] tilts of the levels, degrees.
    ends: indices into LEVELS of the end vertebrae the pattern was drawn with, upper to lower.
    angles: [len(ends) - 1] signed Cobb angles between neighboring ends as drawn, degrees.
    path_u, path_x, path_tilts: [n] the same spine as a finely sampled centerline; path_x has
      mean 0 over u in [0, 1].
  """
  family: str
  u: np.ndarray
  tilts: np.ndarray
  ends: tuple[int, ...]
  angles: np.ndarray
  path_u: np.ndarray
  path_x: np.ndarray
  path_tilts: np.ndarray


def curve_angles(tilts: Numbers, levels: Sequence[str] = LEVELS,
                 min_deg: float = MIN_DEG) -> list[Curve]:
  """Curves of a spine by the extremes rule: angle = tilt(upper end) - tilt(lower end).

  The apex is the level, from end to end, whose tilt is nearest the mean of the two ends' tilts.

  Args:
    tilts: [n] degrees, top to bottom.
    levels: [n] their names.
    min_deg: smallest angle that counts as a curve, degrees.

  Returns:
    Top to bottom; empty when no swing reaches `min_deg`.

  Raises:
    ValueError: as `extremes`, or when tilts and levels differ in number.
  """
  kept = extremes(tilts, min_deg)
  if len(tilts) != len(levels):
    raise ValueError(f'every tilt needs its level: there are {len(tilts)} tilts and '
                     f'{len(levels)} levels')
  tilts = np.asarray(tilts, np.float64)
  curves = []
  for upper, lower in zip(kept, kept[1:]):
    middle = (tilts[upper] + tilts[lower]) / 2
    apex = upper + int(np.abs(tilts[upper:lower + 1] - middle).argmin())
    curves.append(Curve(levels[upper], levels[lower], float(tilts[upper] - tilts[lower]),
                        levels[apex]))
  return curves


def level_positions(exponent: float = 1.0) -> np.ndarray:
  """Centers u [17] of the levels T1..L5 when heights deviate from their mean as h^exponent."""
  heights = (LEVEL_HEIGHTS / LEVEL_HEIGHTS.mean()) ** exponent
  edges = np.append(0.0, np.cumsum(heights)) / heights.sum()
  return (edges[:-1] + edges[1:]) / 2


def sample_curve(rng: np.random.Generator, family: str | None = None) -> Spine:
  """Draws a spine whose Cobb angles are known exactly.

  The tilt is a monotone cubic (PCHIP) through the end vertebrae, so its extremes lie on them;
  dx/du = tan(tilt) is integrated and the spine turned upright but for a lean of N(0, 1 degree),
  which changes no angle. Ends are moved to the nearest level, so the angles between the stored
  tilts are those drawn. Beyond the outermost ends the tilt turns back by at most 4 degrees, too
  little for a curve. The main thoracic curve is convex right with probability 0.8 and its
  neighbors opposite.

  Args:
    rng: the same numbers are drawn for every family.
    family: a key of FAMILIES; drawn by their probabilities when None.

  Raises:
    ValueError: an unknown family.
  """
  names = tuple(FAMILIES)
  if family is not None and family not in names:
    raise ValueError(f'family must be one of {", ".join(names)}, not {family!r}')
  drawn = names[rng.choice(len(names), p=[f.probability for f in FAMILIES.values()])]
  family = drawn if family is None else family
  u = level_positions(rng.uniform(0.6, 1.0))
  jitter = rng.uniform(-NODE_JITTER, NODE_JITTER, 4)
  severity = rng.uniform(0.0, 1.0) + rng.uniform(-0.35, 0.35, 3)
  severity = 1.0 - np.abs(1.0 - np.abs(severity))
  sign = 1.0 if rng.random() < RIGHT_THORACIC else -1.0
  lean = rng.normal(0.0, LEAN_DEG)

  _, nodes, ranges = FAMILIES[family]
  nodes = [n + j if 0 < n < 1 else n for n, j in zip(nodes, jitter)]
  ends = tuple(int(np.abs(u - n).argmin()) for n in nodes)
  low, high = np.transpose(ranges)
  angles = low + (high - low) * severity[:len(ranges)]
  thoracic = 0 if ends[0] > 0 else 1
  angles = angles * sign * (-1.0) ** (np.arange(len(angles)) - thoracic)

  knots, values = list(u[list(ends)]), list(-np.append(0.0, np.cumsum(angles)))
  if ends[0] > 0:
    knots.insert(0, -0.05)
    values.insert(0, values[0] + _turn_back(values[1] - values[0]))
  if ends[-1] < len(u) - 1:
    knots.append(1.05)
    values.append(values[-1] + _turn_back(values[-2] - values[-1]))
  tilt = PchipInterpolator(knots, values)
  path_u = np.linspace(-0.1, 1.1, 1201)
  path_tilts = tilt(path_u.clip(knots[0], knots[-1]))
  spine = (path_u >= 0) & (path_u <= 1)
  weights = np.where(spine, path_u - 0.5, 0.0)
  weights /= (weights**2).sum()
  turn = -path_tilts[spine].mean()
  for _ in range(4):
    slope = weights @ _integrate(path_u, path_tilts + turn)
    turn += lean - np.degrees(np.arctan(slope))
  path_x = _integrate(path_u, path_tilts + turn)
  return Spine(family, u, tilt(u) + turn, ends, angles, path_u, path_x - path_x[spine].mean(),
               path_tilts + turn)


def _turn_back(swing: float) -> float:
  return float(np.clip(0.4 * swing, -4.0, 4.0))


def _integrate(u: np.ndarray, tilts: np.ndarray) -> np.ndarray:
  slopes = np.tan(np.radians(tilts))
  return np.append(0.0, np.cumsum(np.diff(u) * (slopes[1:] + slopes[:-1]) / 2))
