"""Fit: splines for the midline of a spine, and their replicates by a wild bootstrap."""
import dataclasses
import functools
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

REPLICATES = 200  # of the bootstrap
NUM_JOINT, _NUM_SMOOTH = 9, 40  # coefficients of both splines
_BLOCKS = 17  # stretches of the block bootstrap, one per vertebra
_OVERSMOOTHING = 10.0  # factor to the smoothing of the fit that gives the residuals
_UNDERSMOOTHING = 10.0  # divisor of the smoothing of the joint replicates
_POINTS = 257  # number of points for which the smoothing of `fit_smooth` is meant
_RIDGE = 1e-9  # keeps the normal equations regular


@dataclasses.dataclass(frozen=True)
class Midline:
  """x(y) in mm as a cubic B-spline of (y - top) / height; straight beyond its ends."""
  coefficients: np.ndarray  # [..., K] mm; leading axes are replicates
  top: float  # mm
  height: float  # mm
  weights: np.ndarray  # [m] robust weights of the data; 1 for data that fit

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
    """A midline in units of `unit` mm in mm, with x moved by `left` mm."""
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
  rows, values, _ = _joint_equations(data)
  weights = np.ones(len(values))
  for _ in range(iterations):
    coefficients = _joint_smoother(rows, weights, smoothing) @ values
    weights = np.minimum(1, 2.0 / np.abs(rows @ coefficients - values).clip(1e-9))
  return Midline(coefficients * data.scale, float(data.y.min()), float(np.ptp(data.y)), weights)


def resample_joint(data: LevelData, midline: Midline, *, smoothing: float = 10.0,
                   replicates: int = REPLICATES, seed: int = 0) -> Midline:
  """Replicates of `fit_joint` by a wild bootstrap over levels.

  The residuals of a level, of position and slope together, change their sign at random and are
  smoothed again. They are divided by 1 - leverage (HC3), because a fit with half as many
  coefficients as levels follows its data. They are taken from and smoothed by a fit with a tenth of
  the smoothing, whose spread covers the bias of the fit (Hall, 1992).
  """
  rows, values, level = _joint_equations(data)
  smoother = _joint_smoother(rows, midline.weights, smoothing / _UNDERSMOOTHING)
  leverage = np.einsum('mk,km->m', rows, smoother)
  residuals = (values - rows @ (smoother @ values)) / (1 - leverage).clip(0.2)
  signs = np.random.default_rng(seed).choice([-1.0, 1.0], (replicates, len(data.y)))[:, level]
  draws = midline.coefficients / data.scale + (signs * residuals) @ smoother.T
  return dataclasses.replace(midline, coefficients=draws * data.scale)


def _joint_equations(data: LevelData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows [m, K] and values [m] of the weighted equations, and the level [m] of each of them."""
  height = float(np.ptp(data.y))
  u, has = (data.y - data.y.min()) / height, np.isfinite(data.slope)
  spread = np.tan(np.radians(data.slope_deg[has]))
  rows = np.concatenate([basis(u, NUM_JOINT) / data.position_sd[:, None],
                         basis(u[has], NUM_JOINT, 1) * (data.scale / height / spread)[:, None]])
  values = np.concatenate([data.x / data.scale / data.position_sd, data.slope[has] / spread])
  return rows, values, np.concatenate([np.arange(len(data.y)), np.flatnonzero(has)])


def _joint_smoother(rows: np.ndarray, weights: np.ndarray, smoothing: float) -> np.ndarray:
  """The matrix [K, m] from values to coefficients."""
  third = np.diff(np.eye(rows.shape[1]), 3, axis=0)
  weighted = rows.T * weights
  return np.linalg.solve(
      weighted @ rows + smoothing * third.T @ third + _RIDGE * np.eye(rows.shape[1]), weighted)


def fit_smooth(y: np.ndarray, x: np.ndarray, *, smoothing: float, order: int = 2,
               replicates: int = 0) -> tuple[Midline, Midline]:
  """Smoothing spline through a centerline y, x [n] in mm, and its replicates:

    min_c sum (x - B(u) c)^2 + smoothing n / 257 integral (d^order B c / du^order)^2 du.

  Order 2 straightens the ends; 3 lets them bend evenly. The replicates are a wild bootstrap in
  which the residuals of each of 17 stretches of y change their sign together, because neighboring
  points have correlated errors. The residuals come from a smoother fit, so they contain the bias as
  well.
  """
  top, height = float(y.min()), float(np.ptp(y))
  rows = basis((y - top) / height, _NUM_SMOOTH)
  bends = basis((np.arange(8 * _NUM_SMOOTH) + 0.5) / (8 * _NUM_SMOOTH), _NUM_SMOOTH, order)
  penalty = len(y) / _POINTS * bends.T @ bends / len(bends)

  def smooth(values, smoothing):
    normal = rows.T @ rows + smoothing * penalty + _RIDGE * np.eye(_NUM_SMOOTH)
    return np.linalg.solve(normal, rows.T) @ values

  coefficients = smooth(x, smoothing)
  midline = Midline(coefficients, top, height, np.ones(len(y)))
  residuals = x - rows @ smooth(x, smoothing * _OVERSMOOTHING**(order / 2))
  block = ((y - top) / height * _BLOCKS).astype(int).clip(0, _BLOCKS - 1)
  signs = np.random.default_rng(0).choice([-1.0, 1.0], (replicates, _BLOCKS))[:, block]
  draws = coefficients + smooth((signs * residuals).T, smoothing).T
  return midline, dataclasses.replace(midline, coefficients=draws)


def to_pixels(points: np.ndarray, steps: np.ndarray | float) -> tuple[Any, ...]:
  """Points [n, d] in mm as pixels with two decimals, each a tuple; None for NaN."""
  return tuple(tuple(round(x, 2) for x in point) if np.isfinite(point).all() else None
               for point in (points / steps).tolist())
