"""Pairs of left and right candidates: by order along both sides, or by the best chain."""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NEAR = 0.55  # level spacings between two levels of a chain, at least


class Levels(NamedTuple):
  """Candidates for the levels of a spine.

  Attributes:
    pairs: [m, 2] indices (left, right) of points, -1 for none.
    middle: [m, 3] (down, right, deep) mm.
    tilt: [m] degrees.
    apart: [m] mm between left and right.
    reward: [m] of a level in a chain.
  """
  pairs: np.ndarray
  middle: np.ndarray
  tilt: np.ndarray
  apart: np.ndarray
  reward: np.ndarray


def align(left: np.ndarray, right: np.ndarray, slope: np.ndarray, gap: float,
          separation: float, width_weight: float = 0.8) -> list[tuple[int, int]]:
  """Order-preserving pairing of two sides, each sorted from top to bottom, at least total cost.

  A pair costs |dy + slope dx|, its offset along the spine, and width_weight |s - separation| for
  its own separation s; a candidate without partner costs `gap`.

  Args:
    left, right: [n, 2] and [m, 2] (y, x) mm.
    slope: [n] dx/dy of the midline at the left candidates.
    gap, separation: mm.
    width_weight: of the separation.

  Returns:
    (i, j) from top to bottom.
  """
  n, m = len(left), len(right)
  dy, dx = np.moveaxis(right[None] - left[:, None], -1, 0)
  pair = np.abs(dy + slope[:, None] * dx)
  pair += width_weight * np.abs(np.hypot(dy, dx) - separation)
  total = np.add.outer(np.arange(n + 1) * gap, np.arange(m + 1) * gap)
  step = np.zeros((n + 1, m + 1), int)
  for i in range(1, n + 1):
    for j in range(1, m + 1):
      choices = (total[i - 1, j - 1] + pair[i - 1, j - 1], total[i - 1, j] + gap,
                 total[i, j - 1] + gap)
      step[i, j] = int(np.argmin(choices))
      total[i, j] = choices[step[i, j]]
  pairs = []
  while n and m:
    if step[n, m] == 0:
      pairs.append((n - 1, m - 1))
    n, m = n - (step[n, m] != 2), m - (step[n, m] != 1)
  return pairs[::-1]


def best_chain(points: np.ndarray, *, separation: tuple[float, float] = (12.0, 30.0),
               max_tilt: float = 40.0, max_rotation: float = 35.0, reward: float = 6.0,
               jump: float = 2.5, lone: Levels | None = None,
               spacing: Callable[[np.ndarray], np.ndarray] | None = None) -> list[tuple[int, int]]:
  """The sequence of left and right pairs, top to bottom, that looks most like a spine.

  Every pair is rewarded by 6 - ((s - median) / 5 mm)^2 / 2; every step to the next is charged for
  its direction against the levels' tilts, changes of tilt, separation and depth, its length
  against the spacing expected there and the levels it jumps (up to three), 40 at most. A dynamic
  program finds the best chain, O(n^2).

  Args:
    points: [n, 3] (down, right, deep) mm.
    separation: mm between the two of a pair.
    max_tilt, max_rotation: degrees of a pair.
    reward, jump: of a pair and of a jumped level.
    lone: further candidates, of one point each.
    spacing: down [...] -> mm from level to level there; by default a sixteenth and a half of the
      points' extent, 0.72 of it at T1 to 1.28 at L5.

  Returns:
    Indices (left, right) of the points, -1 for none; empty where there is no candidate.
  """
  levels = _find_pairs(points, separation, max_tilt, max_rotation, reward)
  if lone is not None:
    levels = Levels(*map(np.concatenate, zip(levels, lone)))
  if not len(levels.pairs):
    return []
  order = np.argsort(levels.middle[:, 0], kind='stable')
  pairs, middle, tilt, s, best = (array[order] for array in levels)
  if spacing is None:
    top, bottom = points[:, 0].min(), points[:, 0].max()
    mean = max((bottom - top) / 16.5, 1e-6)
    spacing = lambda down: mean * np.interp(down, [top, bottom], [0.72, 1.28])

  down, aside, deep = np.moveaxis(middle[None] - middle[:, None], -1, 0)
  ratio = down / spacing((middle[:, None, 0] + middle[:, 0]) / 2)
  steps = np.rint(ratio).clip(1, 4)
  direction = np.degrees(np.arctan2(aside, np.maximum(down, 1e-6)))
  cost = ((direction - (tilt[:, None] + tilt) / 2) / 9)**2
  cost += (tilt - tilt[:, None])**2 / (81 * steps) + ((s - s[:, None]) / 3)**2
  cost += ((ratio / steps - 1) / 0.28)**2 + (deep / (4 * steps))**2
  cost = np.minimum(cost / 2 + jump * (steps - 1), 40)
  same = (pairs[:, None, :, None] == pairs[:, None]) & (pairs >= 0)[:, None, :, None]
  cost[same.any((2, 3)) | (ratio < NEAR) | (down < 10) | (down > 160)] = np.inf

  previous = np.full(len(pairs), -1)
  for b in range(1, len(pairs)):
    value = best[:b] - cost[:b, b]
    a = int(value.argmax())
    if value[a] > 0:
      best[b] += value[a]
      previous[b] = a
  chain, at = [], int(best.argmax())
  while at >= 0:
    chain.append((int(pairs[at, 0]), int(pairs[at, 1])))
    at = previous[at]
  return chain[::-1]


def _find_pairs(points, separation, max_tilt, max_rotation, reward):
  """The pairs of points that can be a level, as Levels."""
  step = points[None] - points[:, None]
  apart = np.hypot(step[..., 0], step[..., 1])
  good = (step[..., 1] > 0) & (apart >= separation[0]) & (apart <= separation[1])
  good &= np.abs(step[..., 0]) <= step[..., 1] * np.tan(np.radians(max_tilt))
  good &= np.abs(step[..., 2]) <= apart * np.tan(np.radians(max_rotation))
  pairs, apart = np.argwhere(good), apart[good]
  usual = np.median(apart) if len(apart) else 0.0
  return Levels(pairs, points[pairs].mean(1), -np.degrees(np.arctan2(*step[good][:, :2].T)), apart,
                reward - 0.5 * ((apart - usual) / 5)**2)
