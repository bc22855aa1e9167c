"""Posterior: the midline of a spine and its uncertainty, from noisy places and slopes.

The midline x(y) is a cubic B-spline, straight beyond its ends. Its curvature returns to zero where
there are no data:

  x''(y) = kappa f(y) z(y),    f = exp(trend tau),    tau = -1 at the top to 1 at the bottom,

where z is an Ornstein-Uhlenbeck process of variance 1 and correlation length l. With q = x'' / f
the prior of the coefficients c is

  c'P c = [ integral (l q'^2 + q^2 / l) dy + q(top)^2 + q(bottom)^2 ] / (2 kappa^2)
          + x(middle)^2 / 5^2 + x'(middle)^2 / tan^2(15 degrees).

The data have Student's t noise with 3 degrees of freedom. The size of the curvature, its trend and
the size of the noise of each group of data are unknown: they are averaged over a grid by their
evidence. Lengths are in units of the distance between the left and the right side of a spine, so
that no constant depends on the size of a patient.
"""
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spinejax.measurement.fit import Midline, basis

NU = 3.0  # degrees of freedom of the noise
_LENGTH = 1.5  # l, correlation length of the curvature
_KNOTS = 0.5  # largest distance of knots
_MARGIN = 0.1  # of the range of a midline beyond its data
_PLACE_SD, _SLOPE_SD = 5.0, float(np.tan(np.radians(15)))  # of the middle of the spine
_STEPS = 6  # reweighted fits
_PRUNE_AFTER, _PRUNE = 1, 9.0  # step, and log evidence below the best, at which cells are dropped
_NUM_DRAWS = 400
_STRETCHES = 3  # of dense data, per unit
_AT_END, _NEAR_END = 1.5, 0.5  # how much less sure dense data are at both ends, and how far
_FRAYED_SD = 0.3  # of dense data at a frayed end
_FRAYED_LENGTHS = 0.0, 0.5, 1.0, 1.5, 2.0  # in units
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(4)


class Data(NamedTuple):
  """Places and slopes of a midline."""
  y: np.ndarray  # [m]
  value: np.ndarray  # [m] x, or dx/dy
  is_slope: np.ndarray  # [m] bool
  sd: np.ndarray  # [m] standard deviation of the noise at scale 1
  group: np.ndarray  # [m] group of the noise, 0 or 1

  @classmethod
  def of_levels(cls, places: np.ndarray, place_sd: np.ndarray, slope: np.ndarray,
                slope_deg: np.ndarray, has_slope: np.ndarray, groups: tuple[np.ndarray, np.ndarray]
                ) -> 'Data':
    """The places [n, 2] (y, x) of levels, and the slopes [n] of those that have one, bool [n].

    The standard deviations of slopes are in degrees. `groups` are those of places and of slopes,
    [n] each.
    """
    y, x = places.T
    return cls(
        np.append(y, y[has_slope]), np.append(x, slope[has_slope]),
        np.repeat([False, True], [len(y), has_slope.sum()]),
        np.append(place_sd, np.tan(np.radians(slope_deg[has_slope]))),
        np.append(groups[0], groups[1][has_slope]))


class Grid(NamedTuple):
  """Values over which the posterior is averaged, all equally likely before."""
  curvature: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)  # kappa, radians per unit
  trend: tuple[float, ...] = (-1.0, 0.0, 1.0)
  gain: tuple[float, ...] = (1.0,)  # observed slope over true slope, for the slopes of group 1
  noise: tuple[tuple[float, ...], ...] = ((0.4, 0.75, 1.4, 2.5), (0.63, 1.1, 2.0))


@dataclasses.dataclass(frozen=True)
class Posterior:
  """Midlines that fit the data."""
  mean: Midline
  draws: Midline  # [400] of the posterior
  weights: np.ndarray  # [m] mean robust weights of the data; below 1 for outliers
  gain: float  # geometric mean
  noise: tuple[float, ...]  # geometric mean of the scale of the noise of each group
  log_evidence: float  # of the data

  def in_mm(self, unit: float, left: float = 0.0) -> 'Posterior':
    """Converts a posterior in units of `unit` mm to mm and moves x by `left` mm."""
    return dataclasses.replace(self, mean=self.mean.in_mm(unit, left),
                               draws=self.draws.in_mm(unit, left))


@dataclasses.dataclass(frozen=True)
class Range:
  """The range of y of a midline, and its number of knots."""
  top: float
  height: float
  num: int  # of coefficients

  @classmethod
  def of(cls, y: np.ndarray) -> 'Range':
    """The range of y [n] with a margin at both ends. Knots are at most half a unit apart."""
    height = float(np.ptp(y)) + 2 * _MARGIN
    return cls(float(y.min()) - _MARGIN, height, max(int(np.ceil(height / _KNOTS)), 4) + 3)

  def rows(self, y: np.ndarray, derivative: int = 0) -> np.ndarray:
    """Rows [n, K] of the splines or of a derivative of them by y, at y [n]."""
    u = (np.asarray(y, np.float64) - self.top) / self.height
    inside = u.clip(0, 1)
    found = basis(inside, self.num, derivative) / self.height**derivative
    if derivative == 0 and (u != inside).any():
      found = found + basis(inside, self.num, 1) * (u - inside)[:, None]
    return found

  def midline(self, coefficients: np.ndarray) -> Midline:
    """The midline of coefficients [..., K]."""
    return Midline(coefficients, self.top, self.height)


def precision(extent: Range, kappa: float, trend: float = 0.0) -> np.ndarray:
  """P [K, K] of the prior."""
  bend, middle = _precisions(extent, trend)
  return bend / kappa**2 + middle


@functools.lru_cache(maxsize=8)
def _precisions(extent: Range, trend: float) -> tuple[np.ndarray, np.ndarray]:
  """P [K, K] of a curvature of kappa = 1, and of the place and the slope of the middle."""
  cells = np.linspace(0, extent.height, extent.num - 2) + extent.top
  half = np.diff(cells)[:, None] / 2
  y = (cells[:-1, None] + half + half * _POINTS).ravel()
  weights = (half * _WEIGHTS).ravel()

  def flat(at, derivative):
    tau = 2 * (at - extent.top) / extent.height - 1
    return extent.rows(at, derivative) / np.exp(trend * tau)[:, None]

  bend = flat(y, 2)
  change = flat(y, 3) - 2 * trend / extent.height * bend
  ends = flat(extent.top + np.array([0.0, extent.height]), 2)
  prior = _LENGTH * (change.T * weights) @ change + (bend.T * weights) @ bend / _LENGTH
  prior = (prior + ends.T @ ends) / 2
  middle = np.array([extent.top + extent.height / 2])
  place, slope = extent.rows(middle) / _PLACE_SD, extent.rows(middle, 1) / _SLOPE_SD
  return prior, place.T @ place + slope.T @ slope


def fit_posterior(data: Data, extent: Range, grid: Grid = Grid(), *, num_draws: int = _NUM_DRAWS
                  ) -> Posterior:
  """The posterior of the midline, with about `num_draws` draws.

  In each cell of the grid the midline is found by 6 fits with weights w = (nu + 1) / (nu + r^2),
  r the residuals in standard deviations s. With H = A'WA + P its log evidence is

    -(nu + 1) / 2 sum log(1 + r^2 / nu) - sum log s + (log|P| - log|H| - c'P c) / 2.

  The draws of a cell are N(c, H^-1), in proportion to its evidence. Without data the posterior is
  the prior.
  """
  rows = np.where(data.is_slope[:, None], extent.rows(data.y, 1), extent.rows(data.y))
  cells = np.array(list(itertools.product(grid.curvature, grid.trend, grid.gain, *grid.noise)))
  shapes = np.stack([precision(extent, *shape)
                     for shape in itertools.product(grid.curvature, grid.trend)])
  repeats = len(cells) // len(shapes)
  num_cells = len(cells)
  priors, prior_logdet = shapes.repeat(repeats, 0), np.linalg.slogdet(shapes)[1].repeat(repeats)
  sd = data.sd * cells[:, 3:][:, data.group]
  gain = np.where(data.is_slope & (data.group == 1), cells[:, 2:3], 1.0)
  outer = (rows[:, :, None] * rows[:, None]).reshape(len(rows), extent.num**2)
  weights = np.ones_like(sd)
  normal = ((gain / sd)**2 @ outer).reshape(priors.shape) + priors
  for step in range(_STEPS):
    found = np.linalg.solve(
        normal, ((weights * gain / sd**2 * data.value) @ rows)[..., None])[..., 0]
    square = ((gain * (found @ rows.T) - data.value) / sd)**2
    weights = (NU + 1) / (NU + square)
    normal = ((weights * (gain / sd)**2) @ outer).reshape(priors.shape) + priors
    if step in (_PRUNE_AFTER, _STEPS - 1):
      evidence = -(NU + 1) / 2 * np.log1p(square / NU).sum(1) - np.log(sd).sum(1)
      evidence += (prior_logdet - np.linalg.slogdet(normal)[1]
                   - np.einsum('ni,nij,nj->n', found, priors, found)) / 2
    if step == _PRUNE_AFTER:
      kept = evidence > evidence.max() - _PRUNE
      cells, priors, prior_logdet, sd, gain, weights, normal = (
          array[kept] for array in (cells, priors, prior_logdet, sd, gain, weights, normal))
  share = np.exp(evidence - evidence.max())
  total = share.sum()
  share /= total
  mean_gain, *noise = np.exp(share @ np.log(cells[:, 2:])).tolist()
  return Posterior(
      extent.midline(share @ found), extent.midline(_draw(found, normal, share, num_draws)),
      share @ weights, mean_gain, tuple(noise),
      float(evidence.max() + np.log(total / num_cells)))


def fit_sections(y: np.ndarray, x: np.ndarray, unit: float, sd: float, grid: Grid) -> Posterior:
  """Posterior in mm of a midline through a dense row of points, y rising and x [n], in mm.

  Neighboring points have the same errors, so the means of stretches of a third of a unit are taken
  as data, with standard deviation `sd` in units of `unit` mm. Both ends of a spine may fray, as
  into the neck or the sacrum: the data of the last 0, 0.5, 1, 1.5 or 2 units say little if that
  makes the rest more probable.
  """
  count = min(max(int(np.ptp(y) / unit * _STRETCHES), 8), len(y))
  stretch = np.arange(len(y)) * count // len(y)
  size = np.bincount(stretch)
  y, x = (np.bincount(stretch, array) / size for array in (y, x))
  left, extent = float(np.median(x)), Range.of(y / unit)
  from_end = np.minimum(y - y[0], y[-1] - y) / unit
  usual = sd * (1 + _AT_END * np.exp(-from_end / _NEAR_END))

  def fit(frayed: Sequence[float], grid: Grid, num_draws: int = _NUM_DRAWS) -> Posterior:
    is_frayed = (y - y[0] < frayed[0] * unit) | (y[-1] - y < frayed[1] * unit)
    return fit_posterior(Data(
        y / unit, (x - left) / unit, np.zeros(len(y), bool),
        np.where(is_frayed, np.hypot(usual, _FRAYED_SD), usual), np.zeros(len(y), int)),
                         extent, grid, num_draws=num_draws)

  frayed = [0.0, 0.0]
  coarse = grid._replace(curvature=grid.curvature[1::2], trend=(0.0,))
  for end in (0, 1):
    found = [fit([*frayed[:end], length, *frayed[end + 1:]], coarse, 0).log_evidence
             for length in _FRAYED_LENGTHS]
    frayed[end] = _FRAYED_LENGTHS[int(np.argmax(found))]
  return fit(frayed, grid).in_mm(unit, left)


def position_sd(draws: Midline, y: np.ndarray, step: float) -> tuple[float, ...]:
  """Standard deviation of the positions of draws at y [n], in pixels of `step`."""
  return tuple((draws.position(y).std(0) / step).round(2).tolist())


def _draw(found: np.ndarray, normal: np.ndarray, share: np.ndarray, number: int) -> np.ndarray:
  """About `number` antithetic draws [n, K] from the cells, in proportion to their share."""
  rng, draws = np.random.default_rng(0), []
  counts = np.rint(number * share).astype(int)
  for cell in np.flatnonzero(counts):
    noise = rng.standard_normal((found.shape[1], (counts[cell] + 1) // 2))
    off = np.linalg.solve(np.linalg.cholesky(normal[cell]).T, noise).T
    draws.append(found[cell] + np.concatenate([off, -off])[:counts[cell]])
  return np.concatenate([np.zeros((0, found.shape[1])), *draws])
