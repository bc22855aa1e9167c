"""Overlapping tiles of an image or volume that is too large to be segmented at once."""
from collections.abc import Callable, Sequence
import itertools
import math

import numpy as np

_ALIGNMENT = 16  # pixels; at multiples of it most networks pool the same pixels as in the whole
_SMALLEST = 32  # pixels; a smaller tile shows too little of its surroundings
_MARGIN = 1 / 8  # fraction of a tile that is not used, at borders inside the image


def tile_starts(size: Sequence[int], tile: Sequence[int]) -> list[tuple[int, ...]]:
  """First pixels of the tiles that cover an array [*size] and overlap by at least half a tile.

  The last tiles end at the border. Starts are multiples of 16 if the tiles are large enough and the
  border allows it.

  Raises:
    ValueError: a tile with another number of sizes, smaller than one pixel or larger than the
      array.
  """
  if len(tile) != len(size) or not all(0 < part <= whole for part, whole in zip(tile, size)):
    raise ValueError(f'a tile must have {len(size)} sizes from 1 to those of the network\'s image '
                     f'{tuple(size)}, not {tuple(tile)}.')
  starts = []
  for whole, part in zip(size, tile):
    step = part // 2
    if part >= 2 * _ALIGNMENT:
      step = step // _ALIGNMENT * _ALIGNMENT
    starts.append(sorted({*range(0, whole - part, max(step, 1)), whole - part}))
  return list(itertools.product(*starts))


def tile_sizes(size: Sequence[int]) -> list[tuple[int, ...]]:
  """The array [*size] itself and smaller tiles, each half as large as the one before.

  The longest axis is halved (the first of several) and rounded up to a multiple of 16. Axes of up
  to 32 pixels stay as they are.
  """
  sizes = [tuple(size)]
  while max(sizes[-1]) > _SMALLEST:
    halved = list(sizes[-1])
    axis = halved.index(max(halved))
    halved[axis] = math.ceil(halved[axis] / 2 / _ALIGNMENT) * _ALIGNMENT
    sizes.append(tuple(halved))
  return sizes


def blend_weights(start: Sequence[int], tile: Sequence[int], size: Sequence[int]) -> np.ndarray:
  """Weights of the pixels of the tile at `start` in an array [*size], float32 [*tile].

  They are a product over the axes. Along an axis the weight is 0 in the outer eighth of the tile,
  rises over a quarter and is 1 in the middle. At a border of the array it stays 1. The weights of
  tiles that overlap by half sum to 1.
  """
  ramps = []
  for first, part, whole in zip(start, tile, size):
    margin = int(part * _MARGIN)
    width = max(part // 2 - 2 * margin, 1)
    rising = np.clip((np.arange(part) - margin + 0.5) / width, 0, 1)
    ramp = rising if first > 0 else np.ones(part)
    ramps.append(ramp * rising[::-1] if first + part < whole else ramp)
  return np.asarray(math.prod(np.meshgrid(*ramps, indexing='ij', sparse=True)), np.float32)


def predict_in_tiles(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray,
                     tile: Sequence[int]) -> np.ndarray:
  """Logits float32 [N, *S, K] of images [N, *S, C] from those of tiles, by `blend_weights`.

  `predict` maps float32 [N, *tile, C] to logits float32 [N, *tile, K]. The result is that of the
  whole image if the network sees no farther than an eighth of a tile and the tiles start at
  multiples of its stride.
  """
  size = images.shape[1:-1]
  total, norm = np.zeros(()), np.zeros((*size, 1), np.float32)
  for start in tile_starts(size, tile):
    place = tuple(slice(first, first + part) for first, part in zip(start, tile))
    weights = blend_weights(start, tile, size)[..., None]
    logits = predict(np.ascontiguousarray(images[(slice(None), *place)]))
    if not total.ndim:
      total = np.zeros((len(images), *size, logits.shape[-1]), np.float32)
    total[(slice(None), *place)] += weights * logits
    norm[place] += weights
  return total / norm
