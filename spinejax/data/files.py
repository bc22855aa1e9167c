"""Files of the user: reading images (PNG, JPEG, TIFF), pairing and checking images and volumes."""
import concurrent.futures
import csv
import hashlib
import io
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from spinejax.data import landmarks
from spinejax.data import volumes

LAYOUTS = (
    'images/NAME.png with masks/NAME.png, or dataset/{train,test}/NAME.png with '
    'groundtruth/{train,test}/NAME_bone_3.png, or volumes images/NAME.nii.gz with '
    'masks/NAME.nii.gz or landmarks/NAME.csv'
)
CASES_TABLE = 'cases.csv'
CASES_COLUMNS = ('name', 'patient', 'spacing_y_mm', 'spacing_x_mm')

_FORMATS = ('PNG', 'JPEG', 'TIFF')
_GRAY = ('1', 'L', 'LA', 'La')
_SIXTEEN_BITS = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_THIRTY_TWO_BITS = ('I', 'F')
_LUMINANCE = (19595, 38470, 7471)  # ITU-R 601 in 1/65536, as pillow rounds it
_NOT_IMAGES = ('Thumbs.db', 'desktop.ini')

Palette = Sequence[Sequence[int]]


class Pair(NamedTuple):
  """An image, its mask and what is known about them; `check_pairs` fills in the last four.

  Of a volume the mask may be a table of landmarks, or the NPZ file of the volume itself.
  """
  name: str
  patient: str
  image: pathlib.Path
  mask: pathlib.Path
  split: str = ''  # 'train', 'validation' or 'test'; '' where the folder has no splits
  spacing: tuple[float, float] = (math.nan, math.nan)  # mm per pixel: vertical, horizontal
  size: tuple[int, ...] = ()
  sixteen_bits: bool = False  # or more: the image is read as float32
  counts: tuple[int, ...] = ()  # pixels of each class
  digest: str = ''


def _decode(path: str | os.PathLike) -> Image.Image:
  """The loaded image of a file, whatever its extension; one sentence for whatever is wrong."""
  try:
    content = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: there is no such file.') from None
  except OSError as error:
    raise ValueError(f'{path}: the file cannot be read ({error.strerror}).') from None
  if not content:
    raise ValueError(f'{path}: the file is empty.')
  try:
    image = Image.open(io.BytesIO(content), formats=_FORMATS)
    pages = 1 if image.format == 'MPO' else getattr(image, 'n_frames', 1)
    if image.format == 'PNG':  # decoding alone does not look at the checksums
      image.verify()
      image = Image.open(io.BytesIO(content), formats=_FORMATS)
    if pages == 1:
      image.load()
  except Image.UnidentifiedImageError:
    raise ValueError(
        f'{path}: this is not a PNG, JPEG or TIFF image, or its header is damaged.') from None
  except Image.DecompressionBombError:
    raise ValueError(
        f'{path}: the image has more than {2 * Image.MAX_IMAGE_PIXELS} pixels; '
        'save it smaller.') from None
  except Exception:  # pillow raises a dozen kinds here, and each means the same
    raise ValueError(f'{path}: the file is truncated or corrupt.') from None
  if pages > 1:
    raise ValueError(f'{path}: the file holds {pages} pages or frames; save one image per file.')
  return image


def set_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Gray to color by repetition, color to gray by luminance 0.299 R + 0.587 G + 0.114 B.

  Args:
    image: uint8 or float32 [H,W,1] or [H,W,3].
    channels: 1 or 3.

  Returns:
    [H,W,channels] of the same dtype; uint8 is rounded half up.
  """
  if channels not in (1, 3):
    raise ValueError(f'data.channels must be 1 (gray) or 3 (color), not {channels}.')
  if image.shape[-1] == channels:
    return image
  if channels == 3:
    return np.repeat(image, 3, axis=-1)
  if image.dtype == np.uint8:
    total = image.astype(np.uint32) @ np.array(_LUMINANCE, np.uint32)
    return ((total + 0x8000) >> 16).astype(np.uint8)[..., None]
  return (image @ (np.array(_LUMINANCE, np.float32) / np.float32(65536)))[..., None]


def read_image(path: str | os.PathLike, channels: int = 1) -> np.ndarray:
  """Reads a PNG, JPEG or TIFF image as gray levels 0..255.

  The content decides the format, not the extension. Pixels are taken as stored: an orientation in
  EXIF is not applied, here as in `read_mask`, so that a pair stays a pair. Transparency is dropped.

  Args:
    path: file of 8 or 16 bits: gray, RGB, RGBA or palette.
    channels: 1 or 3; see `set_channels`.

  Returns:
    [H,W,channels]: uint8 of an 8-bit file, float32 = value / 257 of a 16-bit one.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: empty, truncated or corrupt file, another format, several pages, 32 bits a pixel.
  """
  image = _decode(path)
  if image.mode in _THIRTY_TWO_BITS:
    raise ValueError(f'{path}: the pixels have 32 bits; save the image with 8 or 16 bits.')
  if image.mode in _SIXTEEN_BITS:
    pixels = np.asarray(image).astype(np.float32)[..., None] / np.float32(257)
  elif image.mode in _GRAY:
    pixels = np.array(image.convert('L'))[..., None]
  else:
    pixels = np.array(image.convert('RGB'))
  return set_channels(pixels, channels)


def parse_palette(text: str) -> tuple[tuple[int, int, int], ...]:
  """The palette of 'RRGGBB,RRGGBB,...', one color per class; () of an empty text."""
  try:
    colors = [bytes.fromhex(color.strip().removeprefix('#')) for color in text.split(',') if text]
  except ValueError:
    colors = [b'']
  if any(len(color) != 3 for color in colors):
    raise ValueError(
        f"a palette is written as hexadecimal colors such as '000000,ff0000', not '{text}'.")
  return tuple(tuple(color) for color in colors)


def check_palette(palette: Palette, num_labels: int) -> None:
  """Raises ValueError unless the palette is empty or has a color for each label, all different."""
  if palette and len(palette) != num_labels:
    raise ValueError(f'the palette has {len(palette)} colors for {num_labels} labels; give one for '
                     'each, background first.')
  if len(set(map(tuple, palette))) != len(palette):
    raise ValueError('the palette has a color twice.')


def _listed(values: Sequence[Any], most: int = 5) -> str:
  """'a, b, c and 4 more'."""
  head = ', '.join(str(value) for value in values[:most])
  return head if len(values) <= most else f'{head} and {len(values) - most} more'


def _palette_indices(path: str | os.PathLike, image: Image.Image, palette: Palette) -> np.ndarray:
  """Index of every pixel's color in the palette, int64 [H,W]."""
  if image.mode in _SIXTEEN_BITS + _THIRTY_TWO_BITS:
    raise ValueError(f'{path}: a mask of palette colors must have 8 bits a channel.')
  shifts = np.array([16, 8, 0])
  colors = (np.asarray(palette, np.int64).reshape(-1, 3) << shifts).sum(-1)
  pixels = (np.asarray(image.convert('RGB'), np.int64) << shifts).sum(-1)
  found, inverse = np.unique(pixels, return_inverse=True)
  unknown = [f'#{color:06x}' for color in found if color not in colors]
  if unknown:
    raise ValueError(f'{path}: the mask has colors that are not in the palette: '
                     f'{_listed(unknown)}.')
  order = np.argsort(colors)
  return order[np.searchsorted(colors, found, sorter=order)][inverse].reshape(pixels.shape)


def _gray_indices(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
  """Pixel values of a mask whose values, not colors, are the classes: integers [H,W]."""
  pixels = np.asarray(image)
  if image.mode in ('LA', 'PA', 'RGBA') and pixels[..., -1].min() < 255:
    raise ValueError(f'{path}: the mask has transparent pixels; save it without transparency.')
  if image.mode in ('1', 'L', 'P', *_SIXTEEN_BITS):
    return pixels.astype(np.int64)
  if image.mode in ('LA', 'PA'):
    return pixels[..., 0].astype(np.int64)
  if image.mode in ('RGB', 'RGBA'):
    if (pixels[..., :1] == pixels[..., 1:3]).all():
      return pixels[..., 0].astype(np.int64)
    raise ValueError(f'{path}: the mask is colored; give the colors of the classes as a palette.')
  raise ValueError(f'{path}: a mask must have 8 or 16 bits, gray or RGB, not pixels of kind '
                   f'{image.mode}.')


def read_mask(
    path: str | os.PathLike,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
) -> np.ndarray:
  """Reads a mask as class indices: class = label_map[source], source = pixel or palette index.

  Without a palette the pixel values are the source labels (for a palette PNG its indices). Where
  there are two source labels, or their number is unknown, a mask of 0 and 255 only means 0 and 1.
  With a palette the colors alone decide, in a palette PNG too.

  Args:
    path: PNG, TIFF or (if lossless) JPEG file of 8 or 16 bits.
    palette: RGB colors by source label.
    label_map: class of each source label; () leaves them as they are.
    num_classes: classes a pixel may have; None allows 0..255.

  Returns:
    uint8 [H,W].

  Raises:
    FileNotFoundError, ValueError: as `read_image`; values outside the labels, colors outside the
      palette, colors without a palette, varying transparency.
  """
  image = _decode(path)
  num_labels = len(label_map) or num_classes
  if palette:
    label = _palette_indices(path, image, palette)
    values = np.unique(label)
  else:
    label = _gray_indices(path, image)
    values = np.unique(label)
    if num_labels in (None, 2) and set(values.tolist()) <= {0, 255}:
      label, values = label // 255, values // 255
  outside = values[values >= (num_labels or 256)]
  if outside.size:
    hint = ' (JPEG does not keep labels: save masks as PNG)' if image.format == 'JPEG' else ''
    raise ValueError(f'{path}: the mask has the values {_listed(outside.tolist())}, but the labels '
                     f'are 0 to {(num_labels or 256) - 1}{hint}.')
  if label_map:
    label = np.asarray(label_map)[label]
  return label.astype(np.uint8)


def visible_files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Entries of a folder in order of their names, without hidden files and desktop droppings."""
  return sorted(path for path in pathlib.Path(folder).iterdir()
                if not path.name.startswith('.') and path.name not in _NOT_IMAGES)


def list_images(path: str | os.PathLike) -> list[pathlib.Path]:
  """The file itself, or the visible files of a folder in order of their names, whatever they hold.

  Raises:
    FileNotFoundError: there is no such path.
    ValueError: the folder holds no visible file.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'{path}: there is no such file or folder.')
  files = [path] if path.is_file() else [p for p in visible_files(path) if p.is_file()]
  if not files:
    raise ValueError(f'{path}: the folder holds no images.')
  return files


def is_volume(path: str | os.PathLike) -> bool:
  """Whether the file is a volume by its suffix; any other file may be an image."""
  return bool(volumes.suffix_of(path))


def _name_of(path: pathlib.Path) -> str:
  """The file's name without its suffix, .nii.gz and .mrk.json being one."""
  suffix = volumes.suffix_of(path) or landmarks.suffix_of(path) or path.suffix
  return path.name[:len(path.name) - len(suffix)]


def _by_name(folders: Sequence[pathlib.Path], suffix: str, faults: list[str]
             ) -> dict[str, pathlib.Path]:
  """Files of folders by their name without the suffix."""
  files = {}
  for path in (path for folder in folders for path in visible_files(folder)):
    name = _name_of(path).removesuffix(suffix)
    if not path.is_file():
      faults.append(f'{path}: this is not a file; put the images directly into {path.parent}.')
    elif name in files:
      faults.append(f'{path}: the name {name} is already taken by {files[name].name}.')
    else:
      files[name] = path
  return files


def _groups(directory: pathlib.Path, faults: list[str]) -> list[
    tuple[str, pathlib.Path, list[pathlib.Path], str]]:
  """(split, folder of images, folders of masks, suffix of mask names) of either layout."""
  images = directory / 'images'
  masks = [folder for folder in (directory / 'masks', directory / 'landmarks') if folder.is_dir()]
  if images.is_dir() and (masks or any(map(is_volume, visible_files(images)))):
    return [('', images, masks, '')]
  images, masks = directory / 'dataset', directory / 'groundtruth'
  if not (images.is_dir() and masks.is_dir()):
    found = _listed([path.name for path in visible_files(directory)]) or 'nothing'
    raise ValueError(f'{directory}: expected {LAYOUTS}; found {found}.')
  groups = []
  for folder in sorted({path.name for path in visible_files(images) + visible_files(masks)}):
    if folder not in ('train', 'validation', 'val', 'test'):
      faults.append(f'{images / folder}: expected the folders train, validation (or val) and test.')
    elif not ((images / folder).is_dir() and (masks / folder).is_dir()):
      faults.append(f'{images / folder}: images and masks need a folder each; expected '
                    f'{images / folder} and {masks / folder}.')
    else:
      split = 'validation' if folder == 'val' else folder
      groups.append((split, images / folder, [masks / folder], '_bone_3'))
  return groups


def _spacing(text: str) -> float:
  """Millimeters per pixel; NaN of an empty text or nan."""
  spacing = float(text) if text.strip() else math.nan
  if spacing <= 0 or math.isinf(spacing):
    raise ValueError
  return spacing


def read_cases(
    path: str | os.PathLike, names: Sequence[str],
) -> tuple[dict[str, tuple[str, tuple[float, float]]], list[str]]:
  """Reads patients and pixel spacings of the cases from a table.

  The columns are name (the file name without extension), patient, spacing_y_mm and spacing_x_mm
  (vertical and horizontal size of a pixel of the original image); all but name may be missing, a
  spacing may be empty, other columns are ignored. Comma, semicolon or tab separated, UTF-8. Volumes
  take their spacing from their own files.

  Args:
    path: the table.
    names: the cases; each must have one line.

  Returns:
    name -> (patient, (spacing_y, spacing_x)), patient = name and spacing = NaN where the table has
    no such column; and the faults, one line each.
  """
  faults = []
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError):
    return {}, [f'{path}: the table cannot be read as UTF-8 text.']
  header = text.split('\n', 1)[0]
  table = csv.DictReader(io.StringIO(text, newline=''), delimiter=max(',;\t', key=header.count))
  columns = [column.strip() for column in table.fieldnames or ()]
  table.fieldnames = columns
  if 'name' not in columns:
    return {}, [f'{path}: the first line must name the columns ({", ".join(CASES_COLUMNS)}); '
                f'it is {header.strip()!r}.']
  cases, known = {}, set(names)
  for row in table:
    where = f'{path} line {table.line_num}'
    cell = {column: (row[column] or '').strip() for column in columns}
    name, patient = cell['name'], cell['patient'] if 'patient' in columns else cell['name']
    try:
      spacing = tuple(_spacing(cell.get(f'spacing_{axis}_mm', '')) for axis in 'yx')
    except ValueError:
      faults.append(f'{where}: spacings are positive numbers of millimeters, such as 0.25.')
      continue
    if name not in known:
      faults.append(f'{where}: there is no image called {name!r}.')
    elif name in cases:
      faults.append(f'{where}: {name} has a line already.')
    elif not patient:
      faults.append(f'{where}: the patient of {name} is empty.')
    else:
      cases[name] = patient, spacing
      known.add(name)
  if not faults:
    faults += [f'{path}: {name} has no line.' for name in names if name not in cases]
  return cases, faults


def find_pairs(directory: str | os.PathLike) -> tuple[list[Pair], list[str]]:
  """Pairs images with masks by name, without opening them.

  Layouts: images/ and masks/ with equal names (extensions may differ); or dataset/SPLIT and
  groundtruth/SPLIT, SPLIT in train, validation (val), test, masks called NAME or NAME_bone_3, which
  fixes the splits. The case is named by the image without its extension, and that name is the
  patient unless cases.csv says otherwise (see `read_cases`). Hidden files are ignored.

  Volumes (see `volumes.KINDS`) lie as images do; their laminae are a mask, or a table of
  `landmarks.TABLES` in landmarks/ or masks/, or are in the NPZ file of the volume itself.

  Returns:
    The pairs in order of (split, name), and the faults, one line each.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: neither layout.
  """
  directory = pathlib.Path(directory)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  if not directory.is_dir():
    raise ValueError(f'{directory}: expected a folder, with {LAYOUTS}.')
  faults, pairs = [], {}
  for split, image_folder, mask_folders, suffix in _groups(directory, faults):
    images = _by_name([image_folder], '', faults)
    masks = _by_name(mask_folders, suffix, faults)
    if not images:
      faults.append(f'{image_folder}: the folder holds no images.')
    for name in sorted(images.keys() | masks.keys()):
      if name not in images:
        faults.append(f'{masks[name]}: the mask has no image; expected {image_folder / name}.png '
                      'or another image.')
      elif name not in masks and volumes.suffix_of(images[name]) != '.npz':
        expected = (mask_folders or [directory / 'masks'])[0] / (name + suffix)
        if is_volume(images[name]):
          faults.append(f'{images[name]}: the volume has no laminae; expected a mask '
                        f'{expected}.nii.gz or a table of landmarks {name + suffix}.csv.')
        else:
          faults.append(f'{images[name]}: the image has no mask; expected {expected}.png.')
      elif name in pairs:
        faults.append(f'{images[name]}: the name is already taken by {pairs[name].image}; one case '
                      'cannot be in two splits.')
      else:
        pairs[name] = Pair(name, name, images[name], masks.get(name, images[name]), split)
  kinds = {is_volume(pair.image): pair.image.name for pair in pairs.values()}
  if len(kinds) == 2:
    faults.append(f'{directory}: the folder mixes volumes, such as {kinds[True]}, and images, such '
                  f'as {kinds[False]}; give each kind a folder of its own.')
  table = directory / CASES_TABLE
  if table.exists():
    cases, table_faults = read_cases(table, list(pairs))
    faults += table_faults
    for name, (patient, spacing) in cases.items():
      pairs[name] = pairs[name]._replace(patient=patient, spacing=spacing)
  if not pairs and not faults:
    faults.append(f'{directory}: there are no images.')
  return list(pairs.values()), faults


def check_volume_settings(num_classes: int, channels: int, label_map: Sequence[int]) -> None:
  """Raises ValueError unless the settings are those of volumes: background, lamina, gray."""
  if num_classes != 2 or channels != 1 or label_map:
    raise ValueError('volumes have one channel and 2 labels (background, lamina): give 2 classes, '
                     'channels=1 and no label_map.')


def _read_volume_pair(pair: Pair, axes: str) -> dict[str, Any]:
  """The record of a volume and its laminae."""
  volume = volumes.read_volume(pair.image, axes)
  mask, points, region = volume.label, volume.landmarks, volume.region
  if landmarks.suffix_of(pair.mask):
    mask, (points, region) = None, landmarks.read_landmarks(pair.mask, volume.geometry)
  elif pair.mask != pair.image:
    mask, points = volumes.read_mask(pair.mask, volume.geometry), None
  elif mask is None and points is None:
    raise ValueError(f'{pair.image}: the volume has no laminae; expected label or landmarks in the '
                     f'file, or a file masks/{pair.name}.nii.gz or landmarks/{pair.name}.csv.')
  if points is None:
    points, region = landmarks.landmarks_of_mask(mask)
  if not len(points):
    raise ValueError(f'{pair.mask}: there is no lamina in it; leave the volume out or mark one.')
  if region is None:
    region = np.full(len(points), landmarks.UNKNOWN, np.int8)
  label = landmarks.cubes(points, volume.array.shape) if mask is None else mask > 0
  return dict(name=pair.name, patient=pair.patient, image=volume.array[..., None],
              label=label.astype(np.uint8), spacing=volume.spacing,
              landmarks=points.astype(np.float32), region=region)


def read_pair(
    pair: Pair,
    channels: int = 1,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
    axes: str = '',
) -> dict[str, Any]:
  """Reads a pair as a record.

  Returns:
    name, patient: str; image: uint8 or float32 [H,W,channels] in 0..255; label: uint8 [H,W];
    spacing: float32 [2] mm per pixel, NaN where unknown. Of a volume: image float32 [D,H,W,1] as
    stored, in the axes of `orientation`; label uint8 [D,H,W], 1 = lamina: the mask, or cubes of
    3x3x3 voxels about the landmarks of a table; spacing float32 [3]; landmarks float32 [P,3] voxels
    (see `landmarks.Landmarks`), of the table or else the centroids of the mask; region int8 [P].

  Raises:
    FileNotFoundError, ValueError: as `read_image` and `read_mask`, or `volumes.read_volume`,
      `volumes.read_mask` and `landmarks.read_landmarks`; sizes that differ; no lamina.
  """
  if is_volume(pair.image):
    return _read_volume_pair(pair, axes)
  image = read_image(pair.image, channels)
  label = read_mask(pair.mask, palette, label_map, num_classes)
  if image.shape[:2] != label.shape:
    sizes = ['{} x {}'.format(*array.shape[:2]) for array in (image, label)]
    raise ValueError(f'{pair.mask}: the mask is {sizes[1]} (height x width), its image {sizes[0]}.')
  return dict(name=pair.name, patient=pair.patient, image=image, label=label,
              spacing=np.array(pair.spacing, np.float32))


def digest_record(record: dict[str, Any]) -> str:
  """Hexadecimal digest of a record: changes with any pixel, landmark, name, patient or spacing."""
  digest = hashlib.blake2b(digest_size=16)
  digest.update(repr((record['name'], record['patient'], record['image'].shape)).encode())
  digest.update(np.ascontiguousarray(record['image'], np.float32).tobytes())
  digest.update(np.ascontiguousarray(record['label'], np.uint8).tobytes())
  for name, dtype in (('spacing', np.float32), ('landmarks', np.float32), ('region', np.int8)):
    digest.update(np.ascontiguousarray(record.get(name, ()), dtype).tobytes())
  return digest.hexdigest()


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int,
    *,
    channels: int = 1,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    axes: str = '',
    progress: Callable[[], Any] = lambda: None,
) -> tuple[list[Pair], list[str]]:
  """Decodes both files of every pair and collects every fault.

  Args:
    pairs: of `find_pairs`.
    num_classes: classes after label_map, background included.
    channels, palette, label_map, axes: as `read_pair`.
    progress: called once a pair.

  Returns:
    The sound pairs with size, sixteen_bits, counts (pixels of each class) and digest; and the
    faults, one line each: path, what is wrong, what was expected.
  """

  def check(pair):
    try:
      record = read_pair(pair, channels, palette, label_map, num_classes, axes)
    except (ValueError, FileNotFoundError) as error:
      faults = [str(error)]
      if not is_volume(pair.image):  # what is wrong with the mask, if it was the image
        try:
          read_mask(pair.mask, palette, label_map, num_classes)
        except (ValueError, FileNotFoundError) as other:
          faults += [str(other)] * (str(other) not in faults)
      return None, faults
    image, label = record['image'], record['label']
    counts = np.bincount(label.reshape(-1), minlength=num_classes).tolist()
    return pair._replace(size=label.shape, sixteen_bits=image.dtype == np.float32,
                         counts=tuple(counts), digest=digest_record(record)), []

  sound, faults = [], []
  few = any(is_volume(pair.image) for pair in pairs)  # a dozen volumes may fill the memory
  with concurrent.futures.ThreadPoolExecutor(2 if few else os.cpu_count()) as pool:
    for pair, found in pool.map(check, pairs):
      sound += [pair] if pair else []
      faults += found
      progress()
  return sound, faults
