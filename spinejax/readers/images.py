"""Image files of the user (PNG, JPEG, TIFF, DICOM) as gray levels or colors."""
import io
import os
import sys

import numpy as np
from PIL import Image

from spinejax.readers import contents, dicom
from spinejax.readers.records import Picture

SIXTEEN_BITS = ('I;16', 'I;16L', 'I;16B', 'I;16N')  # modes of pillow
THIRTY_TWO_BITS = ('I', 'F')

_FORMATS = ('PNG', 'JPEG', 'TIFF')
_GRAY = ('1', 'L', 'LA', 'La')
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # tag of TIFF and its value
_LUMINANCE = (19595, 38470, 7471)  # ITU-R 601 in 1/65536, as in pillow
_COLORED_LEVELS = 16  # a pixel is colored if its channels differ by more gray levels
_COLORED_SHARE = 0.01  # a picture is colored if more of its pixels are


def _most_pixels() -> int:
  """Number of pixels above which pillow refuses an image."""
  return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)


def decode(path: str | os.PathLike, content: bytes) -> Image.Image:
  """Decodes a PNG, JPEG or TIFF image by its content; ValueError if it cannot be."""
  try:
    image = Image.open(io.BytesIO(content), formats=_FORMATS)
    pages = 1 if image.format == 'MPO' else getattr(image, 'n_frames', 1)
    if image.format == 'PNG':  # load() does not compare checksums; verify() spends the image
      image.verify()
      image = Image.open(io.BytesIO(content), formats=_FORMATS)
    if pages == 1:
      image.load()
  except Image.UnidentifiedImageError:
    raise ValueError(f'{path}: the file is not a PNG, JPEG, TIFF or DICOM image, or its header is '
                     'damaged.') from None
  except Image.DecompressionBombError:
    raise ValueError(
        f'{path}: the image has more than {_most_pixels()} pixels; save it smaller.') from None
  except Exception:  # pillow raises many kinds of errors for damaged files
    raise ValueError(f'{path}: the file is truncated or corrupt.') from None
  if pages > 1:
    raise ValueError(f'{path}: the file holds {pages} pages or frames; save one image per file.')
  return image


def set_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Converts gray to color by repetition, color to gray by 0.299 R + 0.587 G + 0.114 B.

  The image is uint8 (rounded half up) or float32, [H,W,1] or [H,W,3], as is the result.
  """
  if channels not in (1, 3):
    raise ValueError(f'data.channels must be 1 (gray) or 3 (color), not {channels}.')
  if image.shape[-1] == channels:
    return image
  if channels == 3:
    return np.repeat(image, 3, axis=-1)
  if image.dtype == np.uint8:
    return np.array(Image.fromarray(image).convert('L'))[..., None]
  return (image @ (np.array(_LUMINANCE, np.float32) / np.float32(65536)))[..., None]


def read_picture(path: str | os.PathLike, channels: int = 1) -> Picture:
  """Reads an image file as gray levels 0..255.

  Pixels are returned as stored: uint8 for 8 bits, else float32 (value / 257 for 16-bit files). The
  orientation in EXIF is ignored, here and in `masks`, so that an image and its mask stay aligned.
  Transparency is dropped. A 16-bit TIFF whose white is 0 is inverted, as pillow does with 8 bits.

  Args:
    path: PNG, JPEG or TIFF of 8 or 16 bits (gray, RGB, RGBA or palette), or DICOM.
    channels: 1 or 3, see `set_channels`.

  Raises:
    FileNotFoundError, ValueError: no such file; an empty, truncated or corrupt one; another format;
      several pages; 32 bits a pixel.
  """
  content = contents.read_bytes(path)
  if dicom.is_dicom(path, content):
    pixels, spacing, notes = dicom.read_dicom(path, content, _most_pixels())
  else:
    spacing, (pixels, notes) = (np.nan, np.nan), _to_pixels(path, decode(path, content))
  if channels == 1 and pixels.shape[-1] == 3:
    colored = pixels.max(-1) - pixels.min(-1) > _COLORED_LEVELS
    notes += ('color converted to gray',) if colored.mean() > _COLORED_SHARE else ()
  return Picture(set_channels(pixels, channels), spacing, notes)


def _to_pixels(path: str | os.PathLike, image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
  """Gray levels or colors of an image, and notes."""
  notes: tuple[str, ...] = ()
  if image.mode in THIRTY_TWO_BITS:
    raise ValueError(f'{path}: the pixels have 32 bits; save the image with 8 or 16 bits.')
  if image.mode in SIXTEEN_BITS:
    pixels = np.asarray(image).astype(np.float32)[..., None] / np.float32(257)
    if image.format == 'TIFF' and getattr(image, 'tag_v2', {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
      pixels, notes = np.float32(255) - pixels, ('inverted (white is 0)',)
  elif image.mode in _GRAY:
    pixels = np.array(image.convert('L'))[..., None]
  else:
    pixels = np.array(image.convert('RGB'))
  return pixels, notes
