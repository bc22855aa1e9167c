"""Place of a mask in space and names of its classes, as all formats need them.

Positions are in mm in LPS, the patient coordinates of DICOM and ITK: x to the patient's left, y to
posterior, z to superior.
"""
from collections.abc import Sequence

import numpy as np

from spinejax import colors
from spinejax.measurement.spacing import Spacing, check_spacing
from spinejax.readers import orientation
from spinejax.readers.orientation import Geometry

AXES = 'LIP'  # of images: columns to the patient's left, rows to inferior, slice to posterior


def image_geometry(shape: Sequence[int], spacing: Spacing, axes: str = AXES) -> Geometry:
  """The geometry of an image [H,W] as a volume of one slice with the axes (column, row, slice).

  The center of pixel (row 0, column 0) is the origin, and the slice is 1 mm thick.

  Args:
    shape: (H, W).
    spacing: mm per pixel (y, x), or one number for square pixels.
    axes: directions in which columns, rows and the slice grow, right-handed. 'LIP' is a coronal
      image with the patient's left at its right and the feet at its bottom, 'RIA' the same seen
      from behind. 'LPS' is where 3D Slicer and ITK place a PNG, or an X-ray without a position.

  Raises:
    ValueError: an unknown spacing; axes that are not three directions, or left-handed.
  """
  steps = check_spacing(spacing, 2)
  if steps is None:
    raise ValueError('the spacing of the image is unknown, so its files have no place in space; '
                     'give mm per pixel.')
  direction = orientation.directions(axes)
  if np.linalg.det(direction) < 0:
    raise ValueError(f'the axes {axes!r} are left-handed, which not every program can read; '
                     'reverse the last letter, the direction of the slice.')
  rows, columns = shape
  return Geometry((columns, rows, 1), (1, 0, 2), (False, False, False),
                  np.array([steps[1], steps[0], 1.0]), np.zeros(3), direction)


def require_spacing(geometry: Geometry) -> None:
  """Raises ValueError if the spacing of a volume is unknown."""
  if not orientation.has_spacing(geometry):
    raise ValueError('the volume has no spacing, so its files have no place in space; write the '
                     'spacing into its file.')


def spacing_of(geometry: Geometry) -> np.ndarray:
  """Spacing along the axes of the array in mm, float64 [3]."""
  return np.asarray(geometry.spacing, np.float64)[list(geometry.order)]


def class_names(classes: Sequence[str], mask: np.ndarray) -> list[str]:
  """Names of the foreground classes, each on one line; ValueError if a label has no class."""
  highest = int(mask.max(initial=0))
  if classes and highest >= len(classes):
    raise ValueError(f'the mask has the label {highest}, but there are {len(classes)} classes.')
  names = [str(name) for name in classes[1:]] or [f'class {i}' for i in range(1, highest + 1)]
  return [one_line(name) or f'class {i}' for i, name in enumerate(names, 1)]


def one_line(text: str) -> str:
  """The words of a text on one line, without control characters."""
  return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())


def color_fractions(color: str) -> list[float]:
  """Red, green and blue (0 to 1) of a color '#rrggbb'."""
  return [round(value / 255, 6) for value in colors.color_bytes(color)]
