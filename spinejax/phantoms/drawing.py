"""Drawing shared by the phantoms: checked arguments, random fields and windows of a grid."""
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from spinejax.measurement.spacing import Numbers

MAX_DIFFICULTY = 4
Thing = TypeVar('Thing')

# speckle(rng, amplitude, spacing in mm) -> amplitude
Speckle = Callable[[np.random.Generator, np.ndarray, tuple[float, ...]], np.ndarray]


def check_arguments(seed: int | Sequence[int], shape: Sequence[int], difficulty: float,
                    smallest: tuple[int, ...], num_streams: int
                    ) -> tuple[list[np.random.Generator], tuple[int, ...], float]:
  """Independent random streams of a seed, the shape as integers and the difficulty as a float.

  Raises ValueError for a seed of another kind, a shape below `smallest` and a difficulty outside of
  0 to MAX_DIFFICULTY.
  """
  seeds, sizes = _to_integers(np.atleast_1d(seed)), _to_integers(shape)
  if not seeds or min(seeds) < 0:
    raise ValueError(f'seed must be a non-negative integer or a sequence of them, not {seed!r}.')
  if len(sizes) != len(smallest) or any(n < least for n, least in zip(sizes, smallest)):
    raise ValueError(f'shape must be {len(smallest)} integers of at least '
                     f'{" x ".join(map(str, smallest))}, not {shape!r}.')
  try:
    level = float(difficulty)
  except (TypeError, ValueError):
    level = -1.0
  if not 0 <= level <= MAX_DIFFICULTY:
    raise ValueError(f'difficulty must be a number from 0 (clean) over 1 (default) to '
                     f'{MAX_DIFFICULTY}, not {difficulty!r}.')
  streams = np.random.SeedSequence(seeds).spawn(num_streams)
  return [np.random.default_rng(stream) for stream in streams], sizes, level


def _to_integers(values: Any) -> tuple[int, ...]:
  """The values as integers; empty if one of them is another number."""
  try:
    return tuple(operator.index(n) for n in values)
  except TypeError:
    return ()


def apply_speckle(speckle: Speckle, rng: np.random.Generator, amplitude: np.ndarray,
                  spacing: tuple[float, ...]) -> np.ndarray:
  """A user's speckle on a copy of the amplitude, float32. Raises ValueError unless it fits."""
  noisy = np.asarray(speckle(rng, amplitude.copy(), spacing), np.float32)
  if noisy.shape != amplitude.shape or not np.isfinite(noisy).all():
    raise ValueError(f'speckle must return finite amplitudes of shape {amplitude.shape}; its '
                     f'result has shape {noisy.shape} or values that are not finite.')
  return noisy


def normal(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
  """A normal number, clipped to [low, high]."""
  return float(np.clip(rng.normal(mean, sd), low, high))


def vary_number(rng: np.random.Generator, things: Iterable[Thing], factor: float, mean: float,
                draw: Callable[[np.random.Generator], Thing]) -> list[Thing]:
  """Thins things whose number is Poisson distributed, or adds some, so that `factor * mean` is due.

  The things of a factor contain those of every smaller one; a factor of 1 changes nothing.
  """
  found = [thing for thing in things if rng.random() < factor]
  arrival = mean + rng.exponential()
  while arrival < factor * mean:
    found.append(draw(rng))
    arrival += rng.exponential()
  return found


def smooth(white: np.ndarray, sigma: float, axis: int) -> np.ndarray:
  """Gaussian smoothing along an axis that keeps the variance of white noise; sigma in pixels."""
  if sigma < 0.35:
    return white
  kernel = np.exp(-0.5 * (np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1) / sigma)**2)
  return ndimage.correlate1d(white, kernel / np.sqrt((kernel**2).sum()), axis, mode='wrap')


def spline(points: np.ndarray, cell: float, extent: float) -> np.ndarray:
  """Cubic B-splines float32 [n, knots] at points in [0, extent]; white noise keeps its variance."""
  first, t = np.divmod(points / cell, 1)
  weights = np.stack([(1 - t)**3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * (t + t**2 - t**3), t**3])
  weights /= np.sqrt((weights**2).sum(0))
  basis = np.zeros((len(points), int(extent // cell) + 4), np.float32)
  for k in range(4):
    basis[np.arange(len(points)), first.astype(int) + k] = weights[k]
  return basis


def texture(rng: np.random.Generator, points: Sequence[np.ndarray], sigma: Sequence[float],
            extent: Sequence[float]) -> np.ndarray:
  """Smooth Gaussian field float32 of variance 1 that does not depend on the grid's resolution.

  `points` are increasing coordinates along each axis, in [0, extent], and `sigma` is the smoothness
  in their unit.
  """
  bases = [spline(p.ravel(), s * 3**0.5, e) for p, s, e in zip(points, sigma, extent)]
  field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
  for basis in bases:
    field = np.tensordot(field, basis, (0, 1))
  return field


def window(origin: Numbers, middle: Numbers, reach: Numbers, points: Sequence[np.ndarray]
           ) -> tuple[tuple[slice, ...], list[np.ndarray]]:
  """The part of a grid within `reach` of `middle`, both with one number for each axis.

  Returns slices of the grid, and the offsets from the origin as one float32 array for each axis,
  which broadcast against each other.
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
