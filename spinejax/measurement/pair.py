"""Pair: left and right candidates, by their order along both sides or by the best chain."""
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

SEPARATION = 12.0, 30.0  # mm, smallest and largest distance of the two laminae of a level
MAX_TILT, MAX_ROTATION = 40.0, 35.0  # degrees of a pair
REWARD = 6.0  # of a pair in a chain
SEPARATION_SD = 5.0  # mm, of the separations about their median
JUMP = 2.0  # cost of a level that the chain jumps
MAX_JUMP = 4  # level spacings between two levels of a chain, at most
MAX_COST = 40.0  # of a step of the chain
NEAR = 0.55  # level spacings between two levels of a chain, at least
STEP_MM = 10.0, 160.0  # between two levels of a chain
GROWTH = 0.72, 1.28  # level spacing at T1 and at L5 over its mean
MEAN_STEPS = 16.5  # level spacings in the extent of 17 levels

SpacingAt = Callable[[np.ndarray], np.ndarray]  # y [...] mm -> level spacing [...] mm there
Arrays = TypeVar('Arrays', bound=tuple)


class Candidates(NamedTuple):
  """Candidates for the levels of a spine."""
  pairs: np.ndarray  # [m, 2] indices (left, right) of points, -1 for none
  middle: np.ndarray  # [m, 3] (down, right, deep) mm
  tilt: np.ndarray  # [m] degrees
  apart: np.ndarray  # [m] mm between left and right
  reward: np.ndarray  # [m] of the level in a chain


def take(arrays: Arrays, index: np.ndarray) -> Arrays:
  """A named tuple of arrays, with the rows `index` of all of them."""
  return type(arrays)(*(array[index] for array in arrays))


def split_sides(points: np.ndarray,
                middles: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
  """Tells left from right by x = quartic(y) + offset * side, fitted until no side changes.

  The points [n, 2] (y, x) in mm lie on the left or right of the spine, the middles [m, 2] on it.
  Returns side [n] of -1 and 1, slope [n] dx/dy of the midline at the points, and the separation of
  the sides perpendicular to the midline in mm.
  """
  every = np.concatenate([points, middles])
  side = np.where(points[:, 1] > np.median(every[:, 1]), 1, -1)
  if not len(points) or len(every) < 3 or not np.ptp(every[:, 0]):
    return side, np.zeros(len(points)), 0.0
  v = (every[:, 0] - every[:, 0].mean()) / np.ptp(every[:, 0])
  for degree in (0, 1, 2, 4):
    powers = np.vander(v, degree + 1, increasing=True)
    for _ in range(8):
      offset = np.append(side, np.zeros(len(middles)))
      fit = np.linalg.lstsq(np.column_stack([powers, offset]), every[:, 1], rcond=None)[0]
      new = np.where(points[:, 1] > (powers @ fit[:-1])[:len(points)], 1, -1)
      if (new == side).all():
        break
      side = new
  best = fit[:-1]
  derivative = sum(k * best[k] * v**(k - 1) for k in range(1, len(best))) / np.ptp(every[:, 0])
  slope = derivative[:len(points)]
  return side, slope, 2 * abs(fit[-1]) * float(np.median(np.cos(np.arctan(slope))))


def align(cost: np.ndarray, gap: float) -> list[tuple[int, int]]:
  """Order-preserving pairs (i, j) of two sides with the least total cost [n, m], top to bottom.

  A candidate without a partner costs `gap`.
  """
  n, m = cost.shape
  total = np.add.outer(np.arange(n + 1) * gap, np.arange(m + 1) * gap)
  step = np.zeros((n + 1, m + 1), int)
  for i in range(1, n + 1):
    for j in range(1, m + 1):
      choices = (total[i - 1, j - 1] + cost[i - 1, j - 1], total[i - 1, j] + gap,
                 total[i, j - 1] + gap)
      step[i, j] = int(np.argmin(choices))
      total[i, j] = choices[step[i, j]]
  pairs = []
  while n and m:
    if step[n, m] == 0:
      pairs.append((n - 1, m - 1))
    n, m = n - (step[n, m] != 2), m - (step[n, m] != 1)
  return pairs[::-1]


def best_chain(points: np.ndarray, lone: Candidates | None = None,
               spacing: SpacingAt | None = None) -> np.ndarray:
  """The sequence of left and right pairs, top to bottom, that looks most like a spine.

  Every pair of points [n, 3] (down, right, deep) in mm with a separation s is rewarded with
  6 - ((s - median) / 5 mm)^2 / 2, and every step to the next level costs `_step_costs`. A dynamic
  program finds the best chain in O(n^2). `lone` are further candidates of one point each. The
  spacing is by default that of 17 levels in the extent of the points.

  Returns indices [k, 2] (left, right) of the points, -1 for none; empty without candidates.
  """
  levels = _find_pairs(points)
  if lone is not None:
    levels = Candidates(*map(np.concatenate, zip(levels, lone)))
  if not len(levels.pairs):
    return np.zeros((0, 2), int)
  levels = take(levels, np.argsort(levels.middle[:, 0], kind='stable'))
  if spacing is None:
    top, bottom = points[:, 0].min(), points[:, 0].max()
    mean = max((bottom - top) / MEAN_STEPS, 1e-6)
    def spacing(down):
      return mean * np.interp(down, [top, bottom], GROWTH)
  cost, best = _step_costs(levels, spacing), levels.reward.copy()
  previous = np.full(len(best), -1)
  for b in range(1, len(best)):
    value = best[:b] - cost[:b, b]
    a = int(value.argmax())
    if value[a] > 0:
      best[b] += value[a]
      previous[b] = a
  chain, at = [], int(best.argmax())
  while at >= 0:
    chain.append(at)
    at = previous[at]
  return levels.pairs[chain[::-1]]


def _step_costs(levels: Candidates, spacing: SpacingAt) -> np.ndarray:
  """Costs [m, m] of the steps from one candidate to another, infinite if impossible, at most 40.

  They grow with the angle between the step and the tilts of both levels, with changes of tilt,
  separation and depth, with the difference from the expected spacing, and with the levels jumped.
  """
  pairs, middle, tilt, apart, _ = levels
  down, aside, deep = np.moveaxis(middle[None] - middle[:, None], -1, 0)
  ratio = down / spacing((middle[:, None, 0] + middle[:, 0]) / 2)
  steps = np.rint(ratio).clip(1, MAX_JUMP)
  direction = np.degrees(np.arctan2(aside, np.maximum(down, 1e-6)))
  cost = ((direction - (tilt[:, None] + tilt) / 2) / 9)**2
  cost += (tilt - tilt[:, None])**2 / (81 * steps) + ((apart - apart[:, None]) / 3)**2
  cost += ((ratio / steps - 1) / 0.28)**2 + (deep / (4 * steps))**2
  cost = np.minimum(cost / 2 + JUMP * (steps - 1), MAX_COST)
  same = (pairs[:, None, :, None] == pairs[:, None]) & (pairs >= 0)[:, None, :, None]
  cost[same.any((2, 3)) | (ratio < NEAR) | (down < STEP_MM[0]) | (down > STEP_MM[1])] = np.inf
  return cost


def _find_pairs(points: np.ndarray) -> Candidates:
  """The pairs of points that can be a level."""
  step = points[None] - points[:, None]
  apart = np.hypot(step[..., 0], step[..., 1])
  good = (step[..., 1] > 0) & (apart >= SEPARATION[0]) & (apart <= SEPARATION[1])
  good &= np.abs(step[..., 0]) <= step[..., 1] * np.tan(np.radians(MAX_TILT))
  good &= np.abs(step[..., 2]) <= apart * np.tan(np.radians(MAX_ROTATION))
  pairs, apart = np.argwhere(good), apart[good]
  usual = np.median(apart) if len(apart) else 0.0
  return Candidates(pairs, points[pairs].mean(1), -np.degrees(np.arctan2(*step[good][:, :2].T)),
                    apart, REWARD - 0.5 * ((apart - usual) / SEPARATION_SD)**2)
