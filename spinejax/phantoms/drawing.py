"""What every phantom is drawn with: checked arguments, smooth random fields, windows of a grid."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from spinejax.measure.angles import Numbers

MAX_DIFFICULTY = 4

Speckle = Callable[[np.random.Generator, np.ndarray, tuple[float, ...]], np.ndarray]


def check_seed(seed: int | Sequence[int]) -> list[int]:
  """The seed as a list of non-negative integers, or a ValueError."""
  try:
    seeds = [int(s) for s in np.atleast_1d(seed)]
    exact = seeds == list(np.atleast_1d(seed)) and min(seeds) >= 0
  except (TypeError, ValueError, OverflowError):
    exact = False
  if not exact:
    raise ValueError(f'seed must be a non-negative integer or a sequence of them, not {seed!r}')
  return seeds


def check_shape(shape: Sequence[int], smallest: tuple[int, ...], names: str) -> tuple[int, ...]:
  """The shape as integers, none below `smallest`, or a ValueError that tells its axes' `names`."""
  try:
    sizes = tuple(int(n) for n in shape)
    exact = sizes == tuple(shape) and len(sizes) == len(smallest)
    exact = exact and all(n >= least for n, least in zip(sizes, smallest))
  except (TypeError, ValueError, OverflowError):
    exact = False
  if not exact:
    raise ValueError(f'shape must be {names}, of at least {" x ".join(map(str, smallest))}, '
                     f'not {shape!r}')
  return sizes


def check_difficulty(difficulty: float) -> float:
  """The difficulty as a float from 0 to MAX_DIFFICULTY, or a ValueError."""
  try:
    level = float(difficulty)
  except (TypeError, ValueError):
    level = -1.0
  if not 0 <= level <= MAX_DIFFICULTY:
    raise ValueError(f'difficulty must be a number from 0 (clean) over 1 (default) to '
                     f'{MAX_DIFFICULTY}, not {difficulty!r}')
  return level


def apply_speckle(speckle: Speckle, rng: np.random.Generator, amplitude: np.ndarray,
                  spacing: tuple[float, ...]) -> np.ndarray:
  """A user's speckle on a copy of the amplitude, float32; ValueError where it does not fit."""
  noisy = np.asarray(speckle(rng, amplitude.copy(), spacing), np.float32)
  if noisy.shape != amplitude.shape or not np.isfinite(noisy).all():
    raise ValueError(f'speckle must return finite amplitudes of shape {amplitude.shape}, but its '
                     f'result has shape {noisy.shape} or values that are not finite')
  return noisy


def normal(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
  return float(np.clip(rng.normal(mean, sd), low, high))


def smooth(white: np.ndarray, sigma: float, axis: int) -> np.ndarray:
  """Gaussian smoothing that keeps the variance of white noise."""
  if sigma < 0.35:
    return white
  kernel = np.exp(-0.5 * (np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1) / sigma)**2)
  return ndimage.correlate1d(white, kernel / np.sqrt((kernel**2).sum()), axis, mode='wrap')


def spline(points: np.ndarray, cell: float, extent: float) -> np.ndarray:
  """Cubic B-splines at points in [0, extent], float32 [n, knots]; white noise keeps variance 1."""
  first, t = np.divmod(points / cell, 1)
  weights = np.stack([(1 - t)**3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * (t + t**2 - t**3), t**3])
  weights /= np.sqrt((weights**2).sum(0))
  basis = np.zeros((len(points), int(extent // cell) + 4), np.float32)
  for k in range(4):
    basis[np.arange(len(points)), first.astype(int) + k] = weights[k]
  return basis


def texture(rng: np.random.Generator, points: Sequence[np.ndarray], sigma: Sequence[float],
            extent: Sequence[float]) -> np.ndarray:
  """Smooth Gaussian field of variance 1, the same one on every grid of its extent.

  Args:
    rng: source of randomness.
    points: one row of increasing coordinates per axis, in [0, extent].
    sigma: smoothness per axis, in the unit of the points.
    extent: length of each axis.

  Returns:
    float32, one axis per row of points.
  """
  bases = [spline(p.ravel(), s * 3**0.5, e) for p, s, e in zip(points, sigma, extent)]
  field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
  for basis in bases:
    field = np.tensordot(field, basis, (0, 1))
  return field


def window(origin: Numbers, middle: Numbers, reach: Numbers, points: Sequence[np.ndarray]
           ) -> tuple[tuple[slice, ...], list[np.ndarray]]:
  """Slices of a grid within reach of the middle, and their offsets from the origin per axis.

  The offsets are float32 and broadcast against each other.
  """
  slices, offsets = [], []
  for axis, (o, m, r, p) in enumerate(zip(origin, middle, reach, points)):
    grid = p.ravel()
    start, stop = np.searchsorted(grid, (m - r, m + r))
    slices.append(slice(start, stop))
    shape = [-1 if i == axis else 1 for i in range(len(points))]
    offsets.append((grid[start:stop] - o).astype(np.float32).reshape(shape))
  return tuple(slices), offsets


def rotate(dy: np.ndarray, dx: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates (along, across) of offsets in a frame whose first axis turns from x towards y."""
  cos, sin = (np.float32(f(np.radians(degrees))) for f in (np.cos, np.sin))
  return cos * dx + sin * dy, cos * dy - sin * dx
