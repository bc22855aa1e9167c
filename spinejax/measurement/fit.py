"""Fit: splines for the midline of a spine; `posterior` has the one that states its error."""
import dataclasses
import functools
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

NUM_JOINT, _NUM_SMOOTH = 9, 40  # coefficients of both splines
_POINTS = 257  # number of points for which the smoothing of `fit_smooth` is meant
_RIDGE = 1e-9  # keeps the normal equations regular


@dataclasses.dataclass(frozen=True)
class Midline:
  """x(y) as a cubic B-spline of (y - top) / height, straight beyond its ends; lengths in mm.

  The midlines of `posterior` are in its unit until `in_mm` converts them.
  """
  coefficients: np.ndarray  # [..., K] mm; leading axes are draws
  top: float  # mm
  height: float  # mm

  def position(self, y: np.ndarray) -> np.ndarray:
    """x [..., n] in mm at y [n] in mm."""
    u = (np.asarray(y, np.float64) - self.top) / self.height
    inside = u.clip(0, 1)
    rows = basis(inside, self.coefficients.shape[-1])
    slopes = basis(inside, self.coefficients.shape[-1], 1) * (u - inside)[:, None]
    return self.coefficients @ (rows + slopes).T

  def slope(self, y: np.ndarray) -> np.ndarray:
    """dx/dy [..., n] at y [n] in mm."""
    u = ((np.asarray(y, np.float64) - self.top) / self.height).clip(0, 1)
    return self.coefficients @ basis(u, self.coefficients.shape[-1], 1).T / self.height

  def in_mm(self, unit: float, left: float = 0.0) -> 'Midline':
    """Converts a midline in units of `unit` mm to mm and moves x by `left` mm."""
    return dataclasses.replace(self, coefficients=self.coefficients * unit + left,
                               top=self.top * unit, height=self.height * unit)

  def tilt(self, y: np.ndarray) -> np.ndarray:
    """atan(dx/dy) [..., n] in degrees at y [n] in mm."""
    return np.degrees(np.arctan(self.slope(y)))


@dataclasses.dataclass(frozen=True)
class LevelData:
  """Positions and slopes of levels, the data of `fit_joint`."""
  y: np.ndarray  # [n] mm, at least two different ones
  x: np.ndarray  # [n] mm
  slope: np.ndarray  # [n] dx/dy; NaN where a level has a position only
  slope_deg: np.ndarray  # [n] standard deviation of the slopes, degrees
  position_sd: np.ndarray  # [n] standard deviation of the positions, in units of `scale`
  scale: float  # mm, the median separation of the pairs


def basis(u: np.ndarray, num: int, derivative: int = 0) -> np.ndarray:
  """Cubic B-splines [n, num] at u [n] in [0, 1], or their derivatives by u."""
  return _splines(num, derivative)(u)


@functools.lru_cache(maxsize=128)
def _splines(num: int, derivative: int) -> BSpline:
  knots = np.concatenate([np.zeros(3), np.linspace(0, 1, num - 2), np.ones(3)])
  return BSpline(knots, np.eye(num), 3).derivative(derivative)


def fit_joint(data: LevelData, *, smoothing: float = 10.0, iterations: int = 12) -> Midline:
  """Joint position-and-slope spline with x' = x / scale and u = (y - y0) / (y1 - y0):

    min_c sum w ((x' - B(u) c) / position_sd)^2
        + sum w ((slope - B'(u) c / h') / tan slope_deg)^2
        + smoothing |third difference of c|^2,      h' = (y1 - y0) / scale,

  with Huber weights w = min(1, 2 / |residual|) from `iterations` reweighted fits.
  """
  rows, values = _joint_equations(data)
  weights = np.ones(len(values))
  for _ in range(iterations):
    coefficients = _joint_smoother(rows, weights, smoothing) @ values
    weights = np.minimum(1, 2.0 / np.abs(rows @ coefficients - values).clip(1e-9))
  return Midline(coefficients * data.scale, float(data.y.min()), float(np.ptp(data.y)))


def _joint_equations(data: LevelData) -> tuple[np.ndarray, np.ndarray]:
  """Rows [m, K] and values [m] of the weighted equations."""
  height = float(np.ptp(data.y))
  u, has = (data.y - data.y.min()) / height, np.isfinite(data.slope)
  spread = np.tan(np.radians(data.slope_deg[has]))
  rows = np.concatenate([basis(u, NUM_JOINT) / data.position_sd[:, None],
                         basis(u[has], NUM_JOINT, 1) * (data.scale / height / spread)[:, None]])
  values = np.concatenate([data.x / data.scale / data.position_sd, data.slope[has] / spread])
  return rows, values


def _joint_smoother(rows: np.ndarray, weights: np.ndarray, smoothing: float) -> np.ndarray:
  """The matrix [K, m] from values to coefficients."""
  third = np.diff(np.eye(rows.shape[1]), 3, axis=0)
  weighted = rows.T * weights
  return np.linalg.solve(
      weighted @ rows + smoothing * third.T @ third + _RIDGE * np.eye(rows.shape[1]), weighted)


def fit_smooth(y: np.ndarray, x: np.ndarray, *, smoothing: float) -> Midline:
  """Smoothing spline through a centerline y, x [n] in mm:

    min_c sum (x - B(u) c)^2 + smoothing n / 257 integral (B''' c)^2 du,

  with the third derivative by u, which lets the ends bend evenly.
  """
  top, height = float(y.min()), float(np.ptp(y))
  rows = basis((y - top) / height, _NUM_SMOOTH)
  bends = basis((np.arange(8 * _NUM_SMOOTH) + 0.5) / (8 * _NUM_SMOOTH), _NUM_SMOOTH, 3)
  penalty = len(y) / _POINTS * bends.T @ bends / len(bends)
  normal = rows.T @ rows + smoothing * penalty + _RIDGE * np.eye(_NUM_SMOOTH)
  return Midline(np.linalg.solve(normal, rows.T @ x), top, height)


def to_pixels(points: np.ndarray, steps: np.ndarray | float) -> tuple[Any, ...]:
  """Points [n, d] in mm as pixels with two decimals, each a tuple; None for NaN."""
  return tuple(tuple(round(x, 2) for x in point) if np.isfinite(point).all() else None
               for point in (points / steps).tolist())
