"""Processes and lumps of a mask that has one class for all bones, told apart by their place."""
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spinejax.measurement import find, flags

PositionAt = Callable[[np.ndarray], np.ndarray]  # y [n] mm -> x [n] mm
_NO_RAILS = 'the bones of one class do not lie as processes beside a spine and lumps on it'


def tell_apart(mask: np.ndarray, spacing: np.ndarray) -> tuple[find.Blobs, find.Blobs]:
  """The processes and the lumps of a mask [H,W].

  A rough midline runs through the widest gap of every row. Blobs on it are lumps. All others are
  ribs with their processes and lie on a rail to its left or right. A process is the part of its
  blob nearest to the spine, as wide as the inner edges of the rails are distant from the midline.
  Raises NoAngle if the blobs do not lie on a midline and two rails.
  """
  centers, blobs = find.find_blobs(mask, spacing, smallest=0.1)
  flags.require(len(blobs) >= 6 and np.ptp(centers[:, 0]) > 0, _NO_RAILS)
  window = int(np.median([np.ptp(blob[:, 0]) for blob in blobs])) | 1
  sides, offs, offset, midline = _fit_rails(centers, rough_midline(mask, spacing, window))
  is_lump, parts, edges = np.zeros(len(blobs), bool), [], []
  for i, (blob, side, off) in enumerate(zip(blobs, sides, offs)):
    away = blob[:, 1] * spacing[1] - midline(blob[:, 0] * spacing[0])
    if not side and min(away.max(), -away.min()) > 0.3 * offset:
      is_lump[i] = True
      continue
    away *= side or np.sign(off)
    row = blob[:, 0] - blob[0, 0]
    edge = np.full(row[-1] + 1, np.inf)  # of the blob toward the midline, mm, by row
    np.minimum.at(edge, row, away)
    edges.append(edge.min())
    # The edge is sought in a window of rows, so that each of two fused blobs keeps its process.
    parts.append((blob, away - ndimage.minimum_filter1d(edge, window // 2 | 1)[row]))
  inner = np.zeros_like(mask)
  for blob, depth in parts:
    inner[tuple(blob[depth < np.median(edges)].T)] = True
  lumps = find.Blobs(centers[is_lump], [blobs[i] for i in np.flatnonzero(is_lump)])
  return find.find_blobs(inner, spacing, split=True), lumps


def _fit_rails(centers: np.ndarray,
               midline: PositionAt) -> tuple[np.ndarray, np.ndarray, float, PositionAt]:
  """Fits x = quartic(y) + offset * side to the centers [n, 2] in mm until no side changes.

  Returns side [n] (0 on the midline), x - quartic(y) [n], offset and quartic. Raises NoAngle if a
  rail has fewer than 3 centers or if the centers lie far from their rails.
  """
  y, x = centers.T

  def powers(at):
    return np.vander((at - y[0]) / np.ptp(y) - 0.5, 5, increasing=True)

  side, offset = np.zeros(len(x)), 0.0
  for _ in range(8):
    off = x - midline(y)
    if not side.any():
      offset = float(np.median(np.abs(off)))
    previous, side = side, np.rint(off / offset).clip(-1, 1)
    if (side == previous).all():
      break
    *quartic, offset = np.linalg.lstsq(np.column_stack([powers(y), side]), x, rcond=None)[0]
    def midline(at):
      return powers(at) @ quartic
  flags.require(min((side < 0).sum(), (side > 0).sum()) >= 3
                and np.median(np.abs(off - offset * side)) <= 0.3 * offset, _NO_RAILS)
  return side, off, offset, midline


def rough_midline(mask: np.ndarray, spacing: np.ndarray, window: int) -> PositionAt:
  """x = quartic(y) in mm with the least absolute deviation from the widest gaps of a mask's rows.

  The mask [H,W] is not empty. `window` rows are seen together. The quartic is constant beyond the
  ends of the mask.
  """
  middles = []  # of each row's widest gap between runs, or of its only run
  for row, line in enumerate(ndimage.maximum_filter1d(mask.view(np.uint8), window, axis=0)):
    columns = np.flatnonzero(line)
    if len(columns):
      gap = int(np.diff(columns, append=columns[-1]).argmax())
      ends = columns[[gap, min(gap + 1, len(columns) - 1)]]
      middles.append((row, (ends if ends[1] > ends[0] + 1 else columns[[0, -1]]).mean()))
  gaps = np.array(middles, float) * spacing
  filled = np.flatnonzero(mask.any(1)) * spacing[0]
  top, height = filled[0], max(float(np.ptp(filled)), spacing[0])
  gaps = gaps[(gaps[:, 0] >= top) & (gaps[:, 0] <= top + height)]

  def powers(y):
    return np.vander(((y - top) / height).clip(0, 1) - 0.5, 5, increasing=True)

  rows, weights = powers(gaps[:, 0]), np.ones(len(gaps))
  for _ in range(20):
    quartic = np.linalg.lstsq(rows * weights[:, None], gaps[:, 1] * weights, rcond=None)[0]
    weights = (spacing[1] + np.abs(gaps[:, 1] - rows @ quartic))**-0.5
  return lambda y: powers(y) @ quartic
