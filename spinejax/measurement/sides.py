"""Sides: which processes lie left and which right of a spine, by the midline between both rows.

All lengths are in units of the distance between the two sides. The foot of a process is the point
of the midline that it belongs to: half a unit beside it, perpendicular to the midline.
"""
import dataclasses

import numpy as np

from spinejax.measurement import posterior

_CURVATURE = 0.1  # kappa of the prior of the midline
_PROCESS_SD, _LUMP_SD = 0.05, 0.07  # of the distance from the midline
_HALF, _HALF_SD = 0.5, 0.1  # of the distance of both sides, before it is fitted
_SCALES = 3, 2, 1.5, 1.2, 1, 1, 1, 1  # of the noise in the reweighted fits
_TURNS = 5  # of feet and midline
_GROWN_PROCESS_SD = 0.08  # while the sides grow
_GROWN_STEPS = 3
_NEAR = 4.0  # standard deviations from its row within which a process is on the right side
_SEEDS = 6  # processes whose sides start a growth, where fewer than 3 lumps do


@dataclasses.dataclass(frozen=True)
class Rails:
  """Both rows of processes."""
  points: np.ndarray  # [n, 2] centers (y, x), narrow ones moved outward
  side: np.ndarray  # [n] -1 left, 1 right
  tilt: np.ndarray  # [n] radians, of the midline at their feet
  half: float  # half the distance of the rows
  coefficients: np.ndarray  # [K] of the midline
  score: float  # log posterior
  farthest: float  # largest residual, in standard deviations


def feet_of(points: np.ndarray, side: np.ndarray, tilt: np.ndarray, half: float) -> np.ndarray:
  """Feet [n, 2] (y, x) of processes [n, 2] on a side [n] of a midline with a tilt [n]."""
  return points + (side * half)[:, None] * np.stack([np.sin(tilt), -np.cos(tilt)], -1)


def find_sides(points: np.ndarray, lumps: np.ndarray, side: np.ndarray, lack: np.ndarray,
               extent: posterior.Range) -> Rails:
  """The most probable sides of processes [n, 2], from three starts.

  The first start are the given sides [n]. If one of the processes then lies far from its row, the
  sides also grow process by process, from the lumps [m, 2] upward and from the top downward. `lack`
  [n] is the usual width of a process minus its own width, at least 0.
  """
  first = fit_rails(points, lumps, side, lack, extent)
  if len(points) <= _SEEDS or first.farthest < _NEAR:
    return first
  grown = [fit_rails(points, lumps, _grow(points, lumps, side, extent, upward), lack, extent)
           for upward in (True, False)]
  return max(first, *grown, key=lambda rails: rails.score)


def fit_rails(points: np.ndarray, lumps: np.ndarray, side: np.ndarray, lack: np.ndarray,
              extent: posterior.Range) -> Rails:
  """The midline x = B(y) c between two rows of processes at B(y) c +- half cos(tilt).

  The feet and the midline are found in turns. In the first three turns each process takes the side
  on which it lies. After the second turn a process moves outward by half of its `lack`, because a
  rib or the edge of the strip hides its outer part. The noise is Student's t.
  """
  tilt, half, count = np.zeros(len(points)), _HALF, extent.num
  prior = np.zeros((count + 1, count + 1))
  prior[:-1, :-1] = posterior.precision(extent, _CURVATURE)
  prior[-1, -1] = 1 / _HALF_SD**2
  pull = np.append(np.zeros(count), _HALF / _HALF_SD**2)
  sd = np.append(np.full(len(points), _PROCESS_SD), np.full(len(lumps), _LUMP_SD))
  x = np.append(points[:, 1], lumps[:, 1])
  for turn in range(_TURNS):
    y = feet_of(points, side, tilt, half)[:, 0]
    rows = np.column_stack([extent.rows(np.append(y, lumps[:, 0])),
                            np.append(side * np.cos(tilt), np.zeros(len(lumps)))])
    found, square = _reweighted_fit(rows, x, sd, prior, pull, _SCALES)
    coefficients, half = found[:-1], float(found[-1])
    smoothness = coefficients @ prior[:-1, :-1] @ coefficients
    score = (-(posterior.NU + 1) / 2 * np.log1p(square / posterior.NU).sum() - smoothness / 2
             - ((half - _HALF) / _HALF_SD)**2 / 2)
    tilt = np.arctan(extent.rows(y, 1) @ coefficients)
    if turn < 3:
      side = np.where(points[:, 1] > rows[:len(points), :-1] @ coefficients, 1, -1)
    if turn == 1:
      points = points + np.stack([np.zeros(len(points)), side * lack / 2], -1)
      x = np.append(points[:, 1], lumps[:, 1])
  return Rails(points, side, tilt, half, coefficients, float(score), float(np.sqrt(square.max())))


def _grow(points: np.ndarray, lumps: np.ndarray, side: np.ndarray, extent: posterior.Range,
          upward: bool) -> np.ndarray:
  """Sides [n] of the processes, one after the other, each the one that fits those before it.

  Growth starts from at least 3 lumps if it goes upward, else from the present sides of 6 processes.
  """
  order = np.argsort(points[:, 0])[::-1 if upward else 1]
  side, tilt, prior = side.copy(), np.zeros(len(points)), posterior.precision(extent, _CURVATURE)
  lumps = lumps if upward else lumps[:0]
  seeds = 0 if len(lumps) >= 3 else _SEEDS
  on_lumps, none = extent.rows(lumps[:, 0]), np.zeros(extent.num)
  for i in range(seeds, len(order)):
    known, new = order[:i], order[i:i + 1]
    feet = feet_of(points[known], side[known], tilt[known], _HALF)
    rows = np.concatenate([extent.rows(feet[:, 0]), on_lumps])
    sd = np.append(np.full(i, _GROWN_PROCESS_SD), np.full(len(lumps), _LUMP_SD))
    found, _ = _reweighted_fit(rows, np.append(feet[:, 1], lumps[:, 1]), sd, prior, none,
                               (1,) * _GROWN_STEPS)
    tilt[known] = np.arctan(extent.rows(feet[:, 0], 1) @ found)
    both, turned = np.repeat(points[new], 2, axis=0), np.zeros(2)
    sides = np.array([-1, 1])
    for _ in range(2):
      turned = np.arctan(extent.rows(feet_of(both, sides, turned, _HALF)[:, 0], 1) @ found)
    off = feet_of(both, sides, turned, _HALF)
    best = int(np.abs(off[:, 1] - extent.rows(off[:, 0]) @ found).argmin())
    side[new], tilt[new] = sides[best], turned[best]
  return side


def _reweighted_fit(rows: np.ndarray, values: np.ndarray, sd: np.ndarray, prior: np.ndarray,
                    pull: np.ndarray, scales: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Coefficients with Student's t noise, and the squared residuals in the last scale."""
  weights = np.ones(len(rows))
  for scale in scales:
    scaled, target = rows / (scale * sd)[:, None], values / (scale * sd)
    found = np.linalg.solve((scaled.T * weights) @ scaled + prior,
                            scaled.T @ (weights * target) + pull)
    square = (scaled @ found - target)**2
    weights = (posterior.NU + 1) / (posterior.NU + square)
  return found, square
