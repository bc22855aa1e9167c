"""Spacing of pixels in mm, and the check of it."""
from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float] | np.ndarray
Spacing = Numbers | float | None  # mm along each axis of the array, or one number for all axes

NO_SPACING = ('the spacing is unknown: give mm per pixel, or 1 if the pixels are known to be '
              'square')


def check_spacing(spacing: Spacing, ndim: int) -> np.ndarray | None:
  """The spacing as [ndim] mm; None if a number is missing, not finite or not positive.

  A single number stands for all axes. A spacing of 1 serves for square pixels of unknown size,
  because angles depend on the shape of the pixels only. ValueError unless it holds `ndim` numbers.
  """
  if spacing is None:
    return None
  try:
    steps = np.asarray(spacing, np.float64)
  except (TypeError, ValueError):
    raise ValueError(f'spacing must be {ndim} numbers in mm, not {spacing!r}.') from None
  steps = np.full(ndim, steps) if steps.ndim == 0 else steps
  if steps.shape != (ndim,):
    raise ValueError(f'spacing must be {ndim} numbers in mm, one per axis of the array; got '
                     f'{steps.size}.')
  return steps if (np.isfinite(steps) & (steps > 0)).all() else None
