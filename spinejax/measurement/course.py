"""The course of a spine through paired and lone laminae of an ultrasound volume."""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spinejax.measurement import fit, flags, pair

SMOOTHING = 2.0  # of the first fits and of the fit into the depth
ROUGHNESS = 0.6  # squared third differences, in separations, that a straight spine may have
_LINE_DEG = 5.0  # degrees, standard deviation of the tilt of a pair
_PAIR_SD, _LONE_SD = 0.04, 0.06  # of positions, in separations
_LONE_REWARD = 2.5  # of a lone lamina in a chain
_LEFT_SD, _DEEP_SD, _BEND_SD = 2.0, 2.5, 8.0  # mm, mm and degrees of a lone lamina off the course
_BENDS = 0, -10, 10, -20, 20  # degrees by which a spine may turn beyond its last pair
_LONE_WEIGHT = 0.6  # of a lone lamina in the fit of the separation
_PASSES = 3  # of the search for lone laminae
_LEVEL_MM = 28.0  # mm, mean level spacing

ApartAt = Callable[[np.ndarray], np.ndarray]  # down [n] mm -> distance [n] mm of the two laminae


class Places(NamedTuple):
  """Places of levels, in mm and degrees. What a lone lamina does not tell is NaN."""
  middle: np.ndarray  # [n,3] (down, left, deep)
  slope: np.ndarray  # [n] d left / d down perpendicular to the line through both laminae
  apart: np.ndarray  # [n] distance of the two laminae in the coronal plane
  rotation: np.ndarray  # [n] axial rotation, positive where the left side is nearer to the skin

  @property
  def down(self) -> np.ndarray:
    """First coordinate of the middles, [n]."""
    return self.middle[:, 0]

  @property
  def is_pair(self) -> np.ndarray:
    """Whether both laminae were found, [n]."""
    return np.isfinite(self.slope)


class Course(NamedTuple):
  """What the levels found so far tell of a spine."""
  pairs: np.ndarray  # [n,2] indices (right, left) of the laminae of each level, -1 for none
  places: Places  # of the levels, top to bottom
  left: fit.Midline  # to the left
  deep: fit.Midline  # into the depth
  apart_at: ApartAt
  smoothing: float  # of `left`


def find_course(points: np.ndarray) -> Course:
  """The course through the best chain of laminae [n,3] (down, left, deep) in mm.

  The first chain consists of pairs, each further one also of lone laminae near the course before,
  until the chain does not change. Raises NoAngle if there are too few pairs.
  """
  chain = pair.best_chain(points)
  flags.require(len(chain) >= flags.MIN_LEVELS, f'{len(points)} laminae make {len(chain)} levels '
                f'of pairs; {flags.MIN_LEVELS} are needed')
  course = follow(points, chain)
  for _ in range(_PASSES):
    pairs = _extend(points, course)
    if np.array_equal(pairs, course.pairs) or (pairs >= 0).all(1).sum() < flags.MIN_LEVELS:
      break
    course = follow(points, pairs)
  return course


def follow(points: np.ndarray, pairs: np.ndarray) -> Course:
  """The course through levels [m,2] (right, left) of laminae [n,3] in mm; -1 for none.

  The distance between the laminae of a level is quadratic in the height, and a lone lamina lies
  half of it beside the midline. Both are fitted in turns. The smoothing follows the roughness of
  the spine: the third differences of the K coefficients c, in separations, are taken as
  N(0, 1 / smoothing), with a gamma prior of shape 2 and rate ROUGHNESS / 2. The most probable
  smoothing is (K - 1) / (|third difference of c|^2 + ROUGHNESS).
  """
  whole = (pairs >= 0).all(1)
  lone, ends = pairs[~whole], points[pairs[whole]]
  across = ends[:, 1] - ends[:, 0]
  apart = np.hypot(across[:, 0], across[:, 1])
  places = known = Places(ends.mean(1), -across[:, 0] / across[:, 1], apart,
                          -np.degrees(np.arctan2(across[:, 2], apart)))
  laminae, side = points[lone.max(1)], np.where(lone[:, 0] < 0, 1, -1)
  down, weights = known.down, np.append(np.ones(len(ends)), np.full(len(lone), _LONE_WEIGHT))
  left = _fit(known)
  for _ in range(4):
    quadratic = np.polynomial.Polynomial.fit(down, apart, 2, w=weights[:len(down)])
    def apart_at(y, f=quadratic):
      return f(np.clip(y, *f.domain))
    if not len(lone):
      break
    middle, _ = _middles(laminae, side, left, apart_at, known)
    unknown = np.full(len(lone), np.nan)
    places = Places(np.concatenate([known.middle, middle]),
                    *(np.append(array, unknown) for array in known[1:]))
    left, y = _fit(places), middle[:, 0]
    off = 2 * side * (laminae[:, 1] - left.position(y)) * np.hypot(1, left.slope(y))
    down, apart = np.append(known.down, y), np.append(known.apart, off)
  for _ in range(3):
    rough = (np.diff(left.coefficients / np.median(known.apart), 3)**2).sum()
    smoothing = float((fit.NUM_JOINT - 1) / (rough + ROUGHNESS))
    left = _fit(places, smoothing)
  order = np.argsort(places.down, kind='stable')
  return Course(np.concatenate([pairs[whole], lone])[order], pair.take(places, order), left,
                _fit(places, column=2), apart_at, smoothing)


def _fit(places: Places, smoothing: float = SMOOTHING, column: int = 1) -> fit.Midline:
  return fit.fit_joint(fit_data(places, column), smoothing=smoothing, iterations=5)


def fit_data(places: Places, column: int = 1) -> fit.LevelData:
  """Data of a fit to the left (column 1, with slopes) or into the depth (2, without slopes)."""
  slope = places.slope if column == 1 else np.full(len(places.slope), np.nan)
  return fit.LevelData(
      places.down, places.middle[:, column], slope, np.full(len(slope), _LINE_DEG),
      np.where(places.is_pair, _PAIR_SD, _LONE_SD), float(np.median(places.apart[places.is_pair])))


def level_spacing(y: np.ndarray) -> pair.SpacingAt:
  """The level spacing by height, from levels at y [n] mm; a multiple of 28 mm hides levels."""
  y = np.sort(y)

  def growth(at: np.ndarray) -> np.ndarray:
    return np.interp(at, y[[0, -1]], pair.GROWTH)

  base = float(np.median(np.diff(y) / growth((y[1:] + y[:-1]) / 2)))
  base /= max(1.0, round(base / _LEVEL_MM))
  return lambda at: base * growth(at)


def _middles(laminae: np.ndarray, side: np.ndarray, left: fit.Midline, apart_at: ApartAt,
             known: Places, bend: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
  """Middles [n,3] and slopes [n] of the levels of lone laminae [n,3] on a side [n], -1 or 1.

  The slope is that of the midline plus `bend`, and the rotation is that of the known pairs.
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

  Beyond the last pair the direction of the spine is unknown; lone laminae there try several bends.
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
