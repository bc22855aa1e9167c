"""Tables of the corners of vertebral bodies on X-rays: text and MATLAB files.

Points are (x, y) in pixels of the image. Pixel centers are whole numbers and y points down.
"""
import math
import os
import pathlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from spinejax.readers import contents

TABLES = ('.csv', '.mat')

_MATLAB_NAME = 'p2'  # array of the 68 corners in the files of AASCE
_MATRIX, _COMPRESSED = 14, 15  # types of the elements of a MATLAB file
_MATLAB_TYPES = {1: 'i1', 2: 'u1', 3: '<i2', 4: '<u2', 5: '<i4', 6: '<u4', 7: '<f4', 9: '<f8',
                 12: '<i8', 13: '<u8'}
_MOST_BYTES = 1 << 24  # of an array
_LARGEST_FRACTION = 1.5  # numbers up to here are fractions of the image's size, else pixels
_OUTSIDE = 0.05  # of the image's size that a corner may lie beyond its edge
_LEAST_STEP = 0.2  # of the median step down from one vertebra to the next


def is_table(path: str | os.PathLike) -> bool:
  """Whether the suffix is one of `TABLES`."""
  return bool(contents.suffix_of(path, TABLES))


def read_corners(path: str | os.PathLike, size: Sequence[int], line: int = 0
                 ) -> tuple[np.ndarray, tuple[str, ...]]:
  """Reads the four corners of each vertebral body, as the AASCE challenge of 2019 stores them.

  A text file holds one line of 136 numbers, x1..x68 then y1..y68 (as each line of landmarks.csv of
  AASCE) or x1,y1..x68,y68; or a line x,y for each corner, with or without a heading. A MATLAB file
  holds an array p2 [68,2] or a single array. The numbers are fractions of the width and height if
  none is above 1.5, else pixels from 0. The bodies (17: T1 to L5; any number from 2) and the
  corners of a body may be in any order; bodies are sorted from top to bottom.

  Args:
    path: .csv or .mat.
    size: (height, width) of the image.
    line: of a text file with a line for each image, from 1; 0: the file belongs to one image.

  Returns:
    float64 [n,4,2] pixels: top left, top right, bottom left, bottom right; and notes in words.

  Raises:
    FileNotFoundError, ValueError: no such file, or another content; numbers that are not finite or
      not four corners a body; bodies that do not run down the image; corners far outside of it.
  """
  path = pathlib.Path(path)
  numbers = _read_matlab(path) if path.suffix.lower() == '.mat' else _read_text(path, line)
  where = f'{path} line {line}' if line else str(path)
  if numbers.size < 16 or numbers.size % 8:
    raise ValueError(f'{where}: expected 68 corners (17 vertebrae of 4, 136 numbers), found '
                     f'{numbers.size} numbers.')
  if not np.isfinite(numbers).all():
    raise ValueError(f'{where}: the corners must be finite numbers.')
  notes = []
  readings = [numbers] if numbers.ndim == 2 else [numbers.reshape(2, -1).T, numbers.reshape(-1, 2)]
  points = min(readings, key=_body_height)  # bodies are taller if x and y are mixed up
  heights = points.reshape(-1, 4, 2)[..., 1].mean(1)
  steps = np.diff(np.sort(heights))
  if steps.min() <= _LEAST_STEP * np.median(steps):
    raise ValueError(f'{where}: the vertebrae do not run from top to bottom; expected the corners '
                     'of one after the other, x1..x68 then y1..y68, or x,y for each.')
  moved = np.argsort(heights)
  points = points.reshape(-1, 4, 2)[moved].reshape(-1, 2)
  if (moved != np.arange(len(moved))).any():
    notes = ['turned to run from top to bottom' if (np.diff(moved) == -1).all()
             else 'vertebrae put in order from top to bottom']
  fractions = np.abs(points).max() <= _LARGEST_FRACTION
  scale = np.array([size[1], size[0]], np.float64)
  points = points * scale if fractions else points
  beyond = ((points < -_OUTSIDE * scale) | (points > (1 + _OUTSIDE) * scale)).any(1)
  if beyond.any():
    x, y = points[beyond.argmax()]
    raise ValueError(f'{where}: {int(beyond.sum())} of {len(points)} corners lie outside of the '
                     f'image of {scale[1]:g} x {scale[0]:g} (height x width), such as x '
                     f'{x:.6g}, y {y:.6g}; is it the table of another image?')
  corners = points.reshape(-1, 4, 2)
  ordered = order_corners(corners)
  changed = int((ordered != corners).any((1, 2)).sum())
  notes.insert(0, f'{len(corners)} vertebrae in '
               f'{"fractions of the image" if fractions else "pixels"}')
  notes += [f'corners of {changed} put in order'] if changed else []
  return ordered, tuple(notes)


def _body_height(points: np.ndarray) -> float:
  """Mean height of the bodies, as a share of that of the spine; infinite without height."""
  y = points[:, 1]
  whole = float(np.ptp(y))
  return float(np.ptp(y.reshape(-1, 4), 1).mean()) / whole if whole else math.inf


def order_corners(points: np.ndarray) -> np.ndarray:
  """Sorts the corners of every body: top left, top right, bottom left, bottom right.

  Top is towards the previous body. Left and right are those of a viewer who looks down along the
  spine with its head up, so a body may be tilted by any angle. A body whose corners may be in this
  order keeps it, whatever its shape. The points [n,4,2] are of n >= 2 bodies from top to bottom,
  with their corners in any order.
  """
  centers = points.mean(1)
  ahead = np.gradient(centers, axis=0)
  ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
  across = np.stack([ahead[:, 1], -ahead[:, 0]], -1)
  down, right = (np.einsum('npc,nc->np', points - centers[:, None], axis)
                 for axis in (ahead, across))
  is_lower = np.argsort(np.argsort(down, 1, kind='stable'), 1) >= 2
  rank = np.lexsort((down, right, is_lower))
  kept = ((right[:, 1::2] > right[:, ::2]).all(1) & (down[:, 2:] > down[:, :2]).all(1))
  rank = np.where(kept[:, None], np.arange(4), rank)
  return np.take_along_axis(points, rank[..., None], 1)


def _read_text(path: pathlib.Path, line: int) -> np.ndarray:
  """Numbers of a text file (of one line of it, from 1): points [n,2], or in one row."""
  lines = [row for row in contents.read_text(path).splitlines() if row.strip(' ,;\t')]
  if line:
    if line > len(lines):
      raise ValueError(f'{path}: the table has {len(lines)} lines; expected one an image.')
    lines = lines[line - 1:line]
  rows, is_yx = [], False
  for number, row in enumerate(lines, line or 1):
    cells = [cell for cell in re.split(r'[,;\s]+', row.strip(' ,;\t')) if cell]
    try:
      rows.append([float(cell) for cell in cells])
    except ValueError:
      if rows or len(lines) == 1:
        raise ValueError(f'{path} line {number}: expected numbers only.') from None
      is_yx = [cell.strip('"\'').lower() for cell in cells] == ['y', 'x']
  if rows and all(len(row) == 2 for row in rows):
    return np.array(rows, np.float64)[:, ::-1] if is_yx else np.array(rows, np.float64)
  if len(rows) != 1:
    raise ValueError(f'{path}: expected one line of 136 numbers (x1 to x68, y1 to y68), or a line '
                     'x,y for each of 68 corners.')
  return np.array(rows[0], np.float64)


def _read_matlab(path: pathlib.Path) -> np.ndarray:
  """The array p2, or the only one that may be it: points [n,2], or in one row.

  The file is parsed here because a damaged one ends the process inside of `scipy.io.loadmat`.
  """
  content = contents.read_bytes(path)
  if content[:10] != b'MATLAB 5.0' or content[126:128] != b'IM':
    raise ValueError(f'{path}: this is not a MATLAB file of version 5 to 7; save it with -v7.')
  try:
    arrays = _matlab_arrays(content)
  except (ValueError, struct.error, zlib.error):
    raise ValueError(f'{path}: the MATLAB file is truncated or corrupt.') from None
  arrays = {name: array for name, array in arrays.items() if array.size > 7}
  if len(arrays) != 1 and _MATLAB_NAME not in arrays:
    raise ValueError(f'{path}: expected an array {_MATLAB_NAME} of 68 x 2 corners, found '
                     f'{len(arrays)} arrays of numbers.')
  array = arrays.get(_MATLAB_NAME, [*arrays.values()][0]).astype(np.float64)
  return array if array.shape[1] == 2 else array.reshape(-1)


def _matlab_arrays(content: bytes) -> dict[str, np.ndarray]:
  """Arrays of real numbers with two axes, by name; ValueError or struct.error if damaged."""
  arrays = {}
  for kind, data in _elements(content[128:]):
    if kind == _COMPRESSED:
      inflated = zlib.decompressobj().decompress(data, _MOST_BYTES)
      kind, data = next(_elements(inflated), (0, b''))
    parts = list(_elements(data)) if kind == _MATRIX else []
    if len(parts) < 4 or parts[3][0] not in _MATLAB_TYPES:
      continue  # text, cells, structures
    shape = np.frombuffer(parts[1][1], '<i4').tolist()
    values = np.frombuffer(parts[3][1], _MATLAB_TYPES[parts[3][0]])
    if len(shape) == 2 and min(shape) > 0 and shape[0] * shape[1] == values.size:
      arrays[parts[2][1].decode('ascii', 'replace')] = values.reshape(shape, order='F')
  return arrays


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
  """(type, data) of the elements of a MATLAB 5 file, as far as the content reaches."""
  place = 0
  while place + 8 <= len(content):
    kind, size = struct.unpack_from('<II', content, place)
    if kind >> 16:  # an element of up to four bytes, inside of its tag
      yield kind & 0xffff, content[place + 4:place + 4 + min(kind >> 16, 4)]
      place += 8
    else:
      yield kind, content[place + 8:place + 8 + size]
      place += 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
