"""The laminae of a course: found ones, and proposals where one or both of a level are missing."""
import numpy as np

from spinejax.measurement import curves, fit, flags
from spinejax.measurement.course import Course
from spinejax.measurement.results import Lamina

SIDES = ('right', 'left')
# Share of the laminae within 3 mm of a true one on 240 phantoms of `benchmarks/measure_laminae.py`
# with 3, 5 or 8 missed laminae and as many false ones.
FOUND, OPPOSITE, BETWEEN = 0.99, 0.77, 0.90


def list_laminae(course: Course, points: np.ndarray, spacings: np.ndarray, names: curves.Names,
                 steps: np.ndarray) -> tuple[Lamina, ...]:
  """The laminae of all levels between the first and the last, top to bottom, right before left.

  Where one lamina of a level was found, the other one is proposed on the opposite side of the
  midline. Where two levels lie too far apart, both laminae of each level between them are proposed.
  Laminae that belong to no level are left out. The confidence is FOUND, OPPOSITE or BETWEEN.

  Args:
    course: the levels.
    points: [n,3] laminae in voxels, to which the pairs of the course refer.
    spacings: [levels - 1] distances of neighbors in expected level spacings.
    names: of the levels.
    steps: [3] mm per voxel.
  """
  middle = course.places.middle
  listed: list[Lamina] = []
  sure = [name if name in curves.LEVELS else None for name in names]
  for i, (pair, name) in enumerate(zip(course.pairs, sure)):
    for side, row in zip(SIDES, pair):
      if row >= 0:
        listed.append(_lamina(name, side, points[row], FOUND))
      else:
        listed.append(_lamina(name, side, 2 * middle[i] / steps - points[pair.max()], OPPOSITE))
    if i < len(spacings) and spacings[i] > flags.GAP:
      listed += _between(course, i, round(float(spacings[i])) - 1, name, steps)
  return tuple(listed)


def _between(course: Course, i: int, number: int, name: str | None, steps: np.ndarray
             ) -> list[Lamina]:
  """The laminae of a number of levels between the levels i and i + 1 of the course."""
  down, is_pair = course.places.down, course.places.is_pair
  y = np.linspace(down[i], down[i + 1], number + 2)[1:-1]
  half, slope = course.apart_at(y) / 2, course.left.slope(y)
  turn = np.tan(np.radians(np.interp(y, down[is_pair], course.places.rotation[is_pair])))
  middle = np.stack([y, course.left.position(y), course.deep.position(y)], -1)
  offset = np.stack([-slope / np.hypot(1, slope), 1 / np.hypot(1, slope), -turn], -1)
  first = None if name is None else curves.LEVELS.index(name) + 1
  named = curves.LEVELS if first is None else curves.LEVELS[first:]
  return [_lamina(named[j] if first is not None and j < len(named) else None, side,
                  (middle[j] + sign * half[j] * offset[j]) / steps, BETWEEN)
          for j in range(number) for side, sign in zip(SIDES, (-1, 1))]


def _lamina(name: str | None, side: str, place: np.ndarray, confidence: float) -> Lamina:
  (row, column, depth), = fit.to_pixels(place[None], 1.0)
  return Lamina(name, side, row, column, depth, confidence, confidence == FOUND)
