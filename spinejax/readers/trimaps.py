"""Trimaps of the spine (0 background, 1 core, 2 border) from vertebra masks and corner landmarks.

Points are (x, y) in pixels of the image, pixel centers at whole numbers, y down.
"""
import math
import os
import pathlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from scipy import spatial

BACKGROUND, CORE, BORDER = 0, 1, 2
TABLES = ('.csv', '.mat')
DRAWN = ('trimap', 'column', 'bodies', 'levels')  # from vertebrae
LABELS = ('mask', *DRAWN)
BORDER_WIDTH = 0.02  # of the image's width

_MATLAB_NAME = 'p2'  # of the 68 points in the files of AASCE
_MATRIX, _COMPRESSED = 14, 15  # elements of a MATLAB file
_MATLAB_TYPES = {1: 'i1', 2: 'u1', 3: '<i2', 4: '<u2', 5: '<i4', 6: '<u4', 7: '<f4', 9: '<f8',
                 12: '<i8', 13: '<u8'}
_MOST_BYTES = 1 << 24  # of an array
_OUTSIDE = 0.05  # of the image's size that a landmark may lie beyond its edge
_SPECK = 0.1  # of the median area of a body; smaller pieces of a mask are no bodies
_IN_ORDER = 0.9  # of the steps between vertebrae that must lead down


def is_table(path: str | os.PathLike) -> bool:
  """Whether a file is a table of corners by its suffix."""
  return pathlib.Path(path).suffix.lower() in TABLES


def check_labels(labels: str, border: float) -> None:
  """Raises ValueError unless labels is '' or one of LABELS and the border a fraction."""
  if labels and labels not in LABELS:
    raise ValueError(f"data.labels must be one of {', '.join(LABELS)}, or '' to go by the number "
                     f'of classes, not {labels!r}.')
  if not 0 < border <= 0.5:
    raise ValueError("data.border is the width of the border as a fraction of the image's width, "
                     f'above 0 and at most 0.5, not {border}.')


# ------------------------------------------------------------------------------------- shapes


def fill_polygons(polygons: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
  """The union of polygons, each filled by the even-odd rule.

  A pixel belongs to a polygon if its center does; of the centers on an edge those on the left and
  upper edges do, so polygons that share an edge share no pixel.

  Args:
    polygons: [m,2] points each, none outside of int32 range; may reach over the image.
    size: (H, W).

  Returns:
    bool [H,W].
  """
  height, width = size
  filled = np.zeros((height, width), bool)
  for polygon in polygons:
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, 0).T
    top, bottom = max(math.ceil(y0.min()), 0), min(math.ceil(y0.max()), height)
    left, right = max(math.ceil(x0.min()), 0), min(math.ceil(x0.max()), width)
    if top >= bottom or left >= right:
      continue
    rows = np.arange(top, bottom)[:, None]
    row, edge = np.nonzero((y0 <= rows) != (y1 <= rows))
    slope = (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.ceil(x0[edge] + slope * (row + top - y0[edge]))
    crossings = np.zeros((bottom - top, right - left + 1), np.int32)
    np.add.at(crossings, (row, np.clip(column - left, 0, right - left).astype(int)), 1)
    filled[top:bottom, left:right] |= (crossings.cumsum(1)[:, :-1] % 2).astype(bool)
  return filled


def make_trimap(spine: np.ndarray, width: float) -> np.ndarray:
  """The trimap of a mask: a border of `width` pixels along its outline, half of it on either side.

  A pixel whose center lies less than width / 2 from the outline (which runs between pixels) is
  border. The edges of the image are no outline.

  Args:
    spine: bool [H,W]; may be empty.
    width: pixels.

  Returns:
    uint8 [H,W]: 0 background, 1 core, 2 border.
  """
  label = np.zeros(spine.shape, np.uint8)
  if not spine.any():
    return label
  margin = math.ceil(width) + 1
  box = tuple(slice(max(int(line[0]) - margin, 0), int(line[-1]) + margin + 1)
              for line in (np.flatnonzero(spine.any(axis)) for axis in (1, 0)))
  inside = spine[box]
  reach = width / 2 + 0.5  # from center to center
  border = np.zeros(inside.shape, bool)
  if not inside.all():
    border = ((ndimage.distance_transform_edt(~inside) < reach)
              & (ndimage.distance_transform_edt(inside) < reach))
  label[box] = np.where(border, BORDER, np.where(inside, CORE, BACKGROUND))
  return label


def column_polygons(corners: np.ndarray) -> list[np.ndarray]:
  """Quadrilaterals of the bodies and of the discs between them, which join into the spine column.

  Args:
    corners: [n,4,2], top left, top right, bottom left, bottom right of bodies from top to bottom.
  """
  discs = np.concatenate([corners[:-1, 2:], corners[1:, :2]], 1)
  return [quad[[0, 1, 3, 2]] for quad in (*corners, *discs)]


def order_corners(points: np.ndarray) -> np.ndarray:
  """Corners of every body as top left, top right, bottom left, bottom right along the spine.

  Top is towards the body before, left to the left of somebody who looks at the picture down along
  the spine with the head up; so a body may be tilted by any angle.

  Args:
    points: [n,4,2], bodies from top to bottom, n >= 2, corners in any order.
  """
  centers = points.mean(1)
  ahead = np.gradient(centers, axis=0)
  ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
  across = np.stack([ahead[:, 1], -ahead[:, 0]], -1)
  offset = points - centers[:, None]
  along = np.einsum('npc,nc->np', offset, ahead)
  rank = np.argsort(along, 1, kind='stable')
  ordered = np.take_along_axis(points, rank[..., None], 1).reshape(-1, 2, 2, 2)
  sideways = np.einsum('nepc,nc->nep', ordered - centers[:, None, None], across)
  rank = np.argsort(sideways, -1, kind='stable')
  return np.take_along_axis(ordered, rank[..., None], 2).reshape(-1, 4, 2)


# ------------------------------------------------------------------------------------- landmarks


def _read_text(path: pathlib.Path, line: int) -> tuple[np.ndarray, bool]:
  """Numbers of a text file (of one line of it, from 1), and whether they are rows of x,y."""
  try:
    text = path.read_text(encoding='utf-8-sig')
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: there is no such file.') from None
  except (OSError, UnicodeDecodeError):
    raise ValueError(f'{path}: the table cannot be read as UTF-8 text.') from None
  lines = [row for row in text.splitlines() if row.strip(' ,;\t')]
  if line:
    if line > len(lines):
      raise ValueError(f'{path}: the table has {len(lines)} lines; expected one an image.')
    lines = lines[line - 1:line]
  rows, swap = [], False
  for number, row in enumerate(lines, line or 1):
    cells = [cell for cell in re.split(r'[,;\s]+', row.strip(' ,;\t')) if cell]
    try:
      rows.append([float(cell) for cell in cells])
    except ValueError:
      names = [cell.strip('"\'').lower() for cell in cells]
      if rows or len(lines) == 1:
        raise ValueError(f'{path} line {number}: expected numbers only.') from None
      swap = names == ['y', 'x']
  if rows and all(len(row) == 2 for row in rows):
    points = np.array(rows, np.float64)
    return points[:, ::-1] if swap else points, True
  if len(rows) != 1:
    raise ValueError(f'{path}: expected one line of 136 numbers (x1 to x68, y1 to y68), or a line '
                     'x,y for each of 68 corners.')
  return np.array(rows[0], np.float64), False


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
  """(type, data) of the data elements of a MATLAB 5 file; stops where the content does."""
  place = 0
  while place + 8 <= len(content):
    kind, size = struct.unpack_from('<II', content, place)
    if kind >> 16:  # up to four bytes in the tag itself
      yield kind & 0xffff, content[place + 4:place + 4 + min(kind >> 16, 4)]
      place += 8
    else:
      yield kind, content[place + 8:place + 8 + size]
      place += 8 + size + (-size % 8 if kind != _COMPRESSED else 0)


def _matlab_arrays(content: bytes) -> dict[str, np.ndarray]:
  """Arrays of real numbers of two axes by name; ValueError or struct.error of a damaged file."""
  arrays = {}
  for kind, data in _elements(content[128:]):
    if kind == _COMPRESSED:
      inflated = zlib.decompressobj().decompress(data, _MOST_BYTES)
      kind, data = next(_elements(inflated), (0, b''))
    if kind != _MATRIX:
      continue
    parts = list(_elements(data))
    if len(parts) < 4 or parts[3][0] not in _MATLAB_TYPES:
      continue  # text, cells, structures
    shape = np.frombuffer(parts[1][1], '<i4').tolist()
    values = np.frombuffer(parts[3][1], _MATLAB_TYPES[parts[3][0]])
    if len(shape) == 2 and min(shape) > 0 and shape[0] * shape[1] == values.size:
      arrays[parts[2][1].decode('ascii', 'replace')] = values.reshape(shape, order='F')
  return arrays


def _read_matlab(path: pathlib.Path) -> tuple[np.ndarray, bool]:
  """The array p2, or the only array that could be one; and whether its rows are x, y.

  Not by scipy, whose reader a damaged file can crash.
  """
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: there is no such file.') from None
  except OSError as error:
    raise ValueError(f'{path}: the file cannot be read ({error.strerror}).') from None
  if content[:10] != b'MATLAB 5.0' or content[126:128] != b'IM':
    raise ValueError(f'{path}: this is not a MATLAB file of version 5 to 7; save it with -v7.')
  try:
    arrays = _matlab_arrays(content)
  except (ValueError, struct.error, zlib.error):
    raise ValueError(f'{path}: the MATLAB file is truncated or corrupt.') from None
  arrays = {name: array for name, array in arrays.items() if array.size > 7}
  if _MATLAB_NAME in arrays:
    arrays = {_MATLAB_NAME: arrays[_MATLAB_NAME]}
  if len(arrays) != 1:
    raise ValueError(f'{path}: expected an array {_MATLAB_NAME} of 68 x 2 corners, found '
                     f'{len(arrays)} arrays of numbers.')
  array, = arrays.values()
  array = array.astype(np.float64)
  return (array, True) if array.shape[1] == 2 else (array.reshape(-1), False)


def _goes_down(points: np.ndarray) -> bool:
  steps = np.diff(points.reshape(-1, 4, 2).mean(1)[:, 1])
  return bool((steps > 0).mean() >= _IN_ORDER)


def _spread(points: np.ndarray) -> float:
  """Mean size of a body; small where x and y are not mixed up."""
  return float(np.ptp(points.reshape(-1, 4, 2), 1).sum(-1).mean())


def read_corners(path: str | os.PathLike, size: Sequence[int], line: int = 0
                 ) -> tuple[np.ndarray, tuple[str, ...]]:
  """Reads the corners of vertebral bodies, four each, as the AASCE challenge of 2019 stores them.

  Files: a text file of one line of 136 numbers, x1..x68 then y1..y68 (landmarks.csv of AASCE, of
  which `line` picks one) or x1,y1..x68,y68; or a line x,y for each corner, with or without a
  heading; or a MATLAB file with an array p2 [68,2] or a single array. The numbers are fractions of
  the width and height if none is above 1.5, else pixels from 0. Bodies run from top to bottom (17:
  T1 to L5; any number from 2 is read) or from bottom to top, and are turned; the corners of one may
  be in any order (see `order_corners`).

  Args:
    path: .csv or .mat.
    size: (height, width) of the image.
    line: of the table, from 1; 0 where the whole file belongs to the image.

  Returns:
    float64 [n,4,2] pixels: top left, top right, bottom left, bottom right; and what was read, in
    words.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another content; numbers that are not finite or not four a body; bodies that do not
      run down the image; corners far outside of it.
  """
  path = pathlib.Path(path)
  matlab = path.suffix.lower() == '.mat'
  numbers, paired = _read_matlab(path) if matlab else _read_text(path, line)
  where = f'{path} line {line}' if line else str(path)
  if numbers.size < 16 or numbers.size % 8:
    raise ValueError(f'{where}: expected 68 corners (17 vertebrae of 4, 136 numbers), found '
                     f'{numbers.size} numbers.')
  if not np.isfinite(numbers).all():
    raise ValueError(f'{where}: the corners must be finite numbers.')
  notes = []
  readings = [numbers] if paired else [numbers.reshape(2, -1).T, numbers.reshape(-1, 2)]
  upwards = [points[::-1] for points in readings if _goes_down(points[::-1])]
  found = [points for points in readings if _goes_down(points)]
  if not found and upwards:
    found, notes = upwards, ['turned to run from top to bottom']
  if not found:
    raise ValueError(f'{where}: the vertebrae do not run from top to bottom; expected the corners '
                     'of one after the other, x1..x68 then y1..y68, or x,y for each.')
  found = min(found, key=_spread)
  fractions = np.abs(found).max() <= 1.5
  scale = np.array([size[1], size[0]], np.float64)
  points = found * scale if fractions else found
  beyond = ((points < -_OUTSIDE * scale) | (points > (1 + _OUTSIDE) * scale)).any(1)
  if beyond.any():
    first = points[beyond.argmax()]
    raise ValueError(f'{where}: {int(beyond.sum())} of {len(points)} corners lie outside of the '
                     f'image of {size[0]} x {size[1]} (height x width), such as x {first[0]:.6g}, '
                     f'y {first[1]:.6g}; is it the table of another image?')
  corners = points.reshape(-1, 4, 2)
  ordered = order_corners(corners)
  changed = int((ordered != corners).any((1, 2)).sum())
  unit = 'fractions of the image' if fractions else 'pixels'
  notes.insert(0, f'{len(corners)} vertebrae in {unit}')
  notes += [f'corners of {changed} put in order'] if changed else []
  return ordered, tuple(notes)


# ------------------------------------------------------------------------------------- labels


def _labels_for(labels: str, num_labels: int | None) -> str:
  """The kind of label of a table of corners that goes with the number of labels."""
  if labels:
    return labels
  kinds = {2: 'column', 3: 'trimap', 18: 'levels'}
  if num_labels not in kinds:
    raise ValueError(f'corners of vertebrae become 2 labels (background, spine), 3 (background, '
                     f'spine, border) or 18 (background, T1 to L5), not {num_labels}; set '
                     'data.labels and the classes.')
  return kinds[num_labels]


def _check_count(labels: str, num_labels: int | None, most: int) -> None:
  if num_labels is not None and num_labels <= most:
    raise ValueError(f"labels '{labels}' need {most + 1} labels, background first, but there are "
                     f'{num_labels}.')


def label_corners(
    corners: np.ndarray, size: Sequence[int], labels: str = 'trimap',
    border: float = BORDER_WIDTH, num_labels: int | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels of an image from the corners of its vertebral bodies.

  Args:
    corners: [n,4,2] of `read_corners`.
    size: (H, W).
    labels: 'trimap': core and border of the spine column; 'column': 1 in the bodies and the discs
      between them; 'bodies': 1 in the bodies; 'levels': 1 to n from the first body to the last;
      '' as num_labels says.
    border: width of the trimap's border as a fraction of W; at least 2 pixels.
    num_labels: what the labels must fit into; None: anything.

  Returns:
    uint8 [H,W], and what was done, in words.

  Raises:
    ValueError: labels that do not fit.
  """
  labels = _labels_for(labels, num_labels)
  if labels == 'levels':
    _check_count(labels, num_labels, len(corners))
    label = np.zeros(tuple(size), np.uint8)
    for level, quad in enumerate(corners, 1):
      label[fill_polygons([quad[[0, 1, 3, 2]]], size)] = level
    return label, ()
  if labels == 'mask':
    raise ValueError("labels 'mask' take masks as they are; corners of vertebrae need 'trimap', "
                     "'column', 'bodies' or 'levels'.")
  quads = column_polygons(corners)
  spine = fill_polygons(quads[:len(corners)] if labels == 'bodies' else quads, size)
  return _finish(spine, labels, border, num_labels)


def _finish(spine: np.ndarray, labels: str, border: float, num_labels: int | None
            ) -> tuple[np.ndarray, tuple[str, ...]]:
  if labels != 'trimap':
    _check_count(labels, num_labels, 1)
    return spine.astype(np.uint8), ()
  _check_count(labels, num_labels, BORDER)
  width = max(2.0, border * spine.shape[1])
  return make_trimap(spine, width), (f'border {width:.3g} pixels wide',)


def find_bodies(mask: np.ndarray) -> list[np.ndarray]:
  """Pixels of every vertebral body, int [m,2] (x, y), from top to bottom.

  A mask of one value holds a body in each connected component (over edges and corners), a mask of
  several values one in each value. Pieces below a tenth of the median area are left out.

  Args:
    mask: integers [H,W], 0 = background.
  """
  values = np.flatnonzero(np.bincount(mask.reshape(-1)))
  if len(values[values > 0]) == 1:
    mask, count = ndimage.label(mask > 0, np.ones((3, 3)))
    values = np.arange(count + 1)
  boxes = ndimage.find_objects(mask)
  bodies = []
  for value in values[values > 0]:
    rows, columns = boxes[value - 1]
    y, x = np.nonzero(mask[rows, columns] == value)
    bodies.append(np.stack([x + columns.start, y + rows.start], -1))
  least = _SPECK * np.median([len(body) for body in bodies]) if bodies else 0
  return sorted((body for body in bodies if len(body) >= least), key=lambda b: b[:, 1].mean())


def join_bodies(bodies: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
  """The spine column: bodies and, between neighbors, the convex hull of their facing halves.

  Args:
    bodies: of `find_bodies`.
    size: (H, W).

  Returns:
    bool [H,W].
  """
  column = np.zeros(tuple(size), bool)
  for body in bodies:
    column[body[:, 1], body[:, 0]] = True
  if len(bodies) < 2:
    return column
  reach = 0.5 * math.sqrt(np.median([len(body) for body in bodies]))
  hulls = []
  for upper, lower in zip(bodies, bodies[1:]):
    ahead = lower.mean(0) - upper.mean(0)
    ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
    facing = [points[along >= along.max() - reach] for points, along in
              ((upper, upper @ ahead), (lower, -(lower @ ahead)))]
    points = np.concatenate(facing).astype(np.float64)
    points = np.concatenate([points + shift for shift in
                             ((-.5, -.5), (-.5, .5), (.5, -.5), (.5, .5))])
    hulls.append(points[spatial.ConvexHull(points).vertices])
  return column | fill_polygons(hulls, size)


def label_bodies(mask: np.ndarray, labels: str = 'trimap', border: float = BORDER_WIDTH,
                 num_labels: int | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels of an image from a mask of its vertebral bodies; as `label_corners`.

  Args:
    mask: integers [H,W]: binary, or a number for every vertebra; see `find_bodies`.
    labels: 'trimap', 'column', 'bodies' or 'levels', bodies numbered from the top.

  Raises:
    ValueError: a mask without a body; labels that do not fit.
  """
  bodies = find_bodies(mask)
  if not bodies:
    raise ValueError('the mask holds no vertebral body')
  note = f'{len(bodies)} vertebral bodies' if len(bodies) > 1 else '1 vertebral body'
  if labels == 'levels':
    _check_count(labels, num_labels, len(bodies))
    label = np.zeros(mask.shape, np.uint8)
    for level, body in enumerate(bodies, 1):
      label[body[:, 1], body[:, 0]] = level
    return label, (note,)
  spine = mask > 0 if labels == 'bodies' else join_bodies(bodies, mask.shape)
  label, notes = _finish(spine, labels, border, num_labels)
  return label, (note, *notes)


def doubts(label: np.ndarray) -> list[str]:
  """What is odd about a trimap, in words: a label that is missing, a spine that is the background.

  Args:
    label: uint8 [H,W]: 0 background, 1 core, 2 border.
  """
  names = 'background', 'core', 'border'
  missing = [name for value, name in enumerate(names) if not (label == value).any()]
  found = [f'no pixel is {" or ".join(missing)}'] if missing else []
  edges = label[:, [0, -1]]
  found += [f'the {names[value]} covers both sides of the image: is the palette in the order '
            'background, core, border?'
            for value in (CORE, BORDER) if (edges == value).mean(0).min() > 0.5]
  return found
