"""Find: the blobs of a mask, their halves and parts, and the least-cost path through an image."""
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

MAX_BLOBS = 200  # more blobs than any spine has; bounds the time of hostile masks


class Blobs(NamedTuple):
  """Connected components of a mask."""
  centers: np.ndarray  # [n, d] mm from the center of the first pixel
  pixels: list[np.ndarray]  # n arrays [area, d] of pixel indices


class Part(NamedTuple):
  """A blob or a part of one."""
  places: np.ndarray  # [area, 2] (y, x) of its pixels
  weights: np.ndarray  # [area] of the pixels
  probable: float  # mean probability of its pixels; 1 where there are no probabilities


def box_centers(parts: Sequence[Part]) -> np.ndarray:
  """Centers [n, 2] (y, x) of the bounding boxes of parts."""
  return np.reshape([(part.places.min(0) + part.places.max(0)) / 2 for part in parts], (-1, 2))


def find_blobs(mask: np.ndarray, spacing: np.ndarray, *, smallest: float = 0.25,
               split: bool = False, weights: np.ndarray | None = None) -> Blobs:
  """Components of a mask of at least 3 pixels; pixels touch by faces, edges or corners.

  At most MAX_BLOBS of the largest ones are returned, in scan order. Blobs below `smallest` median
  areas are dropped; the median is that of the blobs larger than a tenth of the largest one. `split`
  cuts blobs of more than 1.5 median areas with `split_blob`, repeatedly. `weights` [...] weigh the
  centers. The spacing is [ndim] mm.
  """
  labels, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
  areas = np.bincount(labels.reshape(-1))[1:]
  if not len(areas):
    return Blobs(np.zeros((0, mask.ndim)), [])
  sizable = areas[areas >= max(3, 0.1 * areas.max())]
  median = np.median(sizable) if len(sizable) else 0
  kept = np.flatnonzero(areas >= max(3, smallest * median))
  kept = 1 + np.sort(kept[np.argsort(-areas[kept], kind='stable')[:MAX_BLOBS]])
  places = np.argwhere(np.isin(np.arange(len(areas) + 1), kept)[labels])
  order = np.argsort(labels[tuple(places.T)], kind='stable')
  pixels = np.split(places[order], np.cumsum(areas[kept - 1]))[:-1]
  if split:
    pixels = [part for blob in pixels for part in _split(blob, spacing, 1.5 * median)]
  centers = [np.average(blob, axis=0, weights=None if weights is None else weights[tuple(blob.T)])
             for blob in pixels]
  return Blobs(np.reshape(centers, (-1, mask.ndim)) * spacing, pixels)


def _split(pixels: np.ndarray, spacing: np.ndarray, largest: float) -> list[np.ndarray]:
  """The parts of a blob after cutting every part that exceeds `largest` pixels."""
  parts = split_blob(pixels, spacing) if len(pixels) > largest else [pixels]
  if len(parts) < 2:
    return parts
  return [piece for part in parts for piece in _split(part, spacing, largest)]


def split_blob(pixels: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
  """A blob [area, 2] cut in two at the peaks of its distance map; whole if it has one peak.

  The second peak is the highest local maximum with at least half the height of the first one, more
  than 1.2 times that height away. A pixel goes to the peak whose inscribed circle is nearer.
  """
  low = pixels.min(0) - 1
  inside = np.zeros(pixels.max(0) - low + 2, bool)
  inside[tuple((pixels - low).T)] = True
  distance = ndimage.distance_transform_edt(inside, sampling=spacing)
  peaks = np.argwhere(inside & (distance == ndimage.maximum_filter(distance, 3)))
  heights = distance[tuple(peaks.T)]
  first = int(heights.argmax())
  apart = np.linalg.norm((peaks - peaks[first]) * spacing, axis=1)
  is_second = (apart > 1.2 * heights[first]) & (heights >= 0.5 * heights[first])
  if not is_second.any():
    return [pixels]
  second = int(np.where(is_second, heights, -1).argmax())
  to_first, to_second = (np.linalg.norm((pixels - low - peaks[i]) * spacing, axis=1) - heights[i]
                         for i in (first, second))
  parts = [pixels[to_first <= to_second], pixels[to_first > to_second]]
  return parts if min(map(len, parts)) else [pixels]


def half_centers(places: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
  """Centroids [2, 2] (y, x) of the left and right half of a blob; None if a half is tiny.

  The blob with places [area, 2] and weights [area] is cut perpendicular to the line through the two
  centroids, midway between them, found by iteration. A vertical cut would underestimate the turn of
  a blob of half axes a and b by (b / a)^2.
  """
  sums = np.column_stack([weights, weights[:, None] * places])  # of weights, of y and of x
  total, number = sums.sum(0), len(places)
  middle, direction = total[1:] / total[0], np.array([0.0, 1.0])
  for _ in range(8):
    right = places @ direction > middle @ direction
    count = int(right.sum())
    if min(count, number - count) < 3:
      return None
    of_right = right @ sums
    halves = np.stack([half[1:] / half[0] for half in (total - of_right, of_right)])
    middle, direction = halves.mean(0), halves[1] - halves[0]
  return halves


def cut_along(part: Part, slope: float, level: float) -> list[Part]:
  """A part cut across the spine where its profile along the spine has valleys.

  The profile counts pixels along y + slope x, slope being dx/dy of the spine, smoothed over a
  sixteenth of a level. Peaks are higher than 0.3 of the highest and half a level apart, and the
  valley between two is lower than 0.65 of the lower one.
  """
  along = (part.places - part.places.mean(0)) @ (1.0, slope)
  bin_width = max(float(np.abs(np.diff(np.unique(part.places[:, 0]))).min(initial=level)),
                  level / 40)
  edges = np.arange(along.min() - bin_width, along.max() + 2 * bin_width, bin_width)
  profile = ndimage.gaussian_filter1d(
      np.histogram(along, edges)[0].astype(float), level / 16 / bin_width)
  at = (edges[1:] + edges[:-1]) / 2
  peaks = 1 + np.flatnonzero((profile[1:-1] >= profile[:-2]) & (profile[1:-1] > profile[2:]))
  peaks = peaks[profile[peaks] > 0.3 * profile.max()].tolist()
  while merged := next((
      min(pair, key=lambda peak: profile[peak]) for pair in itertools.pairwise(peaks)
      if profile[slice(*pair)].min() > 0.65 * profile[list(pair)].min()
      or at[pair[1]] - at[pair[0]] < level / 2), None):
    peaks.remove(merged)
  valleys = [at[low + int(profile[low:high].argmin())] for low, high in itertools.pairwise(peaks)]
  owner = np.searchsorted(valleys, along)
  return [Part(part.places[owner == i], part.weights[owner == i], part.probable)
          for i in np.unique(owner)]


def cheapest_path(cost: np.ndarray, reach: int, step_cost: float) -> np.ndarray:
  """Columns [H] of the path from top to bottom with the least sum of cost [H, W].

  The path moves at most `reach` columns per row, and each column of a move costs `step_cost`.
  """
  shift_cost = step_cost * np.abs(np.arange(-reach, reach + 1))
  total, moves = cost[0], []
  for row in cost[1:]:
    before = np.pad(total, reach, constant_values=np.inf)
    choices = sliding_window_view(before, 2 * reach + 1) + shift_cost
    best = choices.argmin(-1)
    moves.append(best - reach)
    total = row + choices[np.arange(len(row)), best]
  path = [int(total.argmin())]
  for move in reversed(moves):
    path.append(path[-1] + int(move[path[-1]]))
  return np.array(path[::-1])
