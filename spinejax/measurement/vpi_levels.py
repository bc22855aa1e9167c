"""Levels of a spine on VPI images: pairs of processes, lumps, lone processes, and their midline.

Lengths are in units of the distance between the left and the right processes, places are (y, x).
What is seen and its midline are found in turns: the midline decides which processes are pairs,
which part of a lump is missing, and where the level of a lone process lies.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spinejax.measurement import flags, pair, sides
from spinejax.measurement.find import Part, box_centers, cut_along, half_centers
from spinejax.measurement.pair import take
from spinejax.measurement.posterior import Data, Grid, Posterior, Range, fit_posterior

PROCESS, LUMP = 2, 3  # classes
PAIR_SD, PAIR_DEG = 0.03, 4.5  # standard deviations of the middle and the line of a pair
LUMP_SD, LUMP_DEG = 0.03, 2.5  # of a whole lump
LONE_SD = 0.06  # of the foot of a lone process
_NO_LINE_DEG = 40.0  # degrees; a line that is less sure is not used
_USUAL = 60  # percentile of the widths of complete lumps
_WHOLE_WIDTH, _WHOLE_SIDE, _WHOLE_AREA = 0.95, 0.46, 0.85  # shares of the usual ones
_IMPROBABLE = 0.14  # mean doubt 1 - p of a lump above which its line is less sure
_GAP = 0.4  # level spacings, cost of a process without a partner
_SMALLEST = 0.25  # of the median area; smaller parts of lumps are dropped
_PEAKS = 1.3  # level spacings between neighbors, as seen by the cutting of lumps
_TURNS = 3
_GAIN = 1.0, 0.85, 0.7  # of the lines of lumps that a network predicts: it flattens lumps
_FIRST_GRID = Grid((0.04, 0.08, 0.16, 0.32), (0.0,), (1.0,), ((1.0, 1.6), (1.6,)))


class Levels(NamedTuple):
  """What is seen of a spine."""
  kind: np.ndarray  # [n] PROCESS or LUMP
  middle: np.ndarray  # [n, 2] on the midline
  slope: np.ndarray  # [n] dx/dy of the midline by the line; NaN for a lone process
  place_sd: np.ndarray  # [n] standard deviation of the middle
  slope_deg: np.ndarray  # [n] standard deviation of the line, degrees
  ends: np.ndarray  # [n, 2, 2] left and right end of the line; NaN for a lone process

  @property
  def has_line(self) -> np.ndarray:
    """Whether both sides were found, [n]."""
    return np.isfinite(self.slope)


class Spine(NamedTuple):
  """The levels of a spine and its midline."""
  levels: Levels  # top to bottom
  posterior: Posterior


def find_spine(points: np.ndarray, lack: np.ndarray, side: np.ndarray, lumps: Sequence[Part],
               level: float, *, is_predicted: bool = False) -> Spine:
  """The levels and the midline; raises NoAngle for few levels.

  Args:
    points: [n, 2] centers of processes.
    lack: [n] usual width of a process minus its own width, at least 0.
    side: [n] a first guess of their sides, -1 left and 1 right.
    lumps: of which some may be fused.
    level: distance of neighboring levels.
    is_predicted: the mask is that of a network, which pulls lines of lumps toward the horizontal
      by an unknown factor of 0.7 to 1.
  """
  grid = Grid(gain=_GAIN if is_predicted else (1.0,))
  middles = box_centers(lumps)
  extent = Range.of(np.append(points[:, 0], middles[:, 0]))
  rails = sides.find_sides(points, middles, side, lack, extent)
  whole = _cut_lumps(lumps, extent, rails.coefficients, level)
  coefficients, tilt = rails.coefficients, rails.tilt
  for turn in range(_TURNS):
    feet = sides.feet_of(rails.points, rails.side, tilt, rails.half)
    pairs, lone = pair_processes(rails, feet, level)
    levels = Levels(*map(np.concatenate, zip(
        _describe_pairs(rails.points[pairs], lack[pairs]),
        _describe_lumps(whole, extent, coefficients),
        _describe_lone(feet[lone], lack[lone]))))
    number = int(levels.has_line.sum())
    flags.require(number >= 3 and number + len(lone) / 2 >= flags.MIN_LEVELS, (
        f'{len(points)} processes and {len(whole.row)} lumps make {number} levels; '
        f'{flags.MIN_LEVELS} are needed'))
    found = (fit_posterior(_fit_data(levels), extent, grid) if turn == _TURNS - 1 else
             fit_posterior(_fit_data(levels), extent, _FIRST_GRID, num_draws=0))
    coefficients = found.mean.coefficients
    tilt = np.arctan(found.mean.slope(feet[:, 0]))
  return Spine(take(levels, np.argsort(levels.middle[:, 0], kind='stable')), found)


def pair_processes(rails: sides.Rails, feet: np.ndarray,
                   level: float) -> tuple[np.ndarray, np.ndarray]:
  """Indices of the pairs [k, 2] (left, right) and of the processes without a partner [m].

  Pairs keep the order of the feet [n, 2] on the midline. A pair costs the distance of its feet
  along the spine and half the difference of its width from the usual one.
  """
  left, right = (np.flatnonzero(rails.side == side) for side in (-1, 1))
  left, right = (index[np.argsort(feet[index, 0], kind='stable')] for index in (left, right))
  step = rails.points[right] - rails.points[left][:, None]
  cost = np.abs(feet[right, 0] - feet[left, 0][:, None])
  cost += np.abs(np.hypot(step[..., 0], step[..., 1]) - 2 * rails.half) / 2
  pairs = np.reshape([(left[i], right[j]) for i, j in pair.align(cost, _GAP * level)
                      if step[i, j, 1] > 0], (-1, 2)).astype(int)
  return pairs, np.setdiff1d(np.arange(len(feet)), pairs)


def _describe_pairs(ends: np.ndarray, lack: np.ndarray) -> Levels:
  """Pairs with ends [k, 2, 2]. A pair of narrow processes has a less certain middle."""
  across = ends[:, 1] - ends[:, 0]
  count = len(ends)
  return Levels(np.full(count, PROCESS), ends.mean(1), -across[:, 0] / across[:, 1],
                np.hypot(PAIR_SD, np.hypot(*lack.T) / 4), np.full(count, PAIR_DEG), ends)


def _describe_lone(feet: np.ndarray, lack: np.ndarray) -> Levels:
  count = len(feet)
  unknown = np.full(count, np.nan)
  return Levels(np.full(count, PROCESS), feet, unknown, np.hypot(LONE_SD, lack / 2), unknown,
                np.full((count, 2, 2), np.nan))


class Lumps(NamedTuple):
  """Lumps, none of them fused, top to bottom."""
  ends: np.ndarray  # [m, 2, 2] centers of their left and right halves
  row: np.ndarray  # [m] y of their centers
  borders: np.ndarray  # [m, 2] x of their left and right border, without 1 % of the pixels each
  width: np.ndarray  # [m]
  area: np.ndarray  # [m] pixels
  probable: np.ndarray  # [m] mean probability


def _describe_lumps(lumps: Lumps, extent: Range, coefficients: np.ndarray) -> Levels:
  """Lumps; those that are narrow, small, short on one side of the midline or improbable are less
  sure, because a part of them is missing."""
  ends, count = lumps.ends, len(lumps.row)
  usual = _usual_width(lumps.width)
  off = lumps.borders - (extent.rows(lumps.row) @ coefficients)[:, None]
  shorter = np.minimum(-off[:, 0], off[:, 1]).clip(0.05 * usual)
  doubt = (_WHOLE_SIDE * usual / shorter).clip(1)**2.5
  doubt *= (_WHOLE_AREA * np.median(lumps.area) / lumps.area).clip(1) if count else 1
  doubt *= ((1 - lumps.probable) / _IMPROBABLE).clip(1)
  across = ends[:, 1] - ends[:, 0]
  lack = (_WHOLE_WIDTH * usual - lumps.width).clip(0)
  return Levels(np.full(count, LUMP), ends.mean(1), -across[:, 0] / across[:, 1].clip(1e-6),
                np.hypot(LUMP_SD, lack / 2), LUMP_DEG * doubt, ends)


def _usual_width(width: np.ndarray) -> float:
  """The usual width of lumps [m]."""
  if not len(width):
    return 1.0
  return float(np.percentile(width, _USUAL) if len(width) >= 3 else np.median(width))


def _cut_lumps(lumps: Sequence[Part], extent: Range, coefficients: np.ndarray,
               level: float) -> Lumps:
  """The lumps, cut along the spine where two or more are fused, without small parts; by height."""
  parts: list[Part] = []
  for lump in lumps:
    slope = float((extent.rows(lump.places[:, :1].mean(0), 1) @ coefficients)[0])
    parts += cut_along(lump, slope, _PEAKS * level)
  areas = np.array([len(part.places) for part in parts])
  if len(areas):
    usual = np.median(areas[areas >= 0.3 * areas.max()])
    parts = [part for part in parts if len(part.places) >= _SMALLEST * usual]
  halves = [half_centers(part.places, part.weights) for part in parts]
  parts = [part for part, found in zip(parts, halves) if found is not None]
  ends = np.reshape([found for found in halves if found is not None], (-1, 2, 2))
  row = np.array([part.places[:, 0].mean() for part in parts])
  borders = np.reshape([np.percentile(part.places[:, 1], (1, 99)) for part in parts], (-1, 2))
  lumps = Lumps(ends, row, borders, np.array([np.ptp(part.places[:, 1]) for part in parts]),
                np.array([len(part.places) for part in parts]),
                np.array([part.probable for part in parts]))
  return take(lumps, np.argsort(row, kind='stable'))


def _fit_data(levels: Levels) -> Data:
  """Places of all levels, and slopes of those with a sure line."""
  has = levels.has_line & (levels.slope_deg < _NO_LINE_DEG)
  group = (levels.kind == LUMP).astype(int)
  return Data.of_levels(levels.middle, levels.place_sd, levels.slope, levels.slope_deg, has,
                        (group, group))
