"""Pairs of left and right candidates: by order along both sides, or by the best chain."""
import numpy as np


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
               jump: float = 2.5) -> list[tuple[int, int]]:
  """The sequence of left and right pairs, top to bottom, that looks most like a spine.

  Every pair is rewarded by 6 - ((s - median) / 5 mm)^2 / 2; every step to the next is charged for
  its direction against the pairs' tilts, changes of tilt, separation and depth, its length
  against the spacing expected there (0.72 of the mean at T1 to 1.28 at L5) and the levels it
  jumps (up to three), 40 at most. A dynamic program finds the best chain, O(n^2).

  Args:
    points: [n, 3] (down, right, deep) mm.
    separation: mm between the two of a pair.
    max_tilt, max_rotation: degrees of a pair.
    reward, jump: of a pair and of a jumped level.

  Returns:
    Indices (left, right) of the points; empty where there is no pair.
  """
  step = points[None] - points[:, None]
  apart = np.hypot(step[..., 0], step[..., 1])
  good = (step[..., 1] > 0) & (apart >= separation[0]) & (apart <= separation[1])
  good &= np.abs(step[..., 0]) <= step[..., 1] * np.tan(np.radians(max_tilt))
  good &= np.abs(step[..., 2]) <= apart * np.tan(np.radians(max_rotation))
  pairs = np.argwhere(good)
  if not len(pairs):
    return []
  middle = points[pairs].mean(1)
  pairs, middle = (array[np.argsort(middle[:, 0], kind='stable')] for array in (pairs, middle))
  across = points[pairs[:, 1]] - points[pairs[:, 0]]
  tilt, s = -np.degrees(np.arctan2(across[:, 0], across[:, 1])), np.hypot(*across[:, :2].T)
  node = reward - 0.5 * ((s - np.median(s)) / 5)**2
  top, bottom = points[:, 0].min(), points[:, 0].max()
  mean = max((bottom - top) / 16.5, 1e-6)
  best, previous = node.copy(), np.full(len(pairs), -1)
  for b in range(1, len(pairs)):
    down = middle[b, 0] - middle[:b, 0]
    a = np.flatnonzero((down > 10) & (down < 160) & ~np.isin(pairs[:b], pairs[b]).any(1))
    if not len(a):
      continue
    down = down[a]
    ratio = down / (mean * np.interp((middle[a, 0] + middle[b, 0]) / 2, [top, bottom],
                                     [0.72, 1.28]))
    levels = np.rint(ratio).clip(1, 4)
    direction = np.degrees(np.arctan2(middle[b, 1] - middle[a, 1], down))
    cost = ((direction - (tilt[a] + tilt[b]) / 2) / 9)**2
    cost += (tilt[b] - tilt[a])**2 / (81 * levels) + ((s[b] - s[a]) / 3)**2
    cost += ((ratio / levels - 1) / 0.28)**2
    cost += ((middle[b, 2] - middle[a, 2]) / (4 * levels))**2
    value = best[a] - np.minimum(cost / 2 + jump * (levels - 1), 40)
    if value.max() > 0:
      best[b] += value.max()
      previous[b] = a[value.argmax()]
  chain, at = [], int(best.argmax())
  while at >= 0:
    chain.append((int(pairs[at, 0]), int(pairs[at, 1])))
    at = previous[at]
  return chain[::-1]
