"""Overlapping tiles of an image or volume too large to be segmented at once, and their blend."""
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

_ALIGNMENT = 16  # pixels; poolings of most networks then see the same windows as in the whole


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


def blend_weights(tile: Sequence[int]) -> np.ndarray:
  """Weight of each pixel of a tile, float32 [*tile]: a product of triangles, above 0 throughout."""
  ramps = [np.minimum(np.arange(n) + 1, n - np.arange(n)) / math.ceil(n / 2) for n in tile]
  return np.float32(math.prod(np.meshgrid(*ramps, indexing='ij', sparse=True)))


def predict_in_tiles(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray,
                     tile: Sequence[int]) -> np.ndarray:
  """Logits of images from those of their tiles, averaged where tiles overlap.

  Away from the borders of the tiles, farther than the network sees, tiles agree with each other and
  with the whole; nearer, the one whose center is nearer weighs more.

  Args:
    predict: maps float32 [N,*tile,C] to logits float32 [N,*tile,K].
    images: float32 [N,*S,C].
    tile: sizes, within S.

  Returns:
    float32 [N,*S,K].
  """
  size = images.shape[1:-1]
  weights = blend_weights(tile)[..., None]
  total, norm = 0.0, np.zeros((*size, 1), np.float32)
  for start in tile_starts(size, tile):
    place = tuple(slice(a, a + n) for a, n in zip(start, tile))
    logits = predict(np.ascontiguousarray(images[(slice(None), *place)]))
    if np.isscalar(total):
      total = np.zeros((len(images), *size, logits.shape[-1]), np.float32)
    total[(slice(None), *place)] += weights * logits
    norm[place] += weights
  return total / norm
