"""Converts arrays and points between the axes of a volume file and ours.

Our axes are (I, L, A): axis 0 of an array [D,H,W] points to inferior, axis 1 to the patient's left,
axis 2 from the skin of the back to anterior. Positions are mm in LPS, the patient system of DICOM
and ITK. Arrays are turned by permuting and flipping axes. Nothing is interpolated. Points [...,3]
are voxels of the array in our axes, with centers at whole numbers, and may be none.
"""
import itertools
import os
from typing import NamedTuple

import numpy as np

AXES = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], np.float64)  # rows I, L, A in LPS

_LETTERS = {'L': (1, 0, 0), 'R': (-1, 0, 0), 'P': (0, 1, 0), 'A': (0, -1, 0), 'S': (0, 0, 1),
            'I': (0, 0, -1)}
_SAME_GRID = 0.1  # voxels that a corner of an image and of its mask may differ by


class Geometry(NamedTuple):
  """The place of a file in space, and how its axes map to ours."""
  shape: tuple[int, ...]  # voxels along the axes (i, j, k) of the file, in the order of ITK
  order: tuple[int, ...]  # axis of the file for axis 0, 1 and 2 of the array
  flips: tuple[bool, ...]  # whether the array runs against that axis
  spacing: np.ndarray  # float64 [3] mm along the axes of the file; NaN where unknown
  origin: np.ndarray  # float64 [3] mm, LPS position of the file's first voxel
  direction: np.ndarray  # float64 [3,3], columns are the LPS directions of the file's axes


def directions(axes: str) -> np.ndarray:
  """LPS directions named by three letters such as 'RAS', as columns of a [3,3]."""
  letters = axes.upper()
  if len(letters) != 3 or any(len(set(letters) & set(pair)) != 1 for pair in ('LR', 'PA', 'SI')):
    raise ValueError('axes must be three letters, one of L or R, one of P or A and one of S or I, '
                     f"such as 'RAS', not {axes!r}.")
  return np.array([_LETTERS[letter] for letter in letters], np.float64).T


def orient(direction: np.ndarray, axes: np.ndarray = AXES
           ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
  """Order and flips of `Geometry` that bring a file's axes nearest to `axes`.

  `direction` [3,3] has the LPS directions of the file's axes as columns, `axes` the wanted LPS
  directions as rows.
  """
  cosine = axes @ direction
  order = max(itertools.permutations(range(3)),
              key=lambda order: sum(abs(cosine[a, f]) for a, f in enumerate(order)))
  return order, tuple(bool(cosine[a, f] < 0) for a, f in enumerate(order))


def shape_of(geometry: Geometry) -> tuple[int, ...]:
  """Shape (D, H, W) of the array in our axes."""
  return tuple(geometry.shape[f] for f in geometry.order)


def spacing_of(geometry: Geometry) -> np.ndarray:
  """Spacing in mm along our axes, float64 [3]; NaN where unknown."""
  return np.asarray(geometry.spacing, np.float64)[list(geometry.order)]


def _flip(array: np.ndarray, geometry: Geometry) -> np.ndarray:
  return np.flip(array, tuple(axis for axis, flip in enumerate(geometry.flips) if flip))


def to_array(array: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Turns an array from the axes (i, j, k) of the file to ours [D,H,W]."""
  return np.ascontiguousarray(_flip(array.transpose(geometry.order), geometry))


def to_file(array: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Turns an array [D,H,W] from our axes to the axes (i, j, k) of the file."""
  return np.ascontiguousarray(_flip(array, geometry).transpose(np.argsort(geometry.order)))


def to_index(points: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Converts points to indices (i, j, k) of the file, float64 [...,3]."""
  points = np.asarray(points, np.float64)
  last = np.subtract(shape_of(geometry), 1)
  return np.where(geometry.flips, last - points, points)[..., np.argsort(geometry.order)]


def from_index(index: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Converts indices (i, j, k) of the file [...,3] to points, float64 [...,3]."""
  points = np.asarray(index, np.float64)[..., list(geometry.order)]
  return np.where(geometry.flips, np.subtract(shape_of(geometry), 1) - points, points)


def inside(points: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Whether points lie in the volume, bool [...]."""
  last = np.subtract(shape_of(geometry), 1)
  return np.all((points >= -0.5) & (points <= last + 0.5), axis=-1)


def has_spacing(geometry: Geometry) -> bool:
  """Whether positions in mm are known."""
  return bool(np.isfinite(geometry.spacing).all())


def _require_spacing(geometry: Geometry) -> None:
  if not has_spacing(geometry):
    raise ValueError('the volume has no spacing, so there are no positions in mm; write '
                     'the spacing into its file, or work in voxels.')


def to_physical(points: np.ndarray, geometry: Geometry) -> np.ndarray:
  """LPS position = origin + direction (spacing * index), mm; ValueError without a spacing."""
  _require_spacing(geometry)
  return geometry.origin + (to_index(points, geometry) * geometry.spacing) @ geometry.direction.T


def to_voxels(positions: np.ndarray, geometry: Geometry) -> np.ndarray:
  """Converts LPS positions [...,3] in mm to points; inverse of `to_physical`, with its errors."""
  _require_spacing(geometry)
  moved = np.asarray(positions, np.float64) - geometry.origin
  return from_index(moved @ np.linalg.inv(geometry.direction).T / geometry.spacing, geometry)


def check_same_grid(path: str | os.PathLike, mask: Geometry, image: Geometry) -> None:
  """Raises ValueError unless an image and its mask have the same shape and place.

  Places may differ by a tenth of a voxel. They are compared if both files have a spacing.
  """
  if shape_of(mask) != shape_of(image):
    raise ValueError(f'{path}: the mask has {shape_of(mask)} voxels (inferior, left, anterior), '
                     f'but its image {shape_of(image)}; save the mask on the grid of its image.')
  if not (has_spacing(mask) and has_spacing(image)):
    return
  corners = np.array(list(itertools.product(*((0, n - 1) for n in shape_of(image)))), np.float64)
  apart = np.linalg.norm(to_physical(corners, mask) - to_physical(corners, image), axis=-1).max()
  if apart > _SAME_GRID * image.spacing.min():
    raise ValueError(f'{path}: the mask lies up to {apart:.3g} mm away from its image (another '
                     'origin, spacing or direction); save it with the geometry of its image.')
