"""Overlapping tiles of an image or volume too large to be segmented at once, and their blend."""
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_ALIGNMENT = 16  # pixels; poolings of most networks then see the same windows as in the whole
_SMALLEST = 32  # pixels; what has less around it is hardly recognized
_MARGIN = 1 / 8  # of a tile, at borders inside the image


def tile_starts(size: Sequence[int], tile: Sequence[int]) -> list[tuple[int, ...]]:
  """First pixels of tiles that cover an array [*size] and overlap by half a tile or more.

  The last ones are flush with the border. Starts are multiples of 16 where tiles are large enough
  and the border allows it.

  Raises:
    ValueError: a tile of another rank, of less than one pixel, or larger than the array.
  """
  if len(tile) != len(size) or not all(0 < t <= s for t, s in zip(tile, size)):
    raise ValueError(f'a tile must have {len(size)} sizes from 1 to those of the network\'s image '
                     f'{tuple(size)}, not {tuple(tile)}.')
  starts = []
  for whole, part in zip(size, tile):
    step = max(part // 2 // _ALIGNMENT * _ALIGNMENT, part // 2 if part < 2 * _ALIGNMENT else 0, 1)
    starts.append(sorted({*range(0, whole - part, step), whole - part}))
  return list(itertools.product(*starts))


def tile_sizes(size: Sequence[int]) -> list[tuple[int, ...]]:
  """The array [*size] itself and ever smaller tiles, each half of the one before.

  The longest axis is halved, to a multiple of 16, the first of several; axes of up to 32 pixels
  stay as they are.
  """
  sizes = [tuple(size)]
  while max(sizes[-1]) > _SMALLEST:
    halved = list(sizes[-1])
    axis = halved.index(max(halved))
    halved[axis] = math.ceil(halved[axis] / 2 / _ALIGNMENT) * _ALIGNMENT
    sizes.append(tuple(halved))
  return sizes


def blend_weights(start: Sequence[int], tile: Sequence[int], size: Sequence[int]) -> np.ndarray:
  """Weight of each pixel of the tile at a start in an array [*size], float32 [*tile].

  A product of trapezoids over the axes: 0 in the outer eighth of the tile, a ramp of a quarter, and
  1 in the middle; toward a border of the array it stays 1. Where tiles overlap by half their
  weights add up to 1.
  """
  ramps = []
  for first, part, whole in zip(start, tile, size):
    margin = int(part * _MARGIN)
    width = max(part // 2 - 2 * margin, 1)
    rising = np.clip((np.arange(part) - margin + 0.5) / width, 0, 1)
    ones = np.ones(part)
    ramps.append((rising if first > 0 else ones) * (
        rising[::-1] if first + part < whole else ones))
  return np.asarray(math.prod(np.meshgrid(*ramps, indexing='ij', sparse=True)), np.float32)


def predict_in_tiles(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray,
                     tile: Sequence[int]) -> np.ndarray:
  """Logits of images from those of their tiles, averaged where tiles overlap.

  What a tile says of its outer eighth is not used: where the network sees no farther than that, the
  result is that of the whole wherever tiles start at multiples of the network's stride. Elsewhere
  tiles are blended over half of their size, and the one whose
  center is nearer weighs more.

  Args:
    predict: maps float32 [N,*tile,C] to logits float32 [N,*tile,K].
    images: float32 [N,*S,C].
    tile: sizes, within S.

  Returns:
    float32 [N,*S,K].
  """
  size = images.shape[1:-1]
  total: Any = 0.0
  norm = np.zeros((*size, 1), np.float32)
  for start in tile_starts(size, tile):
    place = tuple(slice(a, a + n) for a, n in zip(start, tile))
    weights = blend_weights(start, tile, size)[..., None]
    logits = predict(np.ascontiguousarray(images[(slice(None), *place)]))
    if np.isscalar(total):
      total = np.zeros((len(images), *size, logits.shape[-1]), np.float32)
    total[(slice(None), *place)] += weights * logits
    norm[place] += weights
  return total / norm
