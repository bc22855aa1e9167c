"""Masks of the user as class indices: values, or colors of a palette."""
import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from spinejax.readers import contents, dicom, images, trimaps
from spinejax.readers.records import Palette

_COLORS = dict(black='000000', white='ffffff', red='ff0000', green='00ff00', blue='0000ff',
               yellow='ffff00', cyan='00ffff', magenta='ff00ff', gray='808080')
_NEAR = 48  # RGB distance within which a pixel certainly has a color, with JPEG noise
_LEAST_NEARNESS = 4  # levels; colors closer to each other than twice this are not snapped to
_NOISE = 16  # levels that JPEG may change a color by
_MOST_SNAPPED = 0.1  # share of the pixels that may be far from every color
_PATCH_SIDES = 3, 7  # pixels, least and most side of a square that is too wide for a smoothed edge
_PATCH_SHARE = 0.02  # of the smaller side of the image, side of that square between these limits
_WEIGHTS = np.array([1 << 16, 1 << 8, 1], np.uint32)  # of red, green and blue in a number
_BLOCK = 1 << 20  # pixels converted at a time, to bound the memory


def parse_palette(text: str) -> Palette:
  """Parses a palette: one color per label, background first; () for an empty text.

  Colors are hexadecimal ('000000,ff0000'), named ('red,green,blue'; green is 00ff00) or, for gray
  masks, pixel values ('2,1,3'), which become 1-tuples.
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
        "a palette is a list of hexadecimal colors such as '000000,ff0000', of names such as "
        f"'red,green,blue' ({', '.join(_COLORS)}) or of gray values such as '2,1,3', not '{text}'.")
  return tuple(tuple(color) for color in colors)


def check_palette(palette: Palette, num_labels: int) -> None:
  """Raises ValueError unless the palette is empty or has one distinct color per label."""
  if palette and len(palette) != num_labels:
    raise ValueError(f'the palette has {len(palette)} colors for {num_labels} labels; give one per '
                     'label, background first.')
  if len(set(map(tuple, palette))) != len(palette):
    raise ValueError('the palette has a color twice; give each label a color of its own.')
  if len({len(color) for color in palette}) > 1 or any(
      not 0 <= level <= 255 for color in palette for level in color):
    raise ValueError('the palette must be colors only or gray values only, of levels 0 to 255.')


def read_mask(path: str | os.PathLike, palette: Palette = (), label_map: Sequence[int] = (),
              num_classes: int | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
  """Reads a mask as class indices: class = label_map[source label].

  Without a palette, the source label is the pixel value (of a palette PNG, the index). If there are
  two labels or their number is unknown, a mask of only 0 and 255 means 0 and 1. With a palette of
  colors, the source label is the position of the color, in a palette PNG too. With a palette of
  gray values, it is the position of the value.

  Pixels of other colors, which smoothing and JPEG leave along edges, are snapped to the nearest
  color. The mask is refused if more than 10 % of the pixels, or a patch of one color (3x3 to 7x7),
  are further from every color than 48 levels or half the distance between two colors. Gray values
  closer than 8 to each other are not snapped to.

  Args:
    path: PNG, TIFF or JPEG of 8 or 16 bits.
    palette, label_map, num_classes: as in `records.ReadOptions`; None allows 0..255.

  Returns:
    uint8 [H,W], and notes in words: snapped pixels, and a missing label of three.

  Raises:
    FileNotFoundError, ValueError: as `images.read_picture`; a mask that the options do not fit;
      transparency; a mask of three labels without background.
  """
  content = contents.read_bytes(path)
  if dicom.is_dicom(path, content):
    raise ValueError(f'{path}: masks are PNG, TIFF or JPEG images, not DICOM.')
  image = images.decode(path, content)
  num_labels = len(label_map) or num_classes
  label, notes = (_palette_indices(path, image, palette) if palette else
                  (_gray_values(path, image), []))
  values = np.unique(label)
  if not palette and num_labels in (None, 2) and set(values.tolist()) <= {0, 255}:
    label, values = label // 255, values // 255
  outside = values[values >= (num_labels or 256)]
  if outside.size:
    raise ValueError(f'{path}: the mask has the values {_listed(outside.tolist())}, but the labels '
                     f'are 0 to {(num_labels or 256) - 1}'
                     f'{_hint(image.format, values.tolist(), num_labels)}.')
  if num_labels == 3:
    if len(values) == 1 and values[0]:
      raise ValueError(f'{path}: every pixel of the mask has label {values[0]}; expected '
                       'background, core and border.')
    notes += trimaps.doubts(label)
  if label_map:
    label = np.asarray(label_map).astype(np.uint8)[label]
  return label.astype(np.uint8, copy=False), tuple(notes)


def _hint(kind: str | None, values: Sequence[int], num_labels: int | None) -> str:
  """What a mask with values that are no labels probably is."""
  if kind == 'JPEG':
    return ' (JPEG changes labels: save masks as PNG, or give the palette they were drawn in)'
  if num_labels == 3 and set(values) <= {1, 2, 3}:
    return (" (a trimap of 1 = core, 2 = background, 3 = border, as of the Oxford pets, needs the "
            "palette '2,1,3')")
  if num_labels == 3 and len(values) == 3:
    low, middle, high = values
    return (f" (a trimap of three gray values needs a palette of them, such as '{low},{high},"
            f"{middle}')")
  return ''


def _listed(values: Sequence[Any], most: int = 5) -> str:
  """'a, b, c and 4 more'."""
  head = ', '.join(str(value) for value in values[:most])
  return head if len(values) <= most else f'{head} and {len(values) - most} more'


def _gray_values(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
  """Pixel values of a mask without a palette, uint8 or uint16 [H,W]."""
  pixels = np.asarray(image)
  if image.mode in ('LA', 'PA', 'RGBA') and pixels[..., -1].min() < 255:
    raise ValueError(f'{path}: the mask has transparent pixels; save it without transparency.')
  if image.mode in ('1', 'L', 'P', *images.SIXTEEN_BITS):
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


def _palette_indices(path: str | os.PathLike, image: Image.Image, palette: Palette
                     ) -> tuple[np.ndarray, list[str]]:
  """Index of the palette color nearest to each pixel, uint8 [H,W], and a note on snapped pixels."""
  if len(palette[0]) == 1:
    pixels = _gray_values(path, image)[..., None]
  elif image.mode in images.SIXTEEN_BITS + images.THIRTY_TWO_BITS:
    raise ValueError(f'{path}: a mask of palette colors must have 8 bits a channel.')
  else:
    pixels = np.asarray(image.convert('RGB'))
  colors = np.asarray(palette, np.int64)
  apart = np.linalg.norm(colors[:, None] - colors, axis=-1)
  nearness = min(_NEAR, apart[apart > 0].min() / 2) if len(colors) > 1 else _NEAR
  snaps = nearness > _LEAST_NEARNESS
  label, far = np.empty(pixels.shape[:2], np.uint8), np.zeros(pixels.shape[:2], bool)
  unknown: collections.Counter = collections.Counter()  # pixels of each color that is far
  snapped = noisy = 0
  step = max(1, _BLOCK // max(pixels.shape[1], 1))
  for start in range(0, len(pixels), step):
    rows = slice(start, start + step)
    codes = pixels[rows] @ _WEIGHTS[-pixels.shape[-1]:]  # one number per color sorts faster
    values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    values = values[:, None].astype(np.int64)
    values = values if pixels.shape[-1] == 1 else values // _WEIGHTS % 256
    distance = np.linalg.norm(values[:, None] - colors, axis=-1)
    least = distance.min(-1)
    off = least > (nearness if snaps else 0)
    inverse = inverse.reshape(codes.shape)
    label[rows] = distance.argmin(-1).astype(np.uint8)[inverse]
    far[rows] = off[inverse]
    snapped += int(counts[least > _NOISE].sum())
    noisy += int(counts[(least > 0) & (least <= _NOISE)].sum())
    unknown.update(dict(zip(map(tuple, values[off].tolist()), counts[off].tolist())))
  if far.mean() > (_MOST_SNAPPED if snaps else 0) or _has_plain_patch(far, pixels):
    names = ['#{:02x}{:02x}{:02x}'.format(*v) if len(v) == 3 else v[0]
             for v in sorted(unknown, key=lambda value: (-unknown[value], value))]
    raise ValueError(f'{path}: the mask has colors that are not in the palette: '
                     f'{_listed(names)} ({100 * far.mean():.3g}% of the pixels); correct the '
                     'palette, or save the mask without smoothing.')
  if not snapped + noisy:
    return label, []
  noise = f' ({noisy} more lie within {_NOISE} levels of one)' if noisy else ''
  return label, [
      f'{snapped} pixels ({100 * snapped / label.size:.3g}%) snapped to the nearest color{noise}']


def _has_plain_patch(far: np.ndarray, pixels: np.ndarray) -> bool:
  """Whether a square of pixels far from the palette has one color, which no smoothed edge has."""
  least, most = _PATCH_SIDES
  side = 2 * (min(max(round(_PATCH_SHARE * min(far.shape)), least), most) // 2) + 1
  corners = np.argwhere(ndimage.minimum_filter(far.view(np.uint8), side, mode='constant'))
  corners = corners[::len(corners) // 4096 + 1] - side // 2
  if not len(corners):
    return False
  windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
  windows = windows[corners[:, 0], corners[:, 1]].astype(np.int32)
  return bool((np.ptp(windows, (-2, -1)).max(-1) <= _NOISE).any())
