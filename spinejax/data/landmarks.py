"""Laminae as points: tables of landmarks, masks as landmarks, and pairs of volumes with either."""
import csv
import io
import json
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.data import files
from spinejax.data import orientation
from spinejax.data import volumes
from spinejax.data.orientation import Geometry

THORACIC, LUMBAR, UNKNOWN = 0, 1, -1
TABLES = ('.csv', '.mrk.json')
LAYOUT = 'images/NAME.nii.gz (or another volume) with labels/NAME.nii.gz, NAME.csv or NAME.mrk.json'

_REGIONS = {'thoracic': THORACIC, 'lumbar': LUMBAR, 't': THORACIC, 'l': LUMBAR, '0': THORACIC,
            '1': LUMBAR, '': UNKNOWN, '-1': UNKNOWN, 'unknown': UNKNOWN}
_LEVEL = re.compile(r'(t|th|l)\s*-?\s*\d+(?!\d)', re.IGNORECASE)
_DATA_FILES = ('.raw', '.zraw', '.raw.gz', '.raw.bz2')  # beside .mhd and .nhdr


class Landmarks(NamedTuple):
  """Laminae as points.

  Attributes:
    points: float64 [P,3] voxels of the array in our axes, centers at whole numbers.
    names: P labels, '' where there is none.
    region: int8 [P]: 0 thoracic, 1 lumbar, -1 unknown.
  """
  points: np.ndarray
  names: tuple[str, ...]
  region: np.ndarray


class _Rows(NamedTuple):
  """A table as written."""
  places: list[Sequence[float]]
  names: list[str]
  region: list[int]
  in_mm: bool


def _region_of(name: str) -> int:
  """The region of a level such as T5, Th12 or L3 at the start of a name; unknown otherwise."""
  match = _LEVEL.match(name.strip())
  return UNKNOWN if match is None else LUMBAR if match[1].lower() == 'l' else THORACIC


def _text(path: pathlib.Path) -> str:
  if not path.exists():
    raise FileNotFoundError(f'{path}: there is no such file.')
  try:
    return path.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError):
    raise ValueError(f'{path}: the table cannot be read as UTF-8 text.') from None


def _read_csv(path: pathlib.Path) -> _Rows:
  text = _text(path)
  header = text.split('\n', 1)[0]
  table = csv.DictReader(io.StringIO(text, newline=''), delimiter=max(',;\t', key=header.count))
  table.fieldnames = [column.strip().lower() for column in table.fieldnames or ()]
  columns = set(table.fieldnames)
  in_mm = {'x', 'y', 'z'} <= columns
  if not (in_mm or {'i', 'j', 'k'} <= columns):
    raise ValueError(f'{path}: the first line must name the columns x,y,z (LPS positions in mm) or '
                     f'i,j,k (voxels of the file), and may name label, level and region; it is '
                     f'{header.strip()!r}.')
  rows = _Rows([], [], [], in_mm)
  for row in table:
    where = f'{path} line {table.line_num}'
    cell = {column: (row[column] or '').strip() for column in table.fieldnames}
    if not any(cell.values()):
      continue
    try:
      place = [float(cell[axis]) for axis in ('xyz' if in_mm else 'ijk')]
    except ValueError:
      place = [math.nan]
    if not all(map(math.isfinite, place)):
      raise ValueError(f'{where}: expected three numbers {",".join("xyz" if in_mm else "ijk")}.')
    region = cell.get('region', '').lower()
    if region not in _REGIONS:
      raise ValueError(f'{where}: the region is thoracic, lumbar or empty, not {region!r}.')
    level, label = cell.get('level', ''), cell.get('label', '')
    rows.places.append(place)
    rows.names.append(label or level)
    rows.region.append(_REGIONS[region] if region else _region_of(level or label))
  return rows


def _read_markups(path: pathlib.Path) -> _Rows:
  """Control points of a 3D Slicer markups file; points that were never placed are left out."""
  rows = _Rows([], [], [], True)
  try:
    for markup in json.loads(_text(path))['markups']:
      system = str(markup.get('coordinateSystem', 'LPS')).upper()
      unit = str(markup.get('coordinateUnits', 'mm'))
      if system not in ('LPS', 'RAS', '0', '1') or unit != 'mm':
        raise ValueError(f'{path}: expected coordinates LPS or RAS in mm, not {system} in {unit}.')
      sign = np.array([-1, -1, 1]) if system in ('RAS', '0') else np.ones(3)
      for number, point in enumerate(markup.get('controlPoints', ())):
        if str(point.get('positionStatus', 'defined')).lower() in ('undefined', 'missing'):
          continue
        place = np.array(point['position'], np.float64)
        if place.shape != (3,) or not np.isfinite(place).all():
          raise ValueError(f'{path}: position {number + 1} is not three numbers.')
        name = str(point.get('label', ''))
        rows.places.append(sign * place)
        rows.names.append(name)
        rows.region.append(_region_of(name))
  except json.JSONDecodeError:
    raise ValueError(f'{path}: this is not a JSON file, or it is truncated.') from None
  except (KeyError, TypeError, AttributeError):
    raise ValueError(f'{path}: this is not a markups file of 3D Slicer (markups, controlPoints, '
                     'position).') from None
  return rows


def read_landmarks(path: str | os.PathLike, geometry: Geometry) -> Landmarks:
  """Reads landmarks from a table or a 3D Slicer markups file into the voxels of a volume.

  CSV: the first line names the columns x,y,z (LPS positions in mm) or i,j,k (voxels along the axes
  of the volume's file, from 0; read only without x,y,z), and optionally label, level (T1 to L5) and
  region (thoracic or lumbar); comma, semicolon or tab separated, other columns are ignored. Without
  a region the level or label decides if it starts like T5 or L3. .mrk.json: positions in LPS or RAS
  mm and labels of every markup in the file.

  Args:
    path: .csv or .mrk.json.
    geometry: of the volume.

  Returns:
    The landmarks in order; none is allowed.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another suffix or content; positions in mm for a volume without spacing; a landmark
      outside of the volume.
  """
  path = pathlib.Path(path)
  if not path.name.lower().endswith(TABLES):
    raise ValueError(f'{path}: landmarks are read from {" and ".join(TABLES)} files.')
  rows = (_read_csv if path.name.lower().endswith('.csv') else _read_markups)(path)
  places = np.reshape(rows.places, (-1, 3)).astype(np.float64)
  if rows.in_mm and not orientation.has_spacing(geometry):
    raise ValueError(f'{path}: the landmarks are in mm, but their volume has no spacing; write the '
                     'spacing into its file, or give voxels i,j,k.')
  points = (orientation.to_voxels if rows.in_mm else orientation.from_index)(places, geometry)
  shape = orientation.shape_of(geometry)
  outside = ((points < -0.5) | (points > np.subtract(shape, 0.5))).any(-1)
  if outside.any():
    first = int(outside.argmax())
    raise ValueError(
        f'{path}: {int(outside.sum())} of the {len(points)} landmarks lie outside of the volume, '
        f'such as number {first + 1} at {tuple(np.round(places[first], 2).tolist())}'
        f'{" mm" if rows.in_mm else ""}; is it the table of another volume or coordinate system?')
  return Landmarks(points, tuple(rows.names), np.array(rows.region, np.int8))


def write_landmarks(path: str | os.PathLike, landmarks: Landmarks, geometry: Geometry) -> None:
  """Writes a CSV table that `read_landmarks` reads back to 1e-6 mm.

  Columns: label, region, i, j, k (voxels along the axes of the volume's file) and, where the
  spacing is known, x, y, z (LPS positions in mm).
  """
  region = {value: name for name, value in _REGIONS.items() if name in ('thoracic', 'lumbar', '')}
  places = [orientation.to_index(landmarks.points, geometry)]
  if orientation.has_spacing(geometry):
    places.append(orientation.to_physical(landmarks.points, geometry))
  header = ['label', 'region', *'ijk', *'xyz'][:2 + 3 * len(places)]
  try:
    with open(path, 'w', newline='', encoding='utf-8') as file:
      writer = csv.writer(file)
      writer.writerow(header)
      for name, part, *place in zip(landmarks.names, landmarks.region.tolist(), *places):
        writer.writerow([name, region[part], *(f'{x:.7f}' for x in np.concatenate(place))])
  except OSError as error:
    raise ValueError(f'{path}: the table cannot be written ({error.strerror}).') from None


def landmarks_of_mask(mask: np.ndarray, connectivity: str = 'full') -> Landmarks:
  """The centroid of every connected component of every label, in order of label and scan.

  A mask may number its laminae: components of different labels are apart even where they touch.

  Args:
    mask: integers [D,H,W], 0 = background.
    connectivity: 'face' (6 neighbors) or 'full' (26).

  Returns:
    The landmarks, named by their label where there are several labels; of unknown region.
  """
  if connectivity not in ('face', 'full'):
    raise ValueError(f"connectivity must be 'face' or 'full', not {connectivity!r}.")
  structure = ndimage.generate_binary_structure(3, 1 if connectivity == 'face' else 3)
  points, names = [np.zeros((0, 3))], []
  values = np.unique(mask)
  values = values[values != 0]
  for value in values:
    components, count = ndimage.label(mask == value, structure)
    if count:
      points.append(np.array(ndimage.center_of_mass(components > 0, components,
                                                    np.arange(1, count + 1))))
      names += [str(value) if len(values) > 1 else ''] * count
  return Landmarks(np.concatenate(points), tuple(names), np.full(len(names), UNKNOWN, np.int8))


# ------------------------------------------------------------------------------------------ pairs


def _name_of(path: pathlib.Path) -> str:
  """The file's name without the suffix of a volume or a table; '' if it has neither."""
  suffix = volumes.suffix_of(path) or next(
      (suffix for suffix in TABLES if path.name.lower().endswith(suffix)), '')
  return path.name[:-len(suffix)] if suffix else ''


def _by_name(folder: pathlib.Path, tables: bool, faults: list[str]) -> dict[str, pathlib.Path]:
  """Files of a folder by name; data files of headers beside them are passed over."""
  found = {}
  entries = files.visible_files(folder)
  headers = {_name_of(path) for path in entries if path.name.lower().endswith(('.mhd', '.nhdr'))}
  for path in entries:
    name = _name_of(path)
    stem = next((path.name[:-len(s)] for s in _DATA_FILES if path.name.lower().endswith(s)), '')
    if stem in headers:
      continue
    if not path.is_file():
      faults.append(f'{path}: this is not a file; put the files directly into {folder}.')
    elif not (name and (tables or volumes.suffix_of(path))):
      suffixes = (*volumes.KINDS, *TABLES) if tables else tuple(volumes.KINDS)
      faults.append(f'{path}: expected a file {", ".join(suffixes)}.')
    elif name in found:
      faults.append(f'{path}: the name {name} is already taken by {found[name].name}.')
    else:
      found[name] = path
  return found


def _has_label(path: pathlib.Path) -> bool:
  """Whether an NPZ file names a label or landmarks among its arrays."""
  if volumes.suffix_of(path) != '.npz':
    return False
  try:
    with zipfile.ZipFile(path) as archive:
      return bool({'label.npy', 'landmarks.npy'} & set(archive.namelist()))
  except (OSError, zipfile.BadZipFile):
    return False


def find_volume_pairs(directory: str | os.PathLike) -> tuple[list[files.Pair], list[str]]:
  """Pairs volumes with their labels by name, without decoding them.

  images/NAME.nii.gz (or any other volume) goes with labels/NAME, a volume of the same or another
  format or a table of landmarks (see `read_landmarks`). An NPZ volume that holds label or landmarks
  needs no file in labels/. Patients are as in `files.find_pairs`: cases.csv, else the name; the
  spacing is that of the volume. Hidden files are ignored.

  Returns:
    The pairs in order of name, `mask` being the file of the labels; and the faults, one line each.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: another layout.
  """
  directory = pathlib.Path(directory)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  image_folder, label_folder = directory / 'images', directory / 'labels'
  if not image_folder.is_dir():
    raise ValueError(f'{directory}: expected a folder with {LAYOUT}.')
  faults = []
  images = _by_name(image_folder, False, faults)
  labels = _by_name(label_folder, True, faults) if label_folder.is_dir() else {}
  pairs = {}
  for name in sorted(images.keys() | labels.keys()):
    if name not in images:
      faults.append(f'{labels[name]}: the label has no volume; expected '
                    f'{image_folder / name}.nii.gz or another volume.')
    elif name in labels:
      pairs[name] = files.Pair(name, name, images[name], labels[name])
    elif _has_label(images[name]):
      pairs[name] = files.Pair(name, name, images[name], images[name])
    else:
      faults.append(f'{images[name]}: the volume has no label; expected '
                    f'{label_folder / name}.nii.gz or another mask, .csv or .mrk.json.')
  table = directory / files.CASES_TABLE
  if table.exists():
    cases, table_faults = files.read_cases(table, list(pairs))
    faults += table_faults
    for name, (patient, _) in cases.items():
      pairs[name] = pairs[name]._replace(patient=patient)
  if not pairs and not faults:
    faults.append(f'{directory}: there are no volumes.')
  return list(pairs.values()), faults


def read_case(pair: files.Pair, axes: str = '') -> tuple[dict[str, Any], Geometry]:
  """The record of a volume with its laminae on the grid of its file, and its geometry.

  Args:
    pair: of `find_volume_pairs`.
    axes: as `volumes.read_volume`.

  Returns:
    name, patient; image float32 [D,H,W,1]; label uint8 [D,H,W], 1 = lamina: the mask, or cubes of
    3x3x3 voxels about the landmarks of a table; spacing float32 [3] mm, NaN where unknown;
    landmarks float32 [P,3] voxels: of the table, or the centroids of the mask; region int8 [P].

  Raises:
    FileNotFoundError, ValueError: as `read_volume`, `read_mask` and `read_landmarks`.
  """
  volume = volumes.read_volume(pair.image, axes)
  mask = None
  if pair.mask == pair.image:
    mask = volume.label
    if volume.landmarks is not None:
      region = volume.region
      laminae = Landmarks(volume.landmarks, ('',) * len(volume.landmarks), np.full(
          len(volume.landmarks), UNKNOWN, np.int8) if region is None else region)
    else:
      laminae = landmarks_of_mask(mask)
  elif volumes.suffix_of(pair.mask):
    mask = volumes.read_mask(pair.mask, volume.geometry)
    laminae = landmarks_of_mask(mask)
  else:
    laminae = read_landmarks(pair.mask, volume.geometry)
  label = cubes(laminae.points, volume.array.shape) if mask is None else (mask > 0).astype(np.uint8)
  return dict(name=pair.name, patient=pair.patient, image=volume.array[..., None], label=label,
              spacing=volume.spacing, landmarks=laminae.points.astype(np.float32),
              region=laminae.region), volume.geometry


def check_volume_pairs(
    pairs: Sequence[files.Pair], axes: str = '') -> tuple[list[files.Pair], list[str]]:
  """Reads every pair: the sound ones with size, counts (voxels of each class) and digest; faults.

  As `files.check_pairs`, but one at a time, because a few volumes may fill the memory.
  """
  sound, faults = [], []
  for pair in pairs:
    try:
      record, _ = read_case(pair, axes)
    except (ValueError, FileNotFoundError) as error:
      faults.append(str(error))
      continue
    counts = np.bincount(record['label'].reshape(-1), minlength=2).tolist()
    sound.append(pair._replace(size=record['label'].shape, counts=tuple(counts),
                               digest=files.digest_record(record)))
  return sound, faults


def cubes(landmarks: np.ndarray, shape: Sequence[int], size: int = 3) -> np.ndarray:
  """A cube of size^3 voxels about the voxel nearest to each landmark, as C-U-net labels laminae.

  Cubes are cut at the border; cubes that touch are one component. A landmark whose nearest voxel
  lies outside of the grid has none.

  Args:
    landmarks: [P,3] voxels; P may be 0.
    shape: (D, H, W).
    size: odd edge length in voxels.

  Returns:
    uint8 [D,H,W], 1 in the cubes.
  """
  label = np.zeros(tuple(shape), np.uint8)
  half = size // 2
  for center in np.floor(np.reshape(landmarks, (-1, 3)) + 0.5).astype(int):
    if (center >= 0).all() and (center < shape).all():
      label[tuple(slice(max(c - half, 0), c + half + 1) for c in center)] = 1
  return label
