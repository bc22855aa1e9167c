"""Candidates for levels: the blobs of a mask with their places in mm."""
from collections.abc import Callable
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
    split: cut blobs of over 1.8 median areas in two, and their parts again (`split_blob`).
    weights: [...] probabilities that weigh the centers.

  Returns:
    At most MAX_BLOBS of the largest blobs, in scan order; none for an empty mask.
  """
  labels, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
  areas = np.bincount(labels.reshape(-1))[1:]
  if not len(areas):
    return Blobs(np.zeros((0, mask.ndim)), np.zeros(0), [])
  sizable = areas[areas >= max(min_pixels, 0.1 * areas.max())]
  median = np.median(sizable) if len(sizable) else 0
  kept = np.flatnonzero(areas >= max(min_pixels, smallest * median))
  kept = 1 + np.sort(kept[np.argsort(-areas[kept], kind='stable')[:MAX_BLOBS]])
  places = np.argwhere(np.isin(np.arange(len(areas) + 1), kept)[labels])
  order = np.argsort(labels[tuple(places.T)], kind='stable')
  pixels = np.split(places[order], np.cumsum(areas[kept - 1]))[:-1]
  if split:
    pixels = [part for blob in pixels for part in _split(blob, spacing, 1.5 * median)]
  def center(blob):
    share = None if weights is None else weights[tuple(blob.T)]
    return np.average(blob, axis=0, weights=share) * spacing
  centers = np.reshape([center(blob) for blob in pixels], (-1, mask.ndim))
  return Blobs(centers, np.array([len(p) for p in pixels]), pixels)


def _split(pixels, spacing, largest):
  """Parts of a blob none of which is both larger than `largest` pixels and of two peaks."""
  parts = split_blob(pixels, spacing) if len(pixels) > largest else [pixels]
  return parts if len(parts) < 2 else [
      piece for part in parts for piece in _split(part, spacing, largest)]


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


def split_sides(points: np.ndarray,
                middles: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
  """Tells left from right by x = quartic(y) + offset * side, fitted until no side changes.

  Args:
    points: [n, 2] (y, x) mm of blobs that lie left or right of the spine.
    middles: [m, 2] points on the spine itself.

  Returns:
    side [n] of -1 and 1, slope [n] dx/dy of the midline at the points, and the separation of the
    sides square to it, mm.
  """
  every = np.concatenate([points, middles])
  side = np.where(points[:, 1] > np.median(every[:, 1]), 1, -1)
  if not len(points) or len(every) < 3 or not np.ptp(every[:, 0]):
    return side, np.zeros(len(points)), 0.0
  v = (every[:, 0] - every[:, 0].mean()) / np.ptp(every[:, 0])
  for degree in (0, 1, 2, 4):
    powers = np.vander(v, degree + 1, increasing=True)
    for _ in range(8):
      offset = np.append(side, np.zeros(len(middles)))
      fit = np.linalg.lstsq(np.column_stack([powers, offset]), every[:, 1], rcond=None)[0]
      new = np.where(points[:, 1] > (powers @ fit[:-1])[:len(points)], 1, -1)
      if (new == side).all():
        break
      side = new
  best = fit[:-1]
  derivative = sum(k * best[k] * v**(k - 1) for k in range(1, len(best))) / np.ptp(every[:, 0])
  slope = derivative[:len(points)]
  return side, slope, 2 * abs(fit[-1]) * float(np.median(np.cos(np.arctan(slope))))


def tell_apart(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]] | None:
  """Processes and lumps of a mask whose bones are all one class, told apart by place.

  The midline x = quartic(y) runs through the widest gap of every row, seen through a window as
  high as a blob, or through the middle of its only run. Blobs on it are lumps; the others lie on
  a rail either side, ribs with their processes. Midline and rails are fitted until no blob changes.
  A process is the part of its blob nearest the spine, as wide as the rails' inner edges lie from
  the midline; the edge is sought in a window of rows, so that fused blobs keep all of theirs.

  Args:
    mask: bool [H,W].
    spacing: (y, x) mm.

  Returns:
    Centers [n, 2] (y, x) of the processes in mm and the pixels [area, 2] of each lump; None where
    the blobs do not lie so.
  """
  blobs = find_blobs(mask, spacing, smallest=0.1)
  if len(blobs.areas) < 6 or not np.ptp(blobs.centers[:, 0]):
    return None
  window = int(np.median([np.ptp(blob[:, 0]) for blob in blobs.pixels])) | 1
  midline = rough_midline(mask, spacing, window)
  y, x = blobs.centers.T
  powers = lambda at: np.vander((at - y[0]) / np.ptp(y) - 0.5, 5, increasing=True)
  rail, offset = np.zeros(len(x)), 0.0
  for _ in range(8):
    off = x - midline(y)
    if not rail.any():
      offset = np.median(np.abs(off))
    previous, rail = rail, np.rint(off / offset).clip(-1, 1)
    if (rail == previous).all():
      break
    *quartic, offset = np.linalg.lstsq(np.column_stack([powers(y), rail]), x, rcond=None)[0]
    midline = lambda y: powers(y) @ quartic
  if min((rail < 0).sum(), (rail > 0).sum()) < 3 or (
      np.median(np.abs(off - offset * rail)) > 0.3 * offset):
    return None
  parts, edges, lumps = [], [], []
  for blob, side, aside in zip(blobs.pixels, rail, off):
    down, right = (blob * spacing).T
    away = right - midline(down)
    if not side and min(away.max(), -away.min()) > 0.3 * offset:
      lumps.append(blob)
      continue
    away *= side or np.sign(aside)
    row = blob[:, 0] - blob[0, 0]
    edge = np.full(row[-1] + 1, np.inf)
    np.minimum.at(edge, row, away)
    parts.append((blob, away - ndimage.minimum_filter1d(edge, window // 2 | 1)[row]))
    edges.append(edge.min())
  inner = np.zeros_like(mask)
  for blob, depth in parts:
    inner[tuple(blob[depth < np.median(edges)].T)] = True
  return find_blobs(inner, spacing, split=True).centers, lumps


def rough_midline(mask: np.ndarray, spacing: np.ndarray,
                  window: int) -> Callable[[np.ndarray], np.ndarray]:
  """x = quartic(y) in mm of least absolute deviation through the widest gaps of a mask's rows.

  Args:
    mask: bool [H,W], bones on both sides of a spine and on it, not empty.
    spacing: (y, x) mm.
    window: rows that are seen together.

  Returns:
    The function from y [n] to x [n], constant beyond the mask's ends.
  """
  gaps = _widest_gaps(ndimage.maximum_filter1d(mask.view(np.uint8), window, axis=0)) * spacing
  filled = np.flatnonzero(mask.any(1)) * spacing[0]
  top, height = filled[0], max(float(np.ptp(filled)), spacing[0])
  gaps = gaps[(gaps[:, 0] >= top) & (gaps[:, 0] <= top + height)]
  powers = lambda y: np.vander(((y - top) / height).clip(0, 1) - 0.5, 5, increasing=True)
  rows, weights = powers(gaps[:, 0]), np.ones(len(gaps))
  for _ in range(20):
    quartic = np.linalg.lstsq(rows * weights[:, None], gaps[:, 1] * weights, rcond=None)[0]
    weights = (spacing[1] + np.abs(gaps[:, 1] - rows @ quartic))**-0.5
  return lambda y: powers(y) @ quartic


def _widest_gaps(mask: np.ndarray) -> np.ndarray:
  """(row, column) of the middle of each row's widest gap between runs, or of its only run."""
  found = []
  for row, line in enumerate(mask):
    columns = np.flatnonzero(line)
    if len(columns):
      gap = int(np.diff(columns, append=columns[-1]).argmax())
      ends = columns[[gap, min(gap + 1, len(columns) - 1)]]
      found.append((row, (ends if ends[1] > ends[0] + 1 else columns[[0, -1]]).mean()))
  return np.reshape(found, (-1, 2)).astype(float)
