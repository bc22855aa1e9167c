"""Folders of the user: which file is an image, which is its mask, and to whom it belongs."""
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spinejax.readers import contents, dicom, landmarks, volumes
from spinejax.readers.records import Pair

LAYOUTS = (
    'images/NAME.png with masks/NAME.png, or dataset/{train,test}/NAME.png with '
    'groundtruth/{train,test}/NAME_bone_3.png, or X-rays NAME.jpg with NAME-mask-trimap.png in one '
    'folder (or in training and test), or X-rays data/{training,test}/NAME.jpg with '
    'labels/{training,test}/landmarks.csv, or volumes images/NAME.nii.gz with masks/NAME.nii.gz or '
    'landmarks/NAME.csv'
)
CASES_TABLE = 'cases.csv'

_CASES_COLUMNS = ('name', 'patient', 'spacing_y_mm', 'spacing_x_mm')
_IGNORED = ('Thumbs.db', 'desktop.ini')
_SPLITS = {'train': 'train', 'training': 'train', 'validation': 'validation', 'val': 'validation',
           'test': 'test'}
_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', *dicom.SUFFIXES)
_TRIMAP_ENDS = ('-mask-trimap-grayscale', '-mask-trimap')


def _visible_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Entries of a folder in the order of their names, without hidden files."""
  return sorted(path for path in folder.iterdir()
                if not path.name.startswith('.') and path.name not in _IGNORED)


def list_images(path: str | os.PathLike) -> list[pathlib.Path]:
  """The file itself, or all visible files of a folder in the order of their names.

  Raises FileNotFoundError if there is no such path, ValueError if there is no visible file.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'{path}: there is no such file or folder.')
  files = [path] if path.is_file() else [p for p in _visible_files(path) if p.is_file()]
  if not files:
    raise ValueError(f'{path}: the folder holds no images.')
  return files


def _stem(path: pathlib.Path, suffixes: Iterable[str]) -> str:
  """The name without its suffix, which may be one of `suffixes` with several dots."""
  return path.name[:len(path.name) - len(contents.suffix_of(path, suffixes) or path.suffix)]


def unique_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The name of each file without its suffix, or with it if two files share the rest."""
  stems = [_stem(path, volumes.KINDS) for path in paths]
  return {path: stem if stems.count(stem) == 1 else path.name for path, stem in zip(paths, stems)}


def _name_of(path: pathlib.Path) -> str:
  """The name without its suffix: NAME of NAME.nii.gz, NAME.mrk.json and NAME.jpg.mat."""
  name = _stem(path, (*volumes.KINDS, *landmarks.TABLES))
  inner = pathlib.Path(name).suffix
  return name.removesuffix(inner) if path.suffix == '.mat' and inner.lower() in _SUFFIXES else name


def _is_trimap(path: pathlib.Path) -> bool:
  return _name_of(path).endswith(_TRIMAP_ENDS)


def _by_name(paths: Iterable[pathlib.Path], ends: Sequence[str], faults: list[str]
             ) -> dict[str, pathlib.Path]:
  """Files by their name without the first of the `ends` that it has."""
  files: dict[str, pathlib.Path] = {}
  for path in paths:
    name = _name_of(path)
    name = name.removesuffix(next((end for end in ends if name.endswith(end)), ''))
    if not path.is_file():
      faults.append(f'{path}: this is not a file; put the images directly into {path.parent}.')
    elif name in files:
      faults.append(f'{path}: the name {name} is already taken by {files[name].name}.')
    else:
      files[name] = path
  return files


class _Group(NamedTuple):
  """Folders whose files are paired by name."""
  split: str  # of the cases; '' if the layout has no splits
  images: pathlib.Path
  masks: list[pathlib.Path]  # folders
  ends: tuple[str, ...] = ()  # what the names of masks may end with
  prefix: str = ''  # of the names of cases
  mixed: bool = False  # whether images and trimaps share a folder, possibly with other folders
  table: pathlib.Path | None = None  # corners of all images, instead of masks


def _trimap_groups(folder: pathlib.Path, split: str = '', prefix: str = '') -> list[_Group]:
  """X-rays with trimaps NAME-mask-trimap; colored ones take precedence over gray ones."""
  places = [folder / 'masks' / 'rgb', folder / 'masks' / 'grayscale', folder / 'masks', folder]
  masks = next((place for place in places
                if place.is_dir() and any(map(_is_trimap, _visible_files(place)))), None)
  holds_images = any(path.is_file() and not _is_trimap(path) for path in _visible_files(folder))
  return ([_Group(split, folder, [masks], _TRIMAP_ENDS, prefix, True)]
          if masks and holds_images else [])


def _find_groups(directory: pathlib.Path, faults: list[str]) -> list[_Group]:
  """The groups of whatever layout the folder has."""
  found, groups = _visible_files(directory), []
  folders = {path.name: path for path in found if path.is_dir()}
  masks = [folders[name] for name in ('masks', 'landmarks') if name in folders]
  if 'images' in folders and (
      masks or any(map(volumes.is_volume, _visible_files(folders['images'])))):
    return [_Group('', folders['images'], masks, _TRIMAP_ENDS)]
  if {'dataset', 'groundtruth'} <= folders.keys():
    images, labels = folders['dataset'], folders['groundtruth']
    for name in sorted({path.name for path in _visible_files(images) + _visible_files(labels)}):
      if name not in ('train', 'validation', 'val', 'test'):
        faults.append(f'{images / name}: expected the folders train, validation (or val) and test.')
      elif not ((images / name).is_dir() and (labels / name).is_dir()):
        faults.append(f'{images / name}: images and masks need a folder each; expected '
                      f'{images / name} and {labels / name}.')
      else:
        groups.append(_Group(_SPLITS[name], images / name, [labels / name], ('_bone_3',)))
    return groups
  if {'data', 'labels'} <= folders.keys():  # with landmarks.csv, or a file NAME.jpg.mat for each
    for folder in _visible_files(folders['data']):
      label_folder = folders['labels'] / folder.name
      table = label_folder / 'landmarks.csv'
      if folder.name not in _SPLITS or not label_folder.is_dir():
        faults.append(f'{folder}: expected the folders training (or train), validation (or val) '
                      f'and test, each in {folders["data"]} and in {folders["labels"]}.')
      elif table.is_file():
        groups.append(_Group(_SPLITS[folder.name], folder, [], table=table))
      else:
        groups.append(_Group(_SPLITS[folder.name], folder, [label_folder]))
    return groups
  # Folders of a split may repeat names, so the name of the folder precedes them.
  groups = _trimap_groups(directory) or [
      group for name in sorted(folders.keys() & _SPLITS.keys())
      for group in _trimap_groups(folders[name], _SPLITS[name], f'{name}-')]
  if not groups:
    names = [path.name for path in found]
    rest = f' and {len(names) - 5} more' if len(names) > 5 else ''
    raise ValueError(f'{directory}: expected {LAYOUTS}; found '
                     f'{", ".join(names[:5]) or "nothing"}{rest}.')
  return groups


def _find_lines(table: pathlib.Path, images: dict[str, pathlib.Path], faults: list[str]
                ) -> dict[str, int]:
  """The line of each image in a table of corners, which filenames.csv beside it gives."""
  listing = table.with_name('filenames.csv')
  lines: dict[str, int] = {}
  try:
    text = contents.read_text(listing)
  except FileNotFoundError:
    faults.append(f'{listing}: there is no such file; it must name the image of each line of '
                  f'{table.name}.')
    return lines
  except ValueError as error:
    faults.append(str(error))
    return lines
  by_file = {path.name: name for name, path in images.items()}
  for number, line in enumerate((line for line in text.splitlines() if line.strip()), 1):
    file = line.strip().strip('"').strip()
    name = by_file.get(file)
    if name is None:
      faults.append(f'{listing} line {number}: there is no image called {file[:80]!r}.')
    elif name in lines:
      faults.append(f'{listing} line {number}: {file} has a line already.')
    else:
      lines[name] = number
  return lines


def _pairs_of(group: _Group, directory: pathlib.Path, faults: list[str]) -> list[Pair]:
  """The pairs of a group in the order of their names."""
  listed = _visible_files(group.images)
  candidates = [path for folder in group.masks for path in _visible_files(folder)]
  ends = group.ends
  if group.mixed:
    listed = [path for path in listed
              if path.is_file() and path.name != CASES_TABLE and not _is_trimap(path)]
    candidates = list(filter(_is_trimap, candidates))
  images = _by_name(listed, (), faults)
  if group.images.name == 'images' and images.keys() & set(map(_name_of, candidates)):
    ends = ()  # images may be called like trimaps
  masks, lines = _by_name(candidates, ends, faults), {}
  if group.table:
    lines = _find_lines(group.table, images, faults)
    masks = dict.fromkeys(lines, group.table)
  if not images:
    faults.append(f'{group.images}: the folder holds no images.')
  end = ends[-1] if ends and (group.mixed or ends != _TRIMAP_ENDS) else ''
  folder = group.masks[0] if group.masks else directory / 'masks'
  pairs = []
  for name in sorted(images.keys() | masks.keys()):
    image, expected = images.get(name), folder / f'{name}{end}'
    if image is None:
      faults.append(f'{masks[name]}: the mask has no image; expected {group.images / name}.png or '
                    'another image.')
    elif name in masks or image.name.lower().endswith('.npz'):
      pairs.append(Pair(group.prefix + name, group.prefix + name, image, masks.get(name, image),
                        group.split, line=lines.get(name, 0)))
    elif group.table:
      faults.append(f'{image}: the image has no line in {group.table.with_name("filenames.csv")}.')
    elif volumes.is_volume(image):
      faults.append(f'{image}: the volume has no laminae; expected a mask {expected}.nii.gz or a '
                    f'table of landmarks {expected.name}.csv.')
    else:
      faults.append(f'{image}: the image has no mask; expected {expected}.png.')
  return pairs


def find_pairs(directory: str | os.PathLike) -> tuple[list[Pair], list[str]]:
  """Pairs images with masks by name, without opening them; `LAYOUTS` shows the folders.

  A case is called like its image without suffix, and so is its patient unless cases.csv says
  otherwise (see `read_cases`). Suffixes of images and masks may differ. A split may be called
  train, training, val, validation or test, and fixes the sets. Hidden files are ignored.

  Trimaps may also lie in masks/, masks/rgb or masks/grayscale. If they lie in the folders of
  splits, the cases are called training-NAME and so on. Corners of vertebrae (see `corner_tables`)
  lie in landmarks/NAME.csv or NAME.mat beside images/, or as those of AASCE in labels/SPLIT, in
  filenames.csv and landmarks.csv or in NAME.jpg.mat. The laminae of a volume (see `volumes.KINDS`)
  are a mask, a table of `landmarks.TABLES` in landmarks/ or masks/, or arrays in its NPZ file.

  Returns:
    The pairs in the order of (split, name), and the faults, one line each.

  Raises:
    FileNotFoundError, ValueError: there is no such folder, or it has none of the layouts.
  """
  directory = pathlib.Path(directory)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  if not directory.is_dir():
    raise ValueError(f'{directory}: expected a folder, with {LAYOUTS}.')
  faults: list[str] = []
  pairs: dict[str, Pair] = {}
  for group in _find_groups(directory, faults):
    for pair in _pairs_of(group, directory, faults):
      if pair.name in pairs:
        faults.append(f'{pair.image}: the name is already taken by {pairs[pair.name].image}; one '
                      'case cannot be in two splits.')
      else:
        pairs[pair.name] = pair
  kinds = {volumes.is_volume(pair.image): pair.image.name for pair in pairs.values()}
  if len(kinds) == 2:
    faults.append(f'{directory}: the folder mixes volumes, such as {kinds[True]}, and images, such '
                  f'as {kinds[False]}; give each kind a folder of its own.')
  if (directory / CASES_TABLE).exists():
    cases, more = read_cases(directory / CASES_TABLE, list(pairs))
    faults += more
    for name, (patient, spacing) in cases.items():
      pairs[name] = dataclasses.replace(pairs[name], patient=patient, spacing=spacing)
  if not pairs and not faults:
    faults.append(f'{directory}: there are no images.')
  return list(pairs.values()), faults


def read_cases(path: str | os.PathLike, names: Sequence[str]
               ) -> tuple[dict[str, tuple[str, tuple[float, ...]]], list[str]]:
  """Reads {name: (patient, (spacing_y, spacing_x))} from a table; returns also its faults.

  The columns are name (of the file, without suffix), patient (else the name), spacing_y_mm and
  spacing_x_mm (height and width of a pixel of the original image, else NaN). A spacing may be
  empty, other columns are ignored. Each of `names` must have one line.
  """
  try:
    _, columns, rows = contents.read_table(path)
  except (FileNotFoundError, ValueError) as error:
    return {}, [str(error)]
  if 'name' not in columns:
    return {}, [f'{path}: the first line must name the columns ({", ".join(_CASES_COLUMNS)}); it '
                f'names {", ".join(columns)[:200]!r}.']
  faults = []
  cases: dict[str, tuple[str, tuple[float, ...]]] = {}
  known = set(names)
  for number, cells in rows:
    where, cell = f'{path} line {number}', dict(zip(columns, cells))
    name, patient = cell['name'], cell.get('patient', cell['name'])
    try:
      spacing = tuple(float(cell.get(f'spacing_{axis}_mm') or math.nan) for axis in 'yx')
    except ValueError:
      spacing = (0.0, 0.0)
    if any(size <= 0 or math.isinf(size) for size in spacing):
      faults.append(f'{where}: spacings are positive numbers of millimeters, such as 0.25.')
    elif name not in known:
      faults.append(f'{where}: there is no image called {name[:80]!r}.')
    elif name in cases:
      faults.append(f'{where}: {name} has a line already.')
    elif not patient:
      faults.append(f'{where}: the patient of {name} is empty.')
    else:
      cases[name] = patient, spacing
  return cases, faults or [f'{path}: {name} has no line.' for name in names if name not in cases]
