"""Image files of the user: reading, pairing and checking them (PNG, JPEG and TIFF)."""
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

LAYOUTS = (
    'images/NAME.png with masks/NAME.png, or dataset/{train,test}/NAME.png with '
    'groundtruth/{train,test}/NAME_bone_3.png'
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
  """An image, its mask and what is known about them; `check_pairs` fills in the last four."""
  name: str
  patient: str
  image: pathlib.Path
  mask: pathlib.Path
  split: str = ''  # 'train', 'validation' or 'test'; '' where the folder has no splits
  spacing: tuple[float, float] = (math.nan, math.nan)  # mm per pixel: vertical, horizontal
  size: tuple[int, int] = (0, 0)
  sixteen_bits: bool = False
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


def _by_name(folder: pathlib.Path, suffix: str, faults: list[str]) -> dict[str, pathlib.Path]:
  """Files of a folder by their stem without the suffix."""
  files = {}
  for path in visible_files(folder):
    name = path.stem.removesuffix(suffix)
    if not path.is_file():
      faults.append(f'{path}: this is not a file; put the images directly into {folder}.')
    elif name in files:
      faults.append(f'{path}: the name {name} is already taken by {files[name].name}.')
    else:
      files[name] = path
  return files


def _groups(directory: pathlib.Path, faults: list[str]) -> list[tuple[str, pathlib.Path,
                                                                      pathlib.Path, str]]:
  """(split, folder of images, folder of masks, suffix of mask names) of either layout."""
  images, masks = directory / 'images', directory / 'masks'
  if images.is_dir() and masks.is_dir():
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
      groups.append((split, images / folder, masks / folder, '_bone_3'))
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
  spacing may be empty, other columns are ignored. Comma, semicolon or tab separated, UTF-8.

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
  for split, image_folder, mask_folder, suffix in _groups(directory, faults):
    images = _by_name(image_folder, '', faults)
    masks = _by_name(mask_folder, suffix, faults)
    if not images:
      faults.append(f'{image_folder}: the folder holds no images.')
    for name in sorted(images.keys() | masks.keys()):
      if name not in masks:
        faults.append(f'{images[name]}: the image has no mask; expected '
                      f'{mask_folder / (name + suffix)}.png.')
      elif name not in images:
        faults.append(f'{masks[name]}: the mask has no image; expected {image_folder / name}.png.')
      elif name in pairs:
        faults.append(f'{images[name]}: the name is already taken by {pairs[name].image}; one case '
                      'cannot be in two splits.')
      else:
        pairs[name] = Pair(name, name, images[name], masks[name], split)
  table = directory / CASES_TABLE
  if table.exists():
    cases, table_faults = read_cases(table, list(pairs))
    faults += table_faults
    for name, (patient, spacing) in cases.items():
      pairs[name] = pairs[name]._replace(patient=patient, spacing=spacing)
  if not pairs and not faults:
    faults.append(f'{directory}: there are no images.')
  return list(pairs.values()), faults


def _record(pair: Pair, image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
  """The record of a pair, or a sentence where the sizes differ."""
  if image.shape[:2] != label.shape:
    sizes = ['{} x {}'.format(*array.shape[:2]) for array in (image, label)]
    raise ValueError(f'{pair.mask}: the mask is {sizes[1]} (height x width), its image {sizes[0]}.')
  return dict(name=pair.name, patient=pair.patient, image=image, label=label,
              spacing=np.array(pair.spacing, np.float32))


def read_pair(
    pair: Pair,
    channels: int = 1,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
) -> dict[str, Any]:
  """Reads a pair as a record.

  Returns:
    name, patient: str; image: uint8 or float32 [H,W,channels] in 0..255; label: uint8 [H,W];
    spacing: float32 [2] mm per pixel, NaN where unknown.

  Raises:
    FileNotFoundError, ValueError: as `read_image` and `read_mask`; sizes that differ.
  """
  return _record(pair, read_image(pair.image, channels),
                 read_mask(pair.mask, palette, label_map, num_classes))


def digest_record(record: dict[str, Any]) -> str:
  """Hexadecimal digest of a record: changes with any pixel, name, patient or spacing."""
  digest = hashlib.blake2b(digest_size=16)
  digest.update(repr((record['name'], record['patient'], record['image'].shape)).encode())
  digest.update(np.ascontiguousarray(record['image'], np.float32).tobytes())
  digest.update(np.ascontiguousarray(record['label'], np.uint8).tobytes())
  digest.update(np.ascontiguousarray(record['spacing'], np.float32).tobytes())
  return digest.hexdigest()


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int,
    *,
    channels: int = 1,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    progress: Callable[[], Any] = lambda: None,
) -> tuple[list[Pair], list[str]]:
  """Decodes both files of every pair and collects every fault.

  Args:
    pairs: of `find_pairs`.
    num_classes: classes after label_map, background included.
    channels, palette, label_map: as `read_image` and `read_mask`.
    progress: called once a pair.

  Returns:
    The sound pairs with size, sixteen_bits, counts (pixels of each class) and digest; and the
    faults, one line each: path, what is wrong, what was expected.
  """

  def check(pair):
    arrays, faults = [], []
    for read, *arguments in ((read_image, pair.image, channels),
                             (read_mask, pair.mask, palette, label_map, num_classes)):
      try:
        arrays.append(read(*arguments))
      except (ValueError, FileNotFoundError) as error:
        faults.append(str(error))
    if faults:
      return None, faults
    try:
      record = _record(pair, *arrays)
    except ValueError as error:
      return None, [str(error)]
    image, label = arrays
    counts = np.bincount(label.reshape(-1), minlength=num_classes).tolist()
    return pair._replace(size=label.shape, sixteen_bits=image.dtype == np.float32,
                         counts=tuple(counts), digest=digest_record(record)), []

  sound, faults = [], []
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for pair, found in pool.map(check, pairs):
      sound += [pair] if pair else []
      faults += found
      progress()
  return sound, faults
