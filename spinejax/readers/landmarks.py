"""Laminae as points: tables of landmarks, masks as landmarks, landmarks as cubes."""
import csv
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax import runs
from spinejax.readers import contents, orientation
from spinejax.readers.orientation import Geometry

THORACIC, LUMBAR, UNKNOWN = 0, 1, -1
TABLES = ('.csv', '.mrk.json')

_REGIONS = {'thoracic': THORACIC, 'lumbar': LUMBAR, 't': THORACIC, 'l': LUMBAR, '0': THORACIC,
            '1': LUMBAR, '': UNKNOWN, '-1': UNKNOWN, 'unknown': UNKNOWN}
_LEVEL = re.compile(r'\s*(t|th|l)\s*-?\s*\d{1,2}(?!\d)', re.IGNORECASE)

_Rows = tuple[list[Any], list[int], bool]  # positions, regions, whether the positions are in mm


class Landmarks(NamedTuple):
  """Laminae as points."""
  points: np.ndarray  # float64 [P,3] voxels of the array in our axes, centers at whole numbers
  region: np.ndarray  # int8 [P]: 0 thoracic, 1 lumbar, -1 unknown


def read_landmarks(path: str | os.PathLike, geometry: Geometry) -> Landmarks:
  """Reads landmarks from a table or a 3D Slicer markups file into the voxels of a volume.

  The header of a CSV table names the columns x, y, z (LPS positions in mm) or i, j, k (voxels along
  the axes of the volume's file, from 0; ignored beside x, y, z), and optionally label, level (T1 to
  L5) and region (thoracic or lumbar). Without a region, the level or label decides if it starts
  like T5 or L3. A .mrk.json file gives positions in LPS or RAS mm and labels; all its markups are
  read, without points that were never placed. There may be no landmarks.

  Raises:
    FileNotFoundError, ValueError: no such file, or another content; positions in mm for a volume
      without spacing; a landmark outside of the volume.
  """
  path = pathlib.Path(path)
  suffix = contents.suffix_of(path, TABLES)
  if not suffix:
    raise ValueError(f'{path}: landmarks are read from {" and ".join(TABLES)} files.')
  rows, region, in_mm = _read_csv(path) if suffix == '.csv' else _read_markups(path)
  places = np.reshape(rows, (-1, 3)).astype(np.float64)
  if in_mm and not orientation.has_spacing(geometry):
    raise ValueError(f'{path}: the landmarks are in mm, but their volume has no spacing; write the '
                     'spacing into its file, or give voxels i,j,k.')
  points = (orientation.to_voxels if in_mm else orientation.from_index)(places, geometry)
  outside = ~orientation.inside(points, geometry)
  if outside.any():
    first = int(outside.argmax())
    raise ValueError(
        f'{path}: {int(outside.sum())} of the {len(points)} landmarks lie outside of the volume, '
        f'such as number {first + 1} at {tuple(np.round(places[first], 2).tolist())}'
        f'{" mm" if in_mm else ""}; is it the table of another volume or coordinate system?')
  return Landmarks(points, np.array(region, np.int8))


def _region_of(name: str) -> int:
  """The region of a level such as T5, Th12 or L3 at the start of a name, else unknown."""
  match = _LEVEL.match(name)
  if match is None:
    return UNKNOWN
  return LUMBAR if match[1].lower() == 'l' else THORACIC


def _read_csv(path: pathlib.Path) -> _Rows:
  table = contents.read_table(path)
  columns = [column.lower() for column in table.columns]
  in_mm = {'x', 'y', 'z'} <= set(columns)
  axes = 'xyz' if in_mm else 'ijk'
  if not set(axes) <= set(columns):
    raise ValueError(f'{path}: the first line must name the columns x,y,z (LPS positions in mm) or '
                     'i,j,k (voxels of the file), and may name label, level and region; it names '
                     f'{", ".join(columns)[:200]!r}.')
  places, regions = [], []
  for number, cells in table.rows:
    cell = dict(zip(columns, cells))
    try:
      place = [float(cell[axis]) for axis in axes]
    except ValueError:
      place = [math.nan]
    if not all(map(math.isfinite, place)):
      raise ValueError(f'{path} line {number}: expected three numbers {",".join(axes)}.')
    region = cell.get('region', '').lower()
    if region not in _REGIONS:
      raise ValueError(f'{path} line {number}: the region is thoracic, lumbar or empty, not '
                       f'{region!r}.')
    places.append(place)
    regions.append(_REGIONS[region] if region else
                   _region_of(cell.get('level', '') or cell.get('label', '')))
  return places, regions, in_mm


def _read_markups(path: pathlib.Path) -> _Rows:
  places, regions = [], []
  try:
    for markup in json.loads(contents.read_text(path))['markups']:
      system = str(markup.get('coordinateSystem', 'LPS')).upper()
      unit = str(markup.get('coordinateUnits', 'mm'))
      if system not in ('LPS', 'RAS', '0', '1') or unit != 'mm':
        raise ValueError(f'{path}: expected coordinates LPS or RAS in mm, not {system} in {unit}.')
      sign = np.array([-1, -1, 1]) if system in ('RAS', '0') else np.ones(3)
      for number, point in enumerate(markup.get('controlPoints', ()), 1):
        if str(point.get('positionStatus', 'defined')).lower() in ('undefined', 'missing'):
          continue
        place = np.array(point['position'])
        if place.shape != (3,) or place.dtype.kind not in 'if' or not np.isfinite(place).all():
          raise ValueError(f'{path}: position {number} is not three numbers.')
        places.append(sign * place)
        regions.append(_region_of(str(point.get('label', ''))))
  except (json.JSONDecodeError, RecursionError):
    raise ValueError(f'{path}: this is not a JSON file, or it is truncated.') from None
  except (KeyError, TypeError, AttributeError):
    raise ValueError(f'{path}: this is not a markups file of 3D Slicer (markups, controlPoints, '
                     'position).') from None
  return places, regions, True


def write_landmarks(path: str | os.PathLike, points: np.ndarray, geometry: Geometry,
                    columns: Mapping[str, Sequence[Any]] | None = None) -> None:
  """Writes points [P,3] (voxels, may be empty) as a CSV table.

  The columns are i, j, k (voxels along the axes of the volume's file), if the spacing is known
  x, y, z (LPS positions in mm), and further ones of P cells. `read_landmarks` reads the points back
  to 1e-6 mm. Raises OSError if the file cannot be written.
  """
  columns = columns or {}
  places = [orientation.to_index(points, geometry)]
  if orientation.has_spacing(geometry):
    places.append(orientation.to_physical(points, geometry))
  text = io.StringIO()
  writer = csv.writer(text)
  writer.writerow([*'ijkxyz'[:3 * len(places)], *columns])
  writer.writerows([*(f'{x:.7f}' for x in row), *cells]
                   for row, *cells in zip(np.concatenate(places, -1), *columns.values()))
  runs.write_text(path, text.getvalue())


def landmarks_of_mask(mask: np.ndarray) -> Landmarks:
  """The centroid of every connected component of every label, in the order of labels and scan.

  Components of integers [D,H,W] are connected over faces, edges and corners. Components of
  different labels are separate even if they touch. The regions are unknown.
  """
  points = [np.zeros((0, 3))]
  for value in np.unique(mask[mask > 0]):
    components, count = ndimage.label(mask == value, np.ones((3, 3, 3)))
    points.append(ndimage.center_of_mass(components > 0, components, range(1, count + 1)))
  points = np.concatenate(points)
  return Landmarks(points, np.full(len(points), UNKNOWN, np.int8))


def cubes(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """A cube of 3x3x3 voxels around the voxel nearest to each point, as C-U-net labels laminae.

  Cubes are cut at the border, and cubes that touch are one component. A point [P,3] whose nearest
  voxel lies outside of the grid (D, H, W) has no cube. Returns uint8 [D,H,W], 1 in the cubes.
  """
  label = np.zeros(tuple(shape), np.uint8)
  for center in np.floor(np.reshape(points, (-1, 3)) + 0.5).astype(int):
    if (center >= 0).all() and (center < shape).all():
      label[tuple(slice(max(c - 1, 0), c + 2) for c in center)] = 1
  return label
