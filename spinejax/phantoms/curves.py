"""Scoliotic spine curves with exact Cobb angles.

Conventions of all phantoms: y runs down the spine and x to the right of the image. A tilt is the
angle in degrees between the spine and the vertical, dx/dy = tan(tilt). u is the fraction of the way
from the upper face of T1 (0) to the lower face of L5 (1). The angle of a curve is tilt(upper end)
- tilt(lower end), so a curve that is convex to the right of the image is positive.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from spinejax.measurement.curves import LEVEL_HEIGHTS, LEVELS, find_spans
from spinejax.measurement.results import MIN_DEG
from spinejax.measurement.spacing import Numbers

NODE_JITTER = 0.035  # largest shift of an end vertebra, fraction of the spine
RIGHT_THORACIC = 0.8  # probability that the main thoracic curve is convex to the right
LEAN_DEG = 1.0  # standard deviation of the lean of the whole spine, degrees
MOST_ROTATION = 30.0  # degrees of axial rotation


class Family(NamedTuple):
  """A curve pattern."""
  probability: float
  nodes: tuple[float, ...]  # u of the end vertebrae
  angles: tuple[tuple[float, float], ...]  # range of the Cobb angle between two ends, degrees


FAMILIES = {
    'normal': Family(0.15, (0.0, 0.25, 0.62, 1.0), ((0, 4), (1, 9), (0, 5))),
    'main_thoracic': Family(0.25, (0.0, 0.22, 0.60, 0.90), ((4, 14), (12, 55), (5, 22))),
    'thoracolumbar': Family(0.15, (0.15, 0.48, 0.82, 1.0), ((3, 14), (12, 50), (3, 15))),
    'lumbar': Family(0.15, (0.15, 0.55, 0.93), ((4, 18), (12, 45))),
    'double_major': Family(0.20, (0.0, 0.22, 0.56, 0.92), ((3, 15), (20, 60), (18, 50))),
    'double_thoracic': Family(0.10, (0.0, 0.20, 0.55, 0.90), ((16, 35), (20, 55), (5, 20))),
}


class Curve(NamedTuple):
  """A true curve: end levels, signed angle in degrees (positive = convex right), apex level."""
  upper: str
  lower: str
  angle: float
  apex: str


class Spine(NamedTuple):
  """A spine in the coronal plane. Lengths are fractions of the distance from T1 to L5."""
  family: str  # key of FAMILIES
  u: np.ndarray  # [17] centers of the levels T1..L5
  tilts: np.ndarray  # [17] degrees
  ends: tuple[int, ...]  # indices into LEVELS of the end vertebrae, top to bottom
  angles: np.ndarray  # [len(ends) - 1] signed Cobb angles between neighboring ends, degrees
  path_u: np.ndarray  # [1201] the same spine as a finely sampled centerline
  path_x: np.ndarray  # [1201] of mean 0 over u in [0, 1]
  path_tilts: np.ndarray  # [1201] degrees


def curve_angles(tilts: Numbers, levels: Sequence[str] = LEVELS,
                 min_deg: float = MIN_DEG) -> list[Curve]:
  """Curves by the extremes rule from tilts [n] in degrees of levels [n], top to bottom.

  The apex is the level between the ends whose tilt is nearest the mean of the two end tilts. There
  is no curve if no difference of tilts reaches `min_deg`. Raises ValueError as `extremes` does, or
  if the numbers of tilts and levels differ.
  """
  spans = find_spans(tilts, min_deg)
  if len(tilts) != len(levels):
    raise ValueError(f'expected one level for each tilt, got {len(tilts)} tilts and '
                     f'{len(levels)} levels.')
  return [Curve(levels[upper], levels[lower], float(tilts[upper] - tilts[lower]), levels[apex])
          for upper, apex, lower in spans]


def level_positions(exponent: float = 1.0) -> np.ndarray:
  """Centers u [17] of the levels T1..L5 for vertebral heights h^exponent relative to their mean."""
  heights = (LEVEL_HEIGHTS / LEVEL_HEIGHTS.mean()) ** exponent
  edges = np.append(0.0, np.cumsum(heights)) / heights.sum()
  return (edges[:-1] + edges[1:]) / 2


def sample_curve(rng: np.random.Generator, family: str | None = None) -> Spine:
  """Draws a spine whose Cobb angles are known exactly.

  The tilt is a monotone cubic (PCHIP) through the end vertebrae, so its extremes lie on them. The
  position is the integral of dx/du = tan(tilt). The spine is then turned upright except for a lean
  of N(0, 1 degree), which changes no angle. End vertebrae are moved to the nearest level, so the
  stored tilts have exactly the angles drawn. Beyond the outermost ends the tilt turns back by at
  most 4 degrees, which is no curve. The main thoracic curve is convex right with probability 0.8,
  and its neighbors are convex to the other side.

  Every family draws equally many numbers. A family of None is drawn by its probability. Raises
  ValueError for an unknown family.
  """
  names = tuple(FAMILIES)
  if family is not None and family not in names:
    raise ValueError(f'family must be one of {", ".join(names)}, not {family!r}.')
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
    values.insert(0, values[0] + float(np.clip(0.4 * (values[1] - values[0]), -4.0, 4.0)))
  if ends[-1] < len(u) - 1:
    knots.append(1.05)
    values.append(values[-1] + float(np.clip(0.4 * (values[-2] - values[-1]), -4.0, 4.0)))
  tilt = PchipInterpolator(knots, values)
  path_u = np.linspace(-0.1, 1.1, 1201)
  path_tilts = tilt(path_u.clip(knots[0], knots[-1]))
  inside = (path_u >= 0) & (path_u <= 1)
  weights = np.where(inside, path_u - 0.5, 0.0)
  weights /= (weights**2).sum()
  turn = -path_tilts[inside].mean()
  for _ in range(4):  # Newton steps to the lean; the slope is nearly linear in the turn
    slope = weights @ _integrate(path_u, path_tilts + turn)
    turn += lean - np.degrees(np.arctan(slope))
  path_x = _integrate(path_u, path_tilts + turn)
  return Spine(family, u, tilt(u) + turn, ends, angles, path_u, path_x - path_x[inside].mean(),
               path_tilts + turn)


def axial_rotation(rng: np.random.Generator, spine: Spine) -> np.ndarray:
  """Axial rotation in degrees along the centerline, [n]; largest where the spine bends most.

  Its peak is 0.25 to 0.45 of the range of the tilts and at most 30 degrees. The sign is that of the
  curve.
  """
  turning = ndimage.gaussian_filter1d(-np.gradient(spine.path_tilts, spine.path_u), 20)
  peak = min(rng.uniform(0.25, 0.45) * np.ptp(spine.tilts), MOST_ROTATION)
  inside = (spine.path_u >= 0) & (spine.path_u <= 1)
  return turning * peak / max(np.abs(turning[inside]).max(), 1e-6)


def _integrate(u: np.ndarray, tilts: np.ndarray) -> np.ndarray:
  slopes = np.tan(np.radians(tilts))
  return np.append(0.0, np.cumsum(np.diff(u) * (slopes[1:] + slopes[:-1]) / 2))
