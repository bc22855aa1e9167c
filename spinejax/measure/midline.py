"""The midline of a spine as a spline fitted to positions and slopes at once."""
from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline

REPLICATES = 200
BLOCKS = 17
OVERSMOOTHING = 10.0
UNDERSMOOTHING = 10.0


class Midline(NamedTuple):
  """x(y) in mm as a cubic B-spline of (y - top) / height; straight beyond its ends.

  Attributes:
    coefficients: [..., K] mm; leading axes are replicates.
    top, height: mm.
    weights: [m] robust weights of the data used, 1 for those that fit.
  """
  coefficients: np.ndarray
  top: float
  height: float
  weights: np.ndarray

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

  def tilt(self, y: np.ndarray) -> np.ndarray:
    """atan(dx/dy) [..., n] in degrees at y [n] in mm."""
    return np.degrees(np.arctan(self.slope(y)))


def basis(u: np.ndarray, num: int, derivative: int = 0) -> np.ndarray:
  """Cubic B-splines [n, num] at u [n] in [0, 1], or their derivatives by u."""
  knots = np.concatenate([np.zeros(3), np.linspace(0, 1, num - 2), np.ones(3)])
  spline = BSpline(knots, np.eye(num), 3)
  return (spline.derivative(derivative) if derivative else spline)(u)


def fit_joint(y: np.ndarray, x: np.ndarray, slope: np.ndarray, slope_deg: np.ndarray,
              scale: float, *, position_sd: np.ndarray | float = 0.03, num: int = 9,
              lam: float = 10.0, huber: float = 2.0, iterations: int = 12,
              replicates: int = 0, seed: int = 0) -> tuple[Midline, Midline | None]:
  """Joint position-and-slope spline: with x' = x / scale, u = (y - y0) / (y1 - y0),

  min_c sum w ((x' - B(u) c) / 0.03)^2 + sum v ((slope - B'(u) c / h') / tan sigma)^2
        + lam |third difference of c|^2,   h' = (y1 - y0) / scale,

  reweighted w = min(1, huber / |residual|).

  The replicates are a wild bootstrap over levels: the residuals of a level, position and slope
  together, change their sign and are smoothed again. Two things keep their spread honest: the
  residuals are divided by 1 - leverage (HC3), since a fit with half as many coefficients as
  levels follows its data, and they are taken from and smoothed by a fit of lam / UNDERSMOOTHING,
  whose spread is wide enough for the bias of the fit itself (Hall, 1992).

  Args:
    y, x: [n] mm, at least two different y.
    slope: [n] dx/dy, NaN where a level has a position only.
    slope_deg: [n] sigma of the slopes, degrees.
    scale: mm, the median separation of the pairs.
    position_sd: of the positions, in units of scale.
    num, lam, huber, iterations: of the formula.
    replicates: number of them; 0 for none.
    seed: of the replicates.

  Returns:
    The midline, and its replicates or None.
  """
  top, height = float(y.min()), float(np.ptp(y))
  u, has = (y - top) / height, np.isfinite(slope)
  positions = basis(u, num) / np.broadcast_to(position_sd, u.shape)[:, None]
  spread = np.tan(np.radians(slope_deg[has]))
  slopes = basis(u[has], num, 1) * (scale / height / spread)[:, None]
  rows = np.concatenate([positions, slopes])
  data = np.concatenate([x / scale / position_sd, slope[has] / spread])
  weights = np.ones(len(data))
  for _ in range(iterations):
    coefficients = _smoother(rows, weights, lam) @ data
    weights = np.minimum(1, huber / np.abs(rows @ coefficients - data).clip(1e-9))
  midline = Midline(coefficients * scale, top, height, weights)
  if not replicates:
    return midline, None
  smoother = _smoother(rows, weights, lam / UNDERSMOOTHING)
  leverage = np.einsum('mk,km->m', rows, smoother)
  residuals = (data - rows @ (smoother @ data)) / (1 - leverage).clip(0.2)
  level = np.concatenate([np.arange(len(y)), np.flatnonzero(has)])
  signs = np.random.default_rng(seed).choice([-1.0, 1.0], (replicates, len(y)))[:, level]
  draws = coefficients + (signs * residuals) @ smoother.T
  return midline, Midline(draws * scale, top, height, weights)


def _smoother(rows, weights, lam):
  """The matrix [K, m] from data to coefficients, with |third difference|^2 penalized by lam."""
  third = np.diff(np.eye(rows.shape[1]), 3, axis=0)
  weighted = rows.T * weights
  return np.linalg.solve(
      weighted @ rows + lam * third.T @ third + 1e-9 * np.eye(rows.shape[1]), weighted)


def fit_smooth(y: np.ndarray, x: np.ndarray, *, num: int = 40, lam: float = 1e-4,
               order: int = 2, blocks: int = BLOCKS, replicates: int = 0,
               seed: int = 0) -> tuple[Midline, Midline | None]:
  """Smoothing spline min_c sum (x - B(u) c)^2 + lam integral (d^order B c / du^order)^2 du.

  The replicates are a wild bootstrap in which the residuals of each stretch of y change their sign
  together, since neighboring points err together. The residuals are those of a smoother fit, of
  OVERSMOOTHING^(order / 2) lam, which does not follow the errors and leaves the bias as well.

  Args:
    y, x: [n] mm along a centerline.
    num, lam: coefficients and smoothing; lam is meant for 257 points and scaled by n / 257.
    order: of the derivative penalized; 2 straightens the ends, 3 lets them bend evenly.
    blocks: number of stretches.
    replicates, seed: number of replicates, 0 for none.

  Returns:
    The midline, and its replicates or None.
  """
  top, height = float(y.min()), float(np.ptp(y))
  rows = basis((y - top) / height, num)
  bends = basis((np.arange(8 * num) + 0.5) / (8 * num), num, order)
  penalty = len(y) / 257 * bends.T @ bends / len(bends)
  smoother = lambda lam: np.linalg.solve(
      rows.T @ rows + lam * penalty + 1e-9 * np.eye(num), rows.T)
  coefficients = smoother(lam) @ x
  midline = Midline(coefficients, top, height, np.ones(len(y)))
  if not replicates:
    return midline, None
  residuals = x - rows @ (smoother(lam * OVERSMOOTHING**(order / 2)) @ x)
  block = ((y - top) / height * blocks).astype(int).clip(0, blocks - 1)
  signs = np.random.default_rng(seed).choice([-1.0, 1.0], (replicates, blocks))[:, block]
  draws = coefficients + (signs * residuals) @ smoother(lam).T
  return midline, Midline(draws, top, height, midline.weights)
