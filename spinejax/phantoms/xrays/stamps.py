"""Shapes that are added to a field of attenuation, in mm."""
import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms.xrays.anatomy import Grid

Point = tuple[float, float] | np.ndarray


def step(distance: np.ndarray, soft: float) -> np.ndarray:
  """A smooth step from 0 outside to 1 inside, `soft` mm wide about distance 0."""
  t = (distance * np.float32(1 / soft) + np.float32(0.5)).clip(0, 1)
  return t * t * (3 - 2 * t)


def segment_distance(y: np.ndarray, x: np.ndarray, down: float, right: float) -> np.ndarray:
  """Distance of (y, x) from the segment between (0, 0) and (down, right)."""
  down, right = np.float32(down), np.float32(right)
  t = ((y * down + x * right) / max(down * down + right * right, np.float32(1e-9))).clip(0, 1)
  return np.sqrt((y - t * down)**2 + (x - t * right)**2)


def add_blob(field: np.ndarray, grid: Grid, center: Point, half: Point, value: float,
             turn: float = 0.0, soft: float = 4.0, power: float = 2.0, rim: float = 0.0) -> None:
  """Adds a super-ellipse of half axes (y, x), with a thin rim of its own value."""
  reach = max(half) * 1.45 + 2 * soft
  window, (dy, dx) = drawing.window(center, center, (reach, reach), (grid.y, grid.x))
  a, b = drawing.rotate(dy, dx, turn)
  r = (np.abs(a / half[1])**power + np.abs(b / half[0])**power)**(1 / power)
  distance = (1 - r) * min(half)
  field[window] += np.float32(value) * step(distance, max(soft, 1.2 * grid.pixel))
  if rim:
    field[window] += np.float32(rim) * np.exp(-(distance / max(0.8, grid.pixel))**2)


def add_bar(field: np.ndarray, grid: Grid, start: Point, end: Point, radius: float, value: float,
            soft: float = 1.0) -> None:
  """Adds a bar with round ends from one point (y, x) to another."""
  start, end = np.asarray(start, float), np.asarray(end, float)
  reach = np.abs(end - start) / 2 + radius + soft + grid.pixel
  window, (dy, dx) = drawing.window(start, (start + end) / 2, reach, (grid.y, grid.x))
  distance = radius - segment_distance(dy, dx, *(end - start))
  field[window] += np.float32(value) * step(distance, max(soft, 1.2 * grid.pixel))


def add_rib(field: np.ndarray, grid: Grid, y: np.ndarray, x: np.ndarray, value: float,
            radius: float) -> None:
  """Adds the ribbon along a curve that runs outward, then down, given by a point at each degree.

  The flat part is drawn column by column, the steep part row by row.
  """
  reach = 1.5 * radius + 2 * grid.pixel
  window, (rows, columns) = drawing.window(
      (0, 0), ((y.min() + y.max()) / 2, (x.min() + x.max()) / 2),
      (np.ptp(y) / 2 + reach, np.ptp(x) / 2 + reach), (grid.y, grid.x))
  if not rows.size or not columns.size:
    return
  slopes = np.gradient(y) > np.abs(np.gradient(x))
  steep = int(slopes.argmax()) if slopes.any() else len(y)
  flat = slice(0, min(steep + 15, 91))
  distance = np.full((rows.size, columns.size), np.float32(1e3))
  _lower(distance, rows.ravel(), columns.ravel(), x[flat], y[flat])
  if steep < len(y):
    down = slice(max(steep - 15, int(y.argmin())), None)
    _lower(distance.T, columns.ravel(), rows.ravel(), y[down], x[down])
  front = ((rows - y[min(90, len(y) - 1)]) / 20).clip(0, 1)
  end = np.abs(columns - x[-1]) + np.abs(rows - y[-1])
  profile = step(radius - distance, max(1.6, 1.2 * grid.pixel))
  profile *= 0.55 + 0.45 * (distance / radius).clip(0, 1)**3
  field[window] += np.float32(value) * (1 - 0.5 * front) * step(end - 9, 14) * profile


def _lower(distance: np.ndarray, values: np.ndarray, points: np.ndarray, knots: np.ndarray,
           heights: np.ndarray) -> None:
  """Lowers distance [values, points] to that from the graph of heights over monotone knots."""
  if knots[0] > knots[-1]:
    knots, heights = knots[::-1], heights[::-1]
  first, last = np.searchsorted(points, (knots[0], knots[-1]))
  points = points[first:last]
  cosine = 1 / np.sqrt(1 + np.interp(points, knots, np.gradient(heights, knots))**2)
  center = np.interp(points, knots, heights).astype(np.float32)
  part = distance[:, first:last]
  np.minimum(part, np.abs(values[:, None] - center) * cosine.astype(np.float32), out=part)
