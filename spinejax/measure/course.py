"""The course of a spine through paired and lone laminae of an ultrasound volume."""
import dataclasses
from collections.abc import Callable

import numpy as np

from spinejax.measure import fit, flags, pair

SMOOTHING = 2.0
ROUGHNESS = 0.6  # squared third differences, in separations, that a straight spine may have
NUM = 9  # coefficients of the splines
_LINE_DEG = 5.0  # degrees, standard deviation of the tilt of a pair
_PAIR_SD, _LONE_SD = 0.04, 0.06  # of positions, in separations
_LONE_REWARD = 2.5  # of a lone lamina in a chain
_LEFT_SD, _DEEP_SD, _BEND_SD = 2.0, 2.5, 8.0  # mm, mm and degrees of a lone lamina off the course
_BENDS = 0, -10, 10, -20, 20  # degrees by which a spine may turn beyond its last pair
_LONE_WEIGHT = 0.6  # of a lone lamina in the fit of the separation
_PASSES = 3  # of the search for lone laminae
_LEVEL_MM = 28.0  # mm, mean level spacing


@dataclasses.dataclass(frozen=True)
class Places:
  """Places of levels, in mm and degrees. What a lone lamina does not tell is NaN.

  Attributes:
    middle: [n,3] (down, left, deep).
    slope: [n] d left / d down perpendicular to the line through both laminae.
    apart: [n] distance of the two laminae in the coronal plane.
    rotation: [n] axial rotation, positive where the left side is nearer to the skin.
  """
  middle: np.ndarray
  slope: np.ndarray
  apart: np.ndarray
  rotation: np.ndarray

  @property
  def down(self) -> np.ndarray:
    return self.middle[:, 0]

  @property
  def is_pair(self) -> np.ndarray:
    """Whether both laminae were found, [n]."""
    return np.isfinite(self.slope)

  def add_lone(self, middle: np.ndarray) -> 'Places':
    """These places and those of lone laminae [k,3]."""
    unknown = np.full(len(middle), np.nan)
    return Places(np.concatenate([self.middle, middle]),
                  *(np.append(array, unknown) for array in (self.slope, self.apart, self.rotation)))


@dataclasses.dataclass(frozen=True)
class Course:
  """What the levels found so far tell of a spine.

  Attributes:
    pairs: [n,2] indices (right, left) of the laminae of each level, -1 for none.
    places: of the levels, top to bottom.
    left, deep: midlines to the left and into the depth.
    apart_at: down [n] mm -> distance [n] mm between the two laminae of a level.
    smoothing: of `left`.
  """
  pairs: np.ndarray
  places: Places
  left: fit.Midline
  deep: fit.Midline
  apart_at: Callable[[np.ndarray], np.ndarray]
  smoothing: float


def find_course(points: np.ndarray, smoothing: float | None = None) -> Course:
  """The course through the best chain of pairs and lone laminae.

  The chain is sought among the pairs first. It is then sought again among pairs and lone laminae
  along the course of the chain before, until it does not change.

  Args:
    points: [n,3] (down, left, deep) mm.
    smoothing: of `fit.fit_joint`; None chooses it as `follow` does.

  Raises:
    NoAngle: the laminae make too few pairs.
  """
  chain = pair.best_chain(points)
  flags.require(len(chain) >= flags.MIN_LEVELS, f'{len(points)} laminae make {len(chain)} levels of '
                f'pairs; {flags.MIN_LEVELS} are needed')
  course = follow(points, chain, smoothing)
  for _ in range(_PASSES):
    pairs = _extend(points, course)
    if np.array_equal(pairs, course.pairs) or (pairs >= 0).all(1).sum() < flags.MIN_LEVELS:
      break
    course = follow(points, pairs, smoothing)
  return course


def follow(points: np.ndarray, pairs: np.ndarray, smoothing: float | None) -> Course:
  """The course through given levels; their distance apart is quadratic in the height.

  A lone lamina lies half of that distance beside the midline; where it does not, both are adapted.

  With smoothing None it is chosen by the roughness of the spine. The third differences of the
  coefficients c, in separations, are taken as N(0, 1 / smoothing), and smoothing has a gamma prior
  of shape 2 and rate ROUGHNESS / 2. Its most probable value is
  (NUM - 1) / (|third difference of c|^2 + ROUGHNESS).

  Args:
    points: [n,3] (down, left, deep) mm.
    pairs: [m,2] indices (right, left), -1 for none.
    smoothing: of `fit.fit_joint`, or None.
  """
  whole = (pairs >= 0).all(1)
  lone, known = pairs[~whole], _place_pairs(points[pairs[whole]])
  laminae, side = points[lone.max(1)], np.where(lone[:, 0] < 0, 1, -1)
  chosen, scale = SMOOTHING if smoothing is None else smoothing, np.median(known.apart)
  places, down, apart = known, known.down, known.apart
  weights = np.append(np.ones(len(down)), np.full(len(lone), _LONE_WEIGHT))
  left = fit.fit_joint(fit_data(known), smoothing=chosen, num=NUM, iterations=5)
  for _ in range(4):
    quadratic = np.polynomial.Polynomial.fit(down, apart, 2, w=weights[:len(down)])
    apart_at = lambda y, f=quadratic: f(np.clip(y, *f.domain))
    if not len(lone):
      break
    middle, _ = _middles(laminae, side, left, apart_at, known)
    places = known.add_lone(middle)
    left = fit.fit_joint(fit_data(places), smoothing=chosen, num=NUM, iterations=5)
    y = middle[:, 0]
    off = 2 * side * (laminae[:, 1] - left.position(y)) * np.hypot(1, left.slope(y))
    down, apart = np.append(known.down, y), np.append(known.apart, off)
  for _ in range(3 if smoothing is None else 0):
    rough = (np.diff(left.coefficients / scale, 3)**2).sum()
    chosen = (NUM - 1) / (rough + ROUGHNESS)
    left = fit.fit_joint(fit_data(places), smoothing=chosen, num=NUM, iterations=5)
  order = np.argsort(places.down, kind='stable')
  places = pair.take(places, order)
  deep = fit.fit_joint(fit_data(places, column=2), smoothing=SMOOTHING, num=NUM, iterations=5)
  return Course(np.concatenate([pairs[whole], lone])[order], places, left, deep, apart_at,
                float(chosen))


def fit_data(places: Places, column: int = 1) -> fit.LevelData:
  """Data of a fit to the left (column 1, with slopes) or into the depth (2, without slopes)."""
  slope = places.slope if column == 1 else np.full(len(places.slope), np.nan)
  return fit.LevelData(
      places.down, places.middle[:, column], slope, np.full(len(slope), _LINE_DEG),
      np.where(places.is_pair, _PAIR_SD, _LONE_SD), float(np.median(places.apart[places.is_pair])))


def level_spacing(y: np.ndarray) -> pair.SpacingAt:
  """down -> distance in mm between two levels expected there, from the levels y [n] found so far.

  The mean spacing is that of the levels, divided by a whole number if it is a multiple of 28 mm.
  """
  y = np.sort(y)
  growth = lambda at: np.interp(at, y[[0, -1]], pair.GROWTH)
  base = float(np.median(np.diff(y) / growth((y[1:] + y[:-1]) / 2)))
  base /= max(1.0, round(base / _LEVEL_MM))
  return lambda at: base * growth(at)


def _place_pairs(pairs: np.ndarray) -> Places:
  """The places of pairs [n,2,3] (right, left) of laminae in mm."""
  across = pairs[:, 1] - pairs[:, 0]
  apart = np.hypot(across[:, 0], across[:, 1])
  return Places(pairs.mean(1), -across[:, 0] / across[:, 1], apart,
                -np.degrees(np.arctan2(across[:, 2], apart)))


def _middles(laminae: np.ndarray, side: np.ndarray, left: fit.Midline,
             apart_at: Callable[[np.ndarray], np.ndarray], known: Places,
             bend: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
  """Middles [n,3] of the levels of lone laminae [n,3] on a side [n], -1 or 1, and slopes [n].

  The slope there is that of the midline plus `bend`, and the rotation that of the known pairs.
  """
  down = laminae[:, 0]
  for _ in range(3):
    slope = left.slope(down) + bend
    half = side * apart_at(down) / 2
    down = laminae[:, 0] + half * slope / np.hypot(1, slope)
  turn = np.tan(np.radians(np.interp(down, known.down, known.rotation)))
  return np.stack([down, laminae[:, 1] - half / np.hypot(1, slope), laminae[:, 2] + half * turn],
                  -1), slope


def _extend(points: np.ndarray, course: Course) -> np.ndarray:
  """The best chain [n,2] of pairs and of lone laminae near the course.

  Beyond the last pair nothing tells how the spine goes on. There, a lone lamina is tried with
  several bends of the spine.
  """
  y, known = course.places.down, pair.take(course.places, course.places.is_pair)
  one, side, turn = (grid.ravel() for grid in np.meshgrid(
      np.arange(len(points)), (-1, 1), _BENDS, indexing='ij'))
  bend = np.tan(np.radians(turn))
  middle, slope = _middles(points[one], side, course.left, course.apart_at, known, bend)
  down = middle[:, 0]
  beyond = down - down.clip(y[0], y[-1])
  doubt = 1 + np.abs(beyond) / 10
  off = (middle[:, 1] - course.left.position(down) - bend * beyond / 2) / (_LEFT_SD * doubt)
  deep = (middle[:, 2] - course.deep.position(down)) / (_DEEP_SD * doubt)
  turned = turn / (_BEND_SD * (1 + np.abs(beyond) / 30))
  reward = _LONE_REWARD - (off**2 + deep**2 + turned**2) / 2
  good = (reward > 0) & ((turn == 0) | (down < known.down[0]) | (down > known.down[-1]))
  pairs = np.where(side[:, None] == (-1, 1), one[:, None], -1)
  lone = pair.Candidates(pairs, middle, np.degrees(np.arctan(slope)), course.apart_at(down), reward)
  return pair.best_chain(points, pair.take(lone, good), level_spacing(y))
