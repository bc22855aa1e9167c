"""Files of the user: reading, pairing and checking images (PNG, JPEG, TIFF, DICOM) and volumes."""
import concurrent.futures
import csv
import hashlib
import io
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from spinejax.readers import dicom
from spinejax.readers import landmarks
from spinejax.readers import trimaps
from spinejax.readers import volumes

LAYOUTS = (
    'images/NAME.png with masks/NAME.png, or dataset/{train,test}/NAME.png with '
    'groundtruth/{train,test}/NAME_bone_3.png, or X-rays NAME.jpg with NAME-mask-trimap.png in one '
    'folder (or in training and test), or X-rays data/{training,test}/NAME.jpg with '
    'labels/{training,test}/landmarks.csv, or volumes images/NAME.nii.gz with masks/NAME.nii.gz or '
    'landmarks/NAME.csv'
)
CASES_TABLE = 'cases.csv'
CASES_COLUMNS = ('name', 'patient', 'spacing_y_mm', 'spacing_x_mm')

_FORMATS = ('PNG', 'JPEG', 'TIFF')
_GRAY = ('1', 'L', 'LA', 'La')
_SIXTEEN_BITS = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_THIRTY_TWO_BITS = ('I', 'F')
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # tag of TIFF
_LUMINANCE = (19595, 38470, 7471)  # ITU-R 601 in 1/65536, as pillow rounds it
_NOT_IMAGES = ('Thumbs.db', 'desktop.ini')
_SPLITS = {'train': 'train', 'training': 'train', 'validation': 'validation', 'val': 'validation',
           'test': 'test'}
_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', *dicom.SUFFIXES)
_TRIMAP_ENDS = ('-mask-trimap-grayscale', '-mask-trimap')

_COLORS = dict(black='000000', white='ffffff', red='ff0000', green='00ff00', blue='0000ff',
               yellow='ffff00', cyan='00ffff', magenta='ff00ff', gray='808080')
_NEAR = 48  # distance in RGB within which a pixel is a color beyond doubt, JPEG noise included
_LEAST_NEARNESS = 4  # colors closer to each other than twice this are not snapped to
_NOISE = 16  # of a color in JPEG
_MOST_SNAPPED = 0.1  # of the pixels may be further away from every color
_EDGE = 3, 7, 0.02  # least and most pixels, share of the smaller side: such a square is no edge
_COLORED = 16, 0.01  # levels between the channels of a colored pixel, share of such pixels

Palette = Sequence[Sequence[int]]  # RGB by label; or (value,) by label, for gray masks


class Pair(NamedTuple):
  """An image, its mask and what is known about them; `check_pairs` fills in the last four.

  The mask may be a table of landmarks, or, of a volume, the NPZ file of the volume itself.
  """
  name: str
  patient: str
  image: pathlib.Path
  mask: pathlib.Path
  split: str = ''  # 'train', 'validation' or 'test'; '' where the folder has no splits
  spacing: tuple[float, ...] = (math.nan, math.nan)  # mm per pixel: vertical, horizontal
  size: tuple[int, ...] = ()
  sixteen_bits: bool = False  # or more: the image is read as float32
  counts: tuple[int, ...] = ()  # pixels of each class
  digest: str = ''
  line: int = 0  # of the table `mask` with landmarks of many images, from 1; 0: it is this one's
  notes: tuple[str, ...] = ()  # what reading did to the files, in words


class Picture(NamedTuple):
  """An image file as read.

  Attributes:
    pixels: uint8 or float32 [H,W,channels], 0..255.
    spacing: mm per pixel, vertical and horizontal, of a DICOM file that says it; else NaN.
    notes: what was done to the pixels, in words.
  """
  pixels: np.ndarray
  spacing: tuple[float, ...] = (math.nan, math.nan)
  notes: tuple[str, ...] = ()


def _content(path: str | os.PathLike) -> bytes:
  try:
    content = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: there is no such file.') from None
  except OSError as error:
    raise ValueError(f'{path}: the file cannot be read ({error.strerror}).') from None
  if not content:
    raise ValueError(f'{path}: the file is empty.')
  return content


def _most_pixels() -> int:
  """Pixels from which on pillow refuses an image."""
  return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)


def _decode(path: str | os.PathLike, content: bytes) -> Image.Image:
  """The loaded image of a file, whatever its extension; one sentence for whatever is wrong."""
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
        f'{path}: this is not a PNG, JPEG or TIFF image, nor DICOM, or its header is damaged.'
    ) from None
  except Image.DecompressionBombError:
    raise ValueError(
        f'{path}: the image has more than {_most_pixels()} pixels; save it smaller.') from None
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


def read_picture(path: str | os.PathLike, channels: int = 1) -> Picture:
  """Reads a PNG, JPEG, TIFF or DICOM image as gray levels 0..255, and what is to be said about it.

  The content decides the format, not the extension. Pixels are taken as stored: an orientation in
  EXIF is not applied, here as in `read_mask`, so that a pair stays a pair. Transparency is dropped.
  For DICOM see `dicom.read_dicom`; 16-bit TIFF whose white is 0 is inverted, as pillow does with 8
  bits.

  Args:
    path: file of 8 or 16 bits: gray, RGB, RGBA or palette; or DICOM of 8 to 16 bits.
    channels: 1 or 3; see `set_channels`.

  Returns:
    pixels [H,W,channels]: uint8 of an 8-bit file, float32 = value / 257 of a 16-bit one or of most
    DICOM files.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: empty, truncated or corrupt file, another format, several pages, 32 bits a pixel.
  """
  content = _content(path)
  if dicom.is_dicom(path, content):
    pixels, spacing, notes = dicom.read_dicom(path, content, _most_pixels())
    return Picture(set_channels(pixels, channels), spacing, notes + _color_note(pixels, channels))
  image = _decode(path, content)
  if image.mode in _THIRTY_TWO_BITS:
    raise ValueError(f'{path}: the pixels have 32 bits; save the image with 8 or 16 bits.')
  if image.mode in _SIXTEEN_BITS:
    pixels = np.asarray(image).astype(np.float32)[..., None] / np.float32(257)
    tags = getattr(image, 'tag_v2', {})
    if image.format == 'TIFF' and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
      inverted = np.float32(255) - pixels
      return Picture(set_channels(inverted, channels), notes=('inverted (white is 0)',))
  elif image.mode in _GRAY:
    pixels = np.array(image.convert('L'))[..., None]
  else:
    pixels = np.array(image.convert('RGB'))
  return Picture(set_channels(pixels, channels), notes=_color_note(pixels, channels))


def _color_note(pixels: np.ndarray, channels: int) -> tuple[str, ...]:
  """Says that a colored picture lost its color."""
  if channels == 3 or pixels.shape[-1] == 1:
    return ()
  levels, share = _COLORED
  colored = pixels.max(-1) - pixels.min(-1) > levels
  return ('a color picture, turned to gray',) if colored.mean() > share else ()


def read_image(path: str | os.PathLike, channels: int = 1) -> np.ndarray:
  """The pixels of `read_picture`: [H,W,channels], uint8 or float32, 0..255."""
  return read_picture(path, channels).pixels


def parse_palette(text: str) -> Palette:
  """The palette of a text: a color for each label, background first; () of an empty text.

  Colors are hexadecimal ('000000,ff0000,...'), or named ('red,green,blue'; green is 00ff00), or, of
  gray masks, the pixel values ('2,1,3'), which come back as 1-tuples.
  """
  cells = [cell.strip().lower().removeprefix('#') for cell in text.split(',') if text]
  if cells and all(cell.isascii() and cell.isdigit() and len(cell) <= 3 for cell in cells):
    return tuple((int(cell),) for cell in cells)
  try:
    colors = [bytes.fromhex(_COLORS.get(cell, cell)) for cell in cells]
  except ValueError:
    colors = [b'']
  if any(len(color) != 3 for color in colors):
    raise ValueError(
        f"a palette is written as hexadecimal colors such as '000000,ff0000', as names such as "
        f"'red,green,blue' ({', '.join(_COLORS)}) or as gray values such as '2,1,3', not '{text}'.")
  return tuple(tuple(color) for color in colors)


def check_palette(palette: Palette, num_labels: int) -> None:
  """Raises ValueError unless the palette is empty or has a color for each label, all different."""
  if palette and len(palette) != num_labels:
    raise ValueError(f'the palette has {len(palette)} colors for {num_labels} labels; give one for '
                     'each, background first.')
  if len(set(map(tuple, palette))) != len(palette):
    raise ValueError('the palette has a color twice.')
  if len({len(color) for color in palette}) > 1 or any(
      not 0 <= level <= 255 for color in palette for level in color):
    raise ValueError('the palette must be colors only or gray values only, of levels 0 to 255.')


def _listed(values: Sequence[Any], most: int = 5) -> str:
  """'a, b, c and 4 more'."""
  head = ', '.join(str(value) for value in values[:most])
  return head if len(values) <= most else f'{head} and {len(values) - most} more'


def _patch_of_one_color(far: np.ndarray, pixels: np.ndarray) -> bool:
  """Whether a square far from every color of the palette is of one color, as no edge is."""
  least, most, share = _EDGE
  side = 2 * (min(max(round(share * min(far.shape)), least), most) // 2) + 1
  patch = far.view(np.uint8)
  for axis in (0, 1):
    patch = ndimage.minimum_filter1d(patch, side, axis, mode='constant')
  centers = np.argwhere(patch)
  centers = centers[::len(centers) // 4096 + 1] - side // 2
  if not len(centers):
    return False
  windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
  windows = windows[centers[:, 0], centers[:, 1]].astype(np.int32)
  return bool((np.ptp(windows, (-2, -1)).max(-1) <= _NOISE).any())


def _palette_indices(path: str | os.PathLike, image: Image.Image, palette: Palette
                     ) -> tuple[np.ndarray, list[str]]:
  """Index of the color in the palette nearest to each pixel, uint8 [H,W]; and what was snapped.

  Raises:
    ValueError: too many pixels, or a patch of one color, far from every color.
  """
  if len(palette[0]) == 1:
    pixels = _gray_indices(path, image)[..., None]
  elif image.mode in _SIXTEEN_BITS + _THIRTY_TWO_BITS:
    raise ValueError(f'{path}: a mask of palette colors must have 8 bits a channel.')
  else:
    pixels = np.asarray(image.convert('RGB'))
  colors = np.asarray(palette, np.int64)
  apart = np.linalg.norm(colors[:, None] - colors, axis=-1)
  nearness = min(_NEAR, apart[apart > 0].min() / 2) if len(colors) > 1 else _NEAR
  snappable = nearness > _LEAST_NEARNESS  # between 1 and 3 lies 2, which means something else
  label, far = np.empty(pixels.shape[:2], np.uint8), np.zeros(pixels.shape[:2], bool)
  found, counts, snapped, noisy = [], [], 0, 0
  for rows in _blocks(label.shape):
    code = np.zeros(pixels[rows].shape[:2], np.uint32)
    for channel in range(pixels.shape[-1]):
      code = (code << np.uint32(8 if colors.shape[1] == 3 else 0)) | pixels[rows][..., channel]
    values, inverse, count = np.unique(code, return_inverse=True, return_counts=True)
    shifts = np.array([16, 8, 0] if colors.shape[1] == 3 else [0])
    levels = (values[:, None].astype(np.int64) >> shifts) & (255 if len(shifts) == 3 else 0xffff)
    distance = np.linalg.norm(levels[:, None] - colors, axis=-1)
    least = distance.min(-1)
    off = least > nearness if snappable else least > 0
    label[rows] = distance.argmin(-1).astype(np.uint8)[inverse].reshape(code.shape)
    far[rows] = off[inverse].reshape(code.shape)
    snapped += int(count[least > _NOISE].sum())
    noisy += int(count[(least > 0) & (least <= _NOISE)].sum())
    found.append(levels[off])
    counts.append(count[off])
  share = far.mean()
  if share > (_MOST_SNAPPED if snappable else 0) or _patch_of_one_color(far, pixels):
    values, inverse = np.unique(np.concatenate(found), axis=0, return_inverse=True)
    order = np.argsort(-np.bincount(inverse.reshape(-1), np.concatenate(counts)), kind='stable')
    unknown = ['#{:02x}{:02x}{:02x}'.format(*v) if len(v) == 3 else v[0] for v in values[order]]
    raise ValueError(f'{path}: the mask has colors that are not in the palette: '
                     f'{_listed(unknown)} ({100 * share:.3g}% of the pixels); correct the palette, '
                     'or save the mask without smoothing.')
  noise = f' ({noisy} more lie within {_NOISE} levels of one)' if noisy else ''
  return label, [f'{snapped} pixels ({100 * snapped / label.size:.3g}%) snapped to the nearest '
                 f'color{noise}'] if snapped or noisy else []


def _blocks(shape: Sequence[int], most: int = 1 << 20) -> list[slice]:
  """Slices of rows of about `most` pixels each."""
  step = max(1, most // max(shape[1], 1))
  return [slice(start, start + step) for start in range(0, shape[0], step)]


def _values_of(label: np.ndarray) -> np.ndarray:
  """The different values in a mask, ascending, without a wide copy of it."""
  return np.unique(np.concatenate([np.unique(label[rows]) for rows in _blocks(label.shape)]))


def _gray_indices(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
  """Pixel values of a mask whose values, not colors, are the classes: uint8 or uint16 [H,W]."""
  pixels = np.asarray(image)
  if image.mode in ('LA', 'PA', 'RGBA') and pixels[..., -1].min() < 255:
    raise ValueError(f'{path}: the mask has transparent pixels; save it without transparency.')
  if image.mode in ('1', 'L', 'P', *_SIXTEEN_BITS):
    return pixels.astype(np.uint16 if pixels.dtype.itemsize > 1 else np.uint8, copy=False)
  if image.mode in ('LA', 'PA'):
    return pixels[..., 0]
  if image.mode in ('RGB', 'RGBA'):
    if (pixels[..., :1] == pixels[..., 1:3]).all():
      return pixels[..., 0]
    raise ValueError(f'{path}: the mask is colored; give the colors of the classes as a palette, '
                     "background first, such as 'red,green,blue'.")
  raise ValueError(f'{path}: a mask must have 8 or 16 bits, gray or RGB, not pixels of kind '
                   f'{image.mode}.')


def read_mask(
    path: str | os.PathLike,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
) -> np.ndarray:
  """The class indices of `inspect_mask`, uint8 [H,W]."""
  return inspect_mask(path, palette, label_map, num_classes)[0]


def inspect_mask(
    path: str | os.PathLike,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Reads a mask as class indices: class = label_map[source], source = pixel or palette index.

  Without a palette the pixel values are the source labels (for a palette PNG its indices). Where
  there are two source labels, or their number is unknown, a mask of 0 and 255 only means 0 and 1.
  With a palette of colors these alone decide, in a palette PNG too; with one of gray values, source
  n is what has the n-th value. Pixels of other colors, as anti-aliasing and JPEG leave them along
  edges, are snapped to the nearest color, unless more than 10 % of the pixels, or a patch of one
  color (7x7, 3x3 in small masks), lie further than 48 levels (or half the distance between two
  colors) from all. Gray values closer than 8 to each other are not snapped to.

  Args:
    path: PNG, TIFF or JPEG file of 8 or 16 bits.
    palette: RGB colors or (value,) by source label.
    label_map: class of each source label; () leaves them as they are.
    num_classes: classes a pixel may have; None allows 0..255.

  Returns:
    uint8 [H,W]; and what is to be said about it, in words: snapped pixels, and of three labels a
    missing one.

  Raises:
    FileNotFoundError, ValueError: as `read_image`; values outside the labels, colors outside the
      palette, colors without a palette, varying transparency; of three labels only one that is not
      the background.
  """
  content = _content(path)
  if dicom.is_dicom(path, content):
    raise ValueError(f'{path}: masks are PNG, TIFF or JPEG images, not DICOM.')
  image = _decode(path, content)
  num_labels = len(label_map) or num_classes
  notes: list[str] = []
  if palette:
    label, notes = _palette_indices(path, image, palette)
    values = _values_of(label)
  else:
    label = _gray_indices(path, image)
    values = _values_of(label)
    if num_labels in (None, 2) and set(values.tolist()) <= {0, 255}:
      label, values = label // 255, values // 255
  outside = values[values >= (num_labels or 256)]
  if outside.size:
    raise ValueError(f'{path}: the mask has the values {_listed(outside.tolist())}, but the labels '
                     f'are 0 to {(num_labels or 256) - 1}'
                     f'{_mask_hint(image.format, values.tolist(), num_labels)}.')
  if num_labels == 3:
    if len(values) == 1 and values[0]:
      raise ValueError(f'{path}: every pixel of the mask is of label {values[0]}; expected '
                       'background, core and border.')
    notes += trimaps.doubts(label)
  if label_map:
    label = np.asarray(label_map).astype(np.uint8)[label]
  return label.astype(np.uint8, copy=False), tuple(notes)


def _mask_hint(kind: str | None, values: Sequence[int], num_labels: int | None) -> str:
  """What a mask of values outside of the labels may be."""
  if kind == 'JPEG':
    return ' (JPEG does not keep labels: save masks as PNG, or give the palette they were drawn in)'
  if num_labels == 3 and set(values) <= {1, 2, 3}:
    return (" (a trimap of 1 = core, 2 = background, 3 = border, as of the Oxford pets, needs the "
            "palette '2,1,3')")
  if num_labels == 3 and len(values) == 3:
    low, middle, high = values
    return (f" (a trimap of three gray values needs a palette of them, such as '{low},{high},"
            f"{middle}')")
  return ''


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


def unique_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The name of each file without its suffix, or with it where two files share the rest."""
  stems = [path.name.removesuffix(path.name[-len(volumes.suffix_of(path)):])
           if volumes.suffix_of(path) else path.stem for path in paths]
  return {path: stem if stems.count(stem) == 1 else path.name for path, stem in zip(paths, stems)}


def is_volume(path: str | os.PathLike) -> bool:
  """Whether the file is a volume by its suffix; any other file may be an image."""
  return bool(volumes.suffix_of(path))


def _name_of(path: pathlib.Path) -> str:
  """The file's name without its suffix, .nii.gz and .mrk.json being one, and NAME.jpg.mat NAME."""
  suffix = volumes.suffix_of(path) or landmarks.suffix_of(path) or path.suffix
  name = path.name[:len(path.name) - len(suffix)]
  inner = pathlib.Path(name).suffix
  return name.removesuffix(inner) if suffix == '.mat' and inner.lower() in _SUFFIXES else name


def _by_name(folders: Sequence[pathlib.Path], suffixes: Sequence[str], faults: list[str],
             among: Callable[[pathlib.Path], bool] = lambda path: True) -> dict[str, pathlib.Path]:
  """Files of folders, those `among` them, by their name without the first suffix that it has."""
  files: dict[str, pathlib.Path] = {}
  for path in (path for folder in folders for path in visible_files(folder) if among(path)):
    name = _name_of(path)
    name = name.removesuffix(next((end for end in suffixes if name.endswith(end)), ''))
    if not path.is_file():
      faults.append(f'{path}: this is not a file; put the images directly into {path.parent}.')
    elif name in files:
      faults.append(f'{path}: the name {name} is already taken by {files[name].name}.')
    else:
      files[name] = path
  return files


class _Group(NamedTuple):
  """Folders that are paired by name."""
  split: str
  images: pathlib.Path
  masks: list[pathlib.Path]
  ends: tuple[str, ...] = ()  # of the names of masks
  prefix: str = ''  # of the names of cases
  mixed: bool = False  # images and trimaps in one folder, other folders beside them
  table: pathlib.Path | None = None  # landmarks of all images


def _is_trimap(path: pathlib.Path) -> bool:
  return _name_of(path).endswith(_TRIMAP_ENDS)


def _trimap_groups(directory: pathlib.Path) -> list[_Group]:
  """X-rays with trimaps NAME-mask-trimap beside them or in masks/rgb, masks/grayscale or masks/.

  The folder itself, or its folders training, validation and test, each with numbers of its own:
  cases are then called after both. Where colors and gray values are there, the colors count.
  """

  def group(folder, split, prefix):
    places = [folder / 'masks' / 'rgb', folder / 'masks' / 'grayscale', folder / 'masks', folder]
    masks = next((place for place in places if place.is_dir() and any(
        map(_is_trimap, visible_files(place)))), None)
    held = any(path.is_file() and not _is_trimap(path) for path in visible_files(folder))
    return [_Group(split, folder, [masks], _TRIMAP_ENDS, prefix, True)] if masks and held else []

  groups = group(directory, '', '')
  for folder in sorted(path for path in visible_files(directory) if path.is_dir()):
    if not groups or groups[0].prefix:
      if folder.name in _SPLITS:
        groups += group(folder, _SPLITS[folder.name], f'{folder.name}-')
  return groups


def _landmark_groups(directory: pathlib.Path, faults: list[str]) -> list[_Group]:
  """X-rays in data/SPLIT with labels/SPLIT/landmarks.csv, or a table NAME.jpg.mat for each."""
  groups = []
  for folder in visible_files(directory / 'data'):
    labels = directory / 'labels' / folder.name
    if folder.name not in _SPLITS or not labels.is_dir():
      faults.append(f'{folder}: expected the folders training (or train), validation (or val) and '
                    f'test, each in {directory / "data"} and in {directory / "labels"}.')
      continue
    table = labels / 'landmarks.csv'
    table = table if table.is_file() else None
    groups.append(_Group(_SPLITS[folder.name], folder, [] if table else [labels], table=table))
  return groups


def _groups(directory: pathlib.Path, faults: list[str]) -> list[_Group]:
  """What is paired with what, of any layout."""
  images = directory / 'images'
  masks = [folder for folder in (directory / 'masks', directory / 'landmarks') if folder.is_dir()]
  if images.is_dir() and (masks or any(map(is_volume, visible_files(images)))):
    return [_Group('', images, masks, _TRIMAP_ENDS)]
  images, masks = directory / 'dataset', directory / 'groundtruth'
  if not (images.is_dir() and masks.is_dir()):
    if all((directory / name).is_dir() for name in ('data', 'labels')):
      return _landmark_groups(directory, faults)
    groups = _trimap_groups(directory)
    if groups:
      return groups
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
      groups.append(_Group(_SPLITS[folder], images / folder, [masks / folder], ('_bone_3',)))
  return groups


def _lines_of(table: pathlib.Path, names: dict[str, pathlib.Path], faults: list[str]
              ) -> dict[str, int]:
  """Line of each image in a table of landmarks, as filenames.csv beside it says."""
  listing = table.with_name('filenames.csv')
  try:
    text = listing.read_text(encoding='utf-8-sig')
  except FileNotFoundError:
    faults.append(f'{listing}: there is no such file; it must name the image of each line of '
                  f'{table.name}.')
    return {}
  except (OSError, UnicodeDecodeError):
    faults.append(f'{listing}: the table cannot be read as UTF-8 text.')
    return {}
  by_file = {path.name: name for name, path in names.items()}
  lines = {}
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


def _spacing(text: str) -> float:
  """Millimeters per pixel; NaN of an empty text or nan."""
  spacing = float(text) if text.strip() else math.nan
  if spacing <= 0 or math.isinf(spacing):
    raise ValueError
  return spacing


def read_cases(
    path: str | os.PathLike, names: Sequence[str],
) -> tuple[dict[str, tuple[str, tuple[float, ...]]], list[str]]:
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
  try:
    columns = [column.strip() for column in table.fieldnames or ()]
  except csv.Error as error:
    return {}, [f'{path} line 1: the line cannot be read as a table ({error}).']
  table.fieldnames = columns
  if 'name' not in columns:
    return {}, [f'{path}: the first line must name the columns ({", ".join(CASES_COLUMNS)}); '
                f'it is {header.strip()[:200]!r}.']
  cases, known = {}, set(names)
  try:
    rows = [(table.line_num, row) for row in table]
  except csv.Error as error:
    return {}, [f'{path} line {table.line_num}: the line cannot be read as a table ({error}).']
  for number, row in rows:
    where = f'{path} line {number}'
    cell = {column: (row[column] or '').strip() for column in columns}
    name, patient = cell['name'], cell['patient'] if 'patient' in columns else cell['name']
    try:
      spacing = tuple(_spacing(cell.get(f'spacing_{axis}_mm', '')) for axis in 'yx')
    except ValueError:
      faults.append(f'{where}: spacings are positive numbers of millimeters, such as 0.25.')
      continue
    if name not in known:
      faults.append(f'{where}: there is no image called {name[:80]!r}.')
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

  X-rays: NAME.jpg and NAME-mask-trimap.png in one folder, or in images/ and masks/, or in the
  folders training, validation and test with the masks in them or in their masks/rgb or
  masks/grayscale, where the cases are called training-NAME and so on. Corners of vertebrae (see
  `trimaps.read_corners`) in landmarks/NAME.csv or NAME.mat beside images/; or those of AASCE:
  data/SPLIT with labels/SPLIT/filenames.csv and landmarks.csv, or with labels/SPLIT/NAME.jpg.mat.

  Volumes (see `volumes.KINDS`) lie as images do; their laminae are a mask, or a table of
  `landmarks.TABLES` in landmarks/ or masks/, or are in the NPZ file of the volume itself.

  Returns:
    The pairs in order of (split, name), and the faults, one line each.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: none of the layouts.
  """
  directory = pathlib.Path(directory)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  if not directory.is_dir():
    raise ValueError(f'{directory}: expected a folder, with {LAYOUTS}.')
  faults: list[str] = []
  pairs: dict[str, Pair] = {}
  for group in _groups(directory, faults):
    images = _by_name([group.images], (), faults, lambda path: not group.mixed or (
        path.is_file() and path.name != CASES_TABLE and not _is_trimap(path)))
    ends = () if group.images.name == 'images' and images.keys() & {
        _name_of(path) for folder in group.masks for path in visible_files(folder)} else group.ends
    masks = _by_name(group.masks, ends, faults,
                     lambda path: not group.mixed or _is_trimap(path))
    lines = {}
    if group.table:
      lines = _lines_of(group.table, images, faults)
      masks = dict.fromkeys(lines, group.table)
    if not images:
      faults.append(f'{group.images}: the folder holds no images.')
    suffix = ends[-1] if ends and (group.mixed or ends != _TRIMAP_ENDS) else ''
    for file in sorted(images.keys() | masks.keys()):
      name = group.prefix + file
      if file not in images:
        faults.append(f'{masks[file]}: the mask has no image; expected {group.images / file}.png '
                      'or another image.')
      elif file not in masks and volumes.suffix_of(images[file]) != '.npz':
        expected = (group.masks or [directory / 'masks'])[0] / (file + suffix)
        if group.table:
          faults.append(f'{images[file]}: the image has no line in '
                        f'{group.table.with_name("filenames.csv")}.')
        elif is_volume(images[file]):
          faults.append(f'{images[file]}: the volume has no laminae; expected a mask '
                        f'{expected}.nii.gz or a table of landmarks {file + suffix}.csv.')
        else:
          faults.append(f'{images[file]}: the image has no mask; expected {expected}.png.')
      elif name in pairs:
        faults.append(f'{images[file]}: the name is already taken by {pairs[name].image}; one case '
                      'cannot be in two splits.')
      else:
        pairs[name] = Pair(name, name, images[file], masks.get(file, images[file]), group.split,
                           line=lines.get(file, 0))
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
  if points is None:
    if mask is None:
      raise ValueError(f'{pair.image}: the volume has no laminae; expected label or landmarks in '
                       f'the file, or a file masks/{pair.name}.nii.gz or '
                       f'landmarks/{pair.name}.csv.')
    points, region = landmarks.landmarks_of_mask(mask)
  if not len(points):
    raise ValueError(f'{pair.mask}: there is no lamina in it; leave the volume out or mark one.')
  if region is None:
    region = np.full(len(points), landmarks.UNKNOWN, np.int8)
  label = landmarks.cubes(points, volume.array.shape) if mask is None else mask > 0
  return dict(name=pair.name, patient=pair.patient, image=volume.array[..., None],
              label=label.astype(np.uint8), spacing=volume.spacing,
              landmarks=points.astype(np.float32), region=region)


def _read_image_pair(
    pair: Pair, channels: int, palette: Palette, label_map: Sequence[int],
    num_classes: int | None, labels: str, border: float) -> tuple[dict[str, Any], tuple[str, ...]]:
  """The record of an image and its mask or corners, and what was done to them, in words."""
  picture = read_picture(pair.image, channels)
  size, drawn = picture.pixels.shape[:2], labels in trimaps.DRAWN
  num_labels, said = len(label_map) or num_classes, []
  if trimaps.is_table(pair.mask):
    corners, notes = trimaps.read_corners(pair.mask, size, pair.line)
    try:
      label, more = trimaps.label_corners(corners, size, labels, border, num_labels)
    except ValueError as error:
      raise ValueError(f'{pair.mask}: {error}') from None
    said += [*notes, *more]
  elif drawn:
    label, notes = inspect_mask(pair.mask, palette)
    _check_size(pair, size, label)
    try:
      label, more = trimaps.label_bodies(label, labels, border, num_labels)
    except ValueError as error:
      raise ValueError(f'{pair.mask}: {str(error).removesuffix(".")}.') from None
    said += [*notes, *more]
  else:
    label, notes = inspect_mask(pair.mask, palette, label_map, num_classes)
    _check_size(pair, size, label)
    said += notes
  if label_map and (drawn or trimaps.is_table(pair.mask)):
    label = np.asarray(label_map, np.uint8)[label]
  spacing = np.array(pair.spacing, np.float32)
  stored = np.array(picture.spacing, np.float32)
  if np.isfinite(spacing).all() and np.isfinite(stored).all() and not np.allclose(
      spacing, stored, rtol=0.01):
    said.append('{:.4g} x {:.4g} mm a pixel of cases.csv used instead'.format(*spacing))
  record = dict(name=pair.name, patient=pair.patient, image=picture.pixels, label=label,
                spacing=np.where(np.isnan(spacing), stored, spacing))
  return record, (*(f'{pair.image.name}: {note}' for note in picture.notes),
                  *(f'{pair.mask.name}: {note}' for note in said))


def _check_size(pair: Pair, size: tuple[int, int], label: np.ndarray) -> None:
  if size != label.shape:
    sizes = ['{} x {}'.format(*shape) for shape in (size, label.shape)]
    raise ValueError(f'{pair.mask}: the mask is {sizes[1]} (height x width), its image {sizes[0]}.')


def read_pair(
    pair: Pair,
    channels: int = 1,
    palette: Palette = (),
    label_map: Sequence[int] = (),
    num_classes: int | None = None,
    axes: str = '',
    labels: str = '',
    border: float = trimaps.BORDER_WIDTH,
) -> dict[str, Any]:
  """Reads a pair as a record.

  Args:
    pair: of `find_pairs` or `check_pairs`.
    channels: as `read_picture`.
    palette, label_map, num_classes: as `inspect_mask`.
    axes: of volumes, as `volumes.read_volume`.
    labels: of images: '' or 'mask' takes masks as they are, the others of `trimaps.LABELS` make
      labels of masks of vertebral bodies (see `trimaps.label_bodies`). Corners of vertebrae become
      what it says, and with '' what goes with the number of labels (see `trimaps.label_corners`).
    border: width of the border made, as a fraction of the image's width.

  Returns:
    name, patient: str; image: uint8 or float32 [H,W,channels] in 0..255; label: uint8 [H,W];
    spacing: float32 [2] mm per pixel of the pair (cases.csv), else of the DICOM file, NaN where
    unknown. Of a volume: image float32 [D,H,W,1] as
    stored, in the axes of `orientation`; label uint8 [D,H,W], 1 = lamina: the mask, or cubes of
    3x3x3 voxels about the landmarks of a table; spacing float32 [3]; landmarks float32 [P,3] voxels
    (see `landmarks.Landmarks`), of the table or else the centroids of the mask; region int8 [P].

  Raises:
    FileNotFoundError, ValueError: as `read_picture`, `inspect_mask` and `trimaps.read_corners`, or
      `volumes.read_volume`, `volumes.read_mask` and `landmarks.read_landmarks`; sizes that differ;
      no lamina or body.
  """
  if is_volume(pair.image):
    return _read_volume_pair(pair, axes)
  return _read_image_pair(pair, channels, palette, label_map, num_classes, labels, border)[0]


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
    labels: str = '',
    border: float = trimaps.BORDER_WIDTH,
    progress: Callable[[], Any] = lambda: None,
) -> tuple[list[Pair], list[str]]:
  """Decodes both files of every pair and collects every fault.

  Args:
    pairs: of `find_pairs`.
    num_classes: classes after label_map, background included.
    channels, palette, label_map, axes, labels, border: as `read_pair`.
    progress: called once a pair.

  Returns:
    The sound pairs with size, sixteen_bits, counts (pixels of each class), digest and notes (such
    as 'NAME.png: 12 pixels (0.1%) snapped to the nearest color'); and the faults, one line each:
    path, what is wrong, what was expected.
  """

  trimaps.check_labels(labels, border)

  def check(pair):
    try:
      if is_volume(pair.image):
        record, notes = _read_volume_pair(pair, axes), ()
      else:
        record, notes = _read_image_pair(
            pair, channels, palette, label_map, num_classes, labels, border)
    except (ValueError, FileNotFoundError) as error:
      faults = [str(error)]
      plain = not (is_volume(pair.image) or trimaps.is_table(pair.mask))
      if plain and labels not in trimaps.DRAWN:  # what is wrong with the mask, if it was the image
        try:
          read_mask(pair.mask, palette, label_map, num_classes)
        except (ValueError, FileNotFoundError) as other:
          faults += [str(other)] * (str(other) not in faults)
      return None, faults
    image, label = record['image'], record['label']
    counts = np.bincount(label.reshape(-1), minlength=num_classes).tolist()
    return pair._replace(size=label.shape, sixteen_bits=image.dtype == np.float32,
                         counts=tuple(counts), digest=digest_record(record), notes=notes), []

  sound, faults = [], []
  few = any(is_volume(pair.image) for pair in pairs)  # a dozen volumes may fill the memory
  with concurrent.futures.ThreadPoolExecutor(2 if few else os.cpu_count()) as pool:
    for pair, found in pool.map(check, pairs):
      sound += [pair] if pair else []
      faults += found
      progress()
  return sound, faults
