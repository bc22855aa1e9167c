"""Candidates for levels: the blobs of a mask with their places in mm."""
from typing import NamedTuple

import numpy as np
from scipy import ndimage

MAX_BLOBS = 200


class Blobs(NamedTuple):
  """Connected components of a mask.

  Attributes:
    centers: [n, d] mm from the center of the first pixel.
    areas: [n] pixels.
    pixels: n arrays [area, d] of pixel indices.
  """
  centers: np.ndarray
  areas: np.ndarray
  pixels: list[np.ndarray]


def find_blobs(mask: np.ndarray, spacing: np.ndarray, *, smallest: float = 0.25,
               min_pixels: int = 3, split: bool = False,
               weights: np.ndarray | None = None) -> Blobs:
  """Components of a mask over faces, edges and corners, without specks.

  Args:
    mask: bool [...].
    spacing: [ndim] mm.
    smallest: share of the median area (of blobs over a tenth of the largest) below which a blob
      is a speck; 0 keeps all.
    min_pixels: of a blob.
    split: cut blobs of over 1.8 median areas in two (`split_blob`).
    weights: [...] probabilities that weigh the centers.

  Returns:
    At most MAX_BLOBS of the largest blobs, in scan order; none for an empty mask.
  """
  labels, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
  places = np.argwhere(labels)
  if not number:
    return Blobs(np.zeros((0, mask.ndim)), np.zeros(0), [])
  owner = labels[tuple(places.T)]
  order = np.argsort(owner, kind='stable')
  pixels = np.split(places[order], np.cumsum(np.bincount(owner)[1:])[:-1])
  areas = np.array([len(p) for p in pixels])
  median = np.median(areas[areas >= max(min_pixels, 0.1 * areas.max())]) if len(areas) else 0
  kept = np.flatnonzero(areas >= max(min_pixels, smallest * median))
  kept = np.sort(kept[np.argsort(-areas[kept], kind='stable')[:MAX_BLOBS]])
  pixels = [pixels[i] for i in kept]
  if split:
    pixels = [part for blob in pixels for part in
              (split_blob(blob, spacing) if len(blob) > 1.8 * median else [blob])]
  def center(blob):
    share = None if weights is None else weights[tuple(blob.T)]
    return np.average(blob, axis=0, weights=share) * spacing
  centers = np.reshape([center(blob) for blob in pixels], (-1, mask.ndim))
  return Blobs(centers, np.array([len(p) for p in pixels]), pixels)


def split_blob(pixels: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
  """A blob [area, 2] cut in two by the peaks of its distance map; whole with one.

  The second peak is the highest local maximum that lies further from the first than either is
  from the outline and stands at half its height or more. A pixel goes to the peak whose inscribed
  circle is nearer.
  """
  low = pixels.min(0) - 1
  inside = np.zeros(pixels.max(0) - low + 2, bool)
  inside[tuple((pixels - low).T)] = True
  distance = ndimage.distance_transform_edt(inside, sampling=spacing)
  peaks = np.argwhere(inside & (distance == ndimage.maximum_filter(distance, 3)))
  heights = distance[tuple(peaks.T)]
  first = int(heights.argmax())
  apart = np.linalg.norm((peaks - peaks[first]) * spacing, axis=1)
  second = (apart > 1.2 * heights[first]) & (heights >= 0.5 * heights[first])
  if not second.any():
    return [pixels]
  second = int(np.where(second, heights, -1).argmax())
  away = lambda i: np.linalg.norm((pixels - low - peaks[i]) * spacing, axis=1) - heights[i]
  basins = 1 + (away(first) > away(second))
  parts = [pixels[basins == 1], pixels[basins != 1]]
  return parts if min(map(len, parts)) else [pixels]


def half_centers(pixels: np.ndarray, spacing: np.ndarray,
                 iterations: int = 8) -> np.ndarray | None:
  """Centroids [2, 2] (y, x) in mm of the left and right half of a blob; None if a half is tiny.

  The blob [area, 2] is cut square to the line through the two centroids, found by iteration: a
  vertical cut reads a turned blob of half axes a and b too flat, by a share (b / a)^2.
  """
  places = pixels * spacing
  off, direction = places - places.mean(0), np.array([0.0, 1.0])
  for _ in range(iterations):
    right = off @ direction > 0
    if min(right.sum(), (~right).sum()) < 3:
      return None
    halves = np.stack([places[~right].mean(0), places[right].mean(0)])
    direction = halves[1] - halves[0]
  return halves


def split_sides(points: np.ndarray, middles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Tells left from right by x = quartic(y) + offset * side, fitted until no side changes.

  Args:
    points: [n, 2] (y, x) mm of blobs that lie left or right of the spine.
    middles: [m, 2] points on the spine itself.

  Returns:
    side [n] of -1 and 1, and slope [n] dx/dy of the midline at the points.
  """
  every = np.concatenate([points, middles])
  if len(every) < 3 or not np.ptp(every[:, 0]):
    return np.where(points[:, 1] > np.median(every[:, 1]), 1, -1), np.zeros(len(points))
  v = (every[:, 0] - every[:, 0].mean()) / np.ptp(every[:, 0])
  best = None
  for degree in (0, 1, 2, 4):
    powers = np.vander(v, degree + 1, increasing=True)
    if best is None:
      side = np.where(points[:, 1] > np.median(every[:, 1]), 1, -1)
    for _ in range(8):
      offset = np.append(side, np.zeros(len(middles)))
      fit = np.linalg.lstsq(np.column_stack([powers, offset]), every[:, 1], rcond=None)[0]
      new = np.where(points[:, 1] > (powers @ fit[:-1])[:len(points)], 1, -1)
      if (new == side).all():
        break
      side = new
    best = fit[:-1]
  derivative = sum(k * best[k] * v**(k - 1) for k in range(1, len(best))) / np.ptp(every[:, 0])
  return side, derivative[:len(points)]
