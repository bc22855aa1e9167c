"""The truth of a VPI phantom."""
import dataclasses
from typing import Any

import numpy as np

from spinejax.phantoms import curves
from spinejax.phantoms import truth as common
from spinejax.phantoms.vpi_images.anatomy import LUMP, SCANNER_SHAPE, Anatomy, Bone, outline


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VpiTruth(common.Truth):
  """`Truth` of a VPI phantom; positions are (row, column).

  Attributes:
    uca: curves by the extremes rule, from the lines through the exact pairs of landmarks.
    processes: [12, 2, 2] level, left and right, position of the thoracic processes; NaN where out
      of view.
    lumps: [5, 2] centroids of the lumps L1..L5.
    lump_halves: [5, 2, 2] level, left and right, centroids of their halves.
    hole_fraction: fraction of the strip that the sweep missed.
  """
  uca: list[curves.Curve]
  processes: np.ndarray
  lumps: np.ndarray
  lump_halves: np.ndarray
  hole_fraction: float


def find_truth(anatomy: Anatomy, *, shape: tuple[int, ...], **rest: Any) -> VpiTruth:
  """The truth of an anatomy, in pixels of `shape`; `rest` are the other fields."""
  seen = anatomy.in_view(*np.moveaxis(anatomy.processes, -1, 0))
  processes = np.where(seen[..., None], anatomy.processes, np.nan)
  lumps = np.stack([_lump_halves(bone) for bone in anatomy.bones if bone.kind == LUMP])
  pairs = np.concatenate([processes, lumps])
  dy, dx = np.moveaxis(pairs[:, 1] - pairs[:, 0], -1, 0)
  found = np.flatnonzero(np.isfinite(dy))
  lines = -np.degrees(np.arctan2(dy, dx))[found]
  scale = np.array(shape) / SCANNER_SHAPE
  return VpiTruth(
      **common.truth_of_spine(anatomy.spine), shape=shape,
      uca=curves.curve_angles(lines, [curves.LEVELS[i] for i in found]),
      vertebrae=anatomy.vertebrae * scale - 0.5, processes=processes * scale - 0.5,
      lumps=lumps.mean(1) * scale - 0.5, lump_halves=lumps * scale - 0.5, **rest)


def _lump_halves(bone: Bone) -> np.ndarray:
  """Centroids (y, x) of the left and right half of a lump, [2, 2] in scanner pixels."""
  b, a = np.mgrid[-110:110:2, 1:170:2].astype(np.float32)
  inside = outline(bone, a, b) < 1
  a, b = a[inside].mean(dtype=float), b[inside].mean(dtype=float)
  angle = np.radians(bone.turn)
  return np.array(bone.center) + np.array([
      (s * a * np.sin(angle) + b * np.cos(angle), s * a * np.cos(angle) - b * np.sin(angle))
      for s in (-1, 1)])
