"""The truth of an X-ray phantom, and its trimap."""
import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves
from spinejax.phantoms import truth as common
from spinejax.phantoms.xrays.anatomy import Anatomy, Grid

BACKGROUND, SPINE, BORDER = range(3)
BORDER_WIDTH = 3.375  # mm: 3 of 160 columns of an image 180 mm wide


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class XrayTruth(common.Truth):
  """`Truth` of an X-ray phantom; positions are (row, column).

  Attributes:
    centerline_cobb: curves by the extremes rule, from the direction of the centerline.
    landmarks: [68, 2] corners of the bodies in the order of AASCE: at each level top left, top
      right, bottom left, bottom right.
    centerline: [201, 2] from the upper face of T1 to the lower face of L5.
    centerline_tilts: [201].
    rotation: [17] shift of the spinous process in half widths, positive to the right.
    artifacts: whether each artifact is present.
  """
  centerline_cobb: list[curves.Curve]
  landmarks: np.ndarray
  centerline: np.ndarray
  centerline_tilts: np.ndarray
  rotation: np.ndarray
  artifacts: dict[str, bool]


def find_truth(anatomy: Anatomy, grid: Grid, **rest: Any) -> XrayTruth:
  """The truth of an anatomy in pixels of the grid; `rest` are the other fields."""
  spine = anatomy.spine

  def to_pixels(points):
    return (points - (grid.y[0], grid.x[0])) / grid.pixel

  u = np.linspace(0, 1, 201)
  rows, columns, tilts = (np.interp(u, spine.path_u, profile)
                          for profile in (anatomy.rows, anatomy.path, spine.path_tilts))
  names = [curves.LEVELS[i] for i in np.abs(u[:, None] - spine.u).argmin(1)]
  cos, sin = np.cos(np.radians(spine.tilts)), np.sin(np.radians(spine.tilts))
  right = np.stack([-sin, cos], -1) * (0.95 * anatomy.half_widths)[:, None]
  down = np.stack([cos, sin], -1) * (0.97 * anatomy.half_heights)[:, None]
  corners = np.stack([anatomy.vertebrae + i * down + j * right
                      for i in (-1, 1) for j in (-1, 1)], 1)
  return XrayTruth(
      **common.truth_of_spine(spine), **rest, spacing=(grid.pixel, grid.pixel),
      centerline_cobb=curves.curve_angles(tilts, names), rotation=anatomy.rotation,
      vertebrae=to_pixels(anatomy.vertebrae), landmarks=to_pixels(corners.reshape(68, 2)),
      centerline=to_pixels(np.stack([rows, columns], -1)), centerline_tilts=tilts)


def draw_label(column: np.ndarray, grid: Grid) -> np.ndarray:
  """Trimap uint8 [H,W] of a silhouette, with a border of at least two pixels."""
  inside = np.flatnonzero(column.any(0))
  margin = 3 + int(BORDER_WIDTH / grid.pixel)
  part = slice(max(0, inside[0] - margin), inside[-1] + 1 + margin)
  column = np.pad(column[:, part], 1, mode='edge')
  distance = ndimage.distance_transform_edt(column) - ndimage.distance_transform_edt(~column)
  distance = distance - np.sign(distance) / 2
  half = max(BORDER_WIDTH / 2 / grid.pixel, 1.0)
  trimap = np.where(distance > half, SPINE, np.where(distance > -half, BORDER, BACKGROUND))
  label = np.zeros((len(grid.y), len(grid.x)), np.uint8)
  label[:, part] = trimap[1:-1, 1:-1]
  return label
