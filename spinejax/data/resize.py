"""Resizing of arrays on the host.

Pixels are squares with their centers at whole numbers: output pixel p lies at (p + 1/2) s - 1/2 of
the input, where s = old size / new size.
"""
import math
from collections.abc import Sequence

import numpy as np


def _taps(old: int, new: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
  """Input indices int [new,T] and weights float32 [new,T] of a triangle filter; rows sum to 1."""
  scale = old / new
  support = max(scale, 1.0) if antialias else 1.0
  center = (np.arange(new) + 0.5) * scale - 0.5
  index = np.floor(center - support)[:, None].astype(int) + np.arange(1, math.ceil(2 * support) + 1)
  weight = np.maximum(0.0, 1.0 - np.abs(index - center[:, None]) / support)
  weight *= (index >= 0) & (index < old)
  weight /= weight.sum(-1, keepdims=True)
  return np.clip(index, 0, old - 1), weight.astype(np.float32)


def resize_bilinear(array: np.ndarray, size: Sequence[int], antialias: bool = False) -> np.ndarray:
  """Resizes the first axes of [H,W,...] or [D,H,W,...] to `size` by linear interpolation.

  Equals PyTorch's interpolate(mode='bilinear', align_corners=False) and jax.image.resize. With
  `antialias`, axes that shrink are filtered by a triangle as wide as the scale, as pillow does.
  The result is float32, or uint8 rounded half up if the input is uint8.
  """
  array = np.asarray(array)
  result = array.astype(np.float32)
  for axis in range(len(size)):
    if size[axis] == result.shape[axis]:
      continue
    index, weight = _taps(result.shape[axis], size[axis], antialias)
    weight = weight.reshape(*(-1 if k == axis else 1 for k in range(result.ndim)), index.shape[1])
    result = sum(np.take(result, index[:, tap], axis) * weight[..., tap]
                 for tap in range(index.shape[1]))
  return np.floor(result + np.float32(0.5)).astype(np.uint8) if array.dtype == np.uint8 else result


def resize_nearest(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
  """Resizes the first axes to `size` by the pixel at each new center; keeps the dtype."""
  array = np.asarray(array)
  return array[np.ix_(*(((2 * np.arange(new) + 1) * old) // (2 * new)
                        for old, new in zip(array.shape, size)))]
