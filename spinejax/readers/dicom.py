"""X-rays in DICOM files, read through pydicom into gray levels.

Of the header only what the pixels need is read. No name, number or date of a patient leaves this
module, not even in the sentence of an error.
"""
import contextlib
import io
import logging
import math
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = ('.dcm', '.dicom')

_PREAMBLE = 128
_MAGIC = b'DICM'
_SPACINGS = (('PixelSpacing', 'PixelSpacing'),
             ('ImagerPixelSpacing', 'ImagerPixelSpacing, at the detector'))
_LEAST_RANGE = 1 / 8  # of the gray scale; below it the check says so
_LOCK = threading.Lock()  # around pydicom, whose settings and warnings are global


class XRay(NamedTuple):
  """An X-ray as gray levels, bones bright.

  Attributes:
    pixels: uint8 or float32 [H,W,1] or, of a color picture, uint8 [H,W,3]; 0..255.
    spacing: mm per pixel, vertical and horizontal; NaN where unknown.
    notes: what was done to the pixels and where the spacing is from, in words.
  """
  pixels: np.ndarray
  spacing: tuple[float, float]
  notes: tuple[str, ...]


def is_dicom(path: str | os.PathLike, content: bytes) -> bool:
  """Whether a file is DICOM: by its preamble, or, where that is missing, by its suffix."""
  if content[_PREAMBLE:_PREAMBLE + len(_MAGIC)] == _MAGIC:
    return True
  pictures = b'\x89PNG', b'\xff\xd8\xff', b'II*\0', b'MM\0*'
  return pathlib.Path(path).suffix.lower() in SUFFIXES and not content.startswith(pictures)


def _pydicom(path: str | os.PathLike) -> Any:
  try:
    import pydicom
  except ImportError:
    raise ValueError(f'{path}: DICOM files need pydicom; run `pip install spinejax[medical]`, or '
                     'save the X-ray as PNG.') from None
  return pydicom


@contextlib.contextmanager
def quietly(pydicom: Any) -> Iterator[None]:
  """Keeps pydicom from printing what it reads; one thread at a time."""
  logger, settings = logging.getLogger('pydicom'), pydicom.config.settings
  with _LOCK, warnings.catch_warnings():
    warnings.simplefilter('ignore')
    level, mode = logger.level, settings.reading_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    settings.reading_validation_mode = pydicom.config.IGNORE
    try:
      yield
    finally:
      logger.setLevel(level)
      settings.reading_validation_mode = mode


def _number(value: Any) -> float:
  """The first of one or several numbers as a float; NaN of none."""
  if value is None or value == '':
    return math.nan
  if isinstance(value, (int, float)):
    return float(value)
  try:
    return float(value)
  except TypeError:
    return float(value[0]) if len(value) else math.nan


class _Header(NamedTuple):
  """What the pixels need to know."""
  frames: int
  rows: int
  columns: int
  samples: int
  bits: int
  allocated: int
  high_bit: int
  signed: bool
  photometric: str
  slope: float
  intercept: float
  center: float
  width: float
  function: str
  spacing: tuple[float, float]
  spacing_from: str


def _read_header(data: Any) -> _Header:
  """Reads the tags; whatever pydicom raises of a damaged one is for the caller."""
  spacing, source = (math.nan, math.nan), ''
  for keyword, words in _SPACINGS:
    value = data.get(keyword)
    try:
      found = tuple(float(size) for size in value)
    except (TypeError, ValueError):
      continue
    if len(found) == 2 and all(math.isfinite(size) and size > 0 for size in found):
      spacing, source = found, words
      break
  allocated = int(data.BitsAllocated)
  bits = int(data.get('BitsStored') or allocated)
  high_bit = data.get('HighBit')
  slope, intercept = _number(data.get('RescaleSlope')), _number(data.get('RescaleIntercept'))
  return _Header(
      frames=int(data.get('NumberOfFrames') or 1), rows=int(data.Rows), columns=int(data.Columns),
      samples=int(data.get('SamplesPerPixel') or 1), bits=bits, allocated=allocated,
      high_bit=bits - 1 if high_bit is None else int(high_bit),
      signed=bool(data.get('PixelRepresentation')),
      photometric=str(data.get('PhotometricInterpretation', '')).strip().upper(),
      slope=1.0 if 'RescaleSlope' not in data else slope,
      intercept=0.0 if 'RescaleIntercept' not in data else intercept,
      center=_number(data.get('WindowCenter')), width=_number(data.get('WindowWidth')),
      function=str(data.get('VOILUTFunction') or 'LINEAR').strip().upper(),
      spacing=spacing, spacing_from=source)


def _refuse(path: str | os.PathLike, header: _Header, most_pixels: int) -> None:
  """Raises ValueError unless the header is that of one picture this module reads."""
  if header.frames != 1:
    raise ValueError(f'{path}: the file holds {header.frames} pages or frames; save one image per '
                     'file.')
  if header.rows < 1 or header.columns < 1:
    raise ValueError(f'{path}: the DICOM file is truncated or corrupt.')
  if header.rows * header.columns > most_pixels:
    raise ValueError(f'{path}: the image has more than {most_pixels} pixels; save it smaller.')
  gray = header.samples == 1 and header.photometric in ('MONOCHROME1', 'MONOCHROME2')
  color = header.samples == 3 and header.allocated == 8 and header.photometric.startswith(
      ('RGB', 'YBR'))
  if not (gray or color):
    raise ValueError(f'{path}: expected a gray DICOM X-ray (MONOCHROME1 or MONOCHROME2) or 8-bit '
                     'RGB; save it as PNG.')
  if not (8 <= header.bits <= min(16, header.allocated) and header.allocated in (8, 16)):
    raise ValueError(f'{path}: the pixels have {header.bits} of {header.allocated} bits; expected '
                     'X-rays of 8 to 16 bits.')
  if header.high_bit != header.bits - 1:
    raise ValueError(f'{path}: the highest bit of a pixel is {header.high_bit}, not '
                     f'{header.bits - 1}; save the X-ray again with another program.')
  if not (math.isfinite(header.slope) and header.slope and math.isfinite(header.intercept)):
    raise ValueError(f'{path}: the rescale slope and intercept are {header.slope:g} and '
                     f'{header.intercept:g}; expected a slope other than 0.')


def _decode(path: str | os.PathLike, pydicom: Any, data: Any) -> np.ndarray:
  """The stored pixels."""
  damaged = ValueError(f'{path}: the pixels of the DICOM file are truncated or corrupt.')
  try:
    syntax = data.file_meta.get('TransferSyntaxUID')
    if syntax is None:
      implicit, little = data.original_encoding
      syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else (
          pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)
      data.file_meta.TransferSyntaxUID = syntax
    known = syntax.is_transfer_syntax
    name = syntax.name if known and not syntax.is_private else 'an unknown transfer syntax'
    available = known and pydicom.pixels.get_decoder(syntax).is_available
  except NotImplementedError:
    available = False
  except Exception:  # pydicom raises many kinds, and each means the same
    raise damaged from None
  if not available:
    raise ValueError(
        f'{path}: the DICOM pixels are compressed ({name}) in a way pydicom cannot decode here; '
        'run `pip install pylibjpeg[all]`, or save the X-ray uncompressed.')
  try:
    return np.asarray(pydicom.pixels.pixel_array(data))
  except Exception:
    if syntax.is_compressed and not syntax.is_deflated:
      raise ValueError(
          f'{path}: the compressed DICOM pixels ({name}) cannot be decoded: they are corrupt, or '
          'they need `pip install pylibjpeg[all]`; save the X-ray uncompressed.') from None
    raise damaged from None


def _to_gray_levels(pydicom: Any, data: Any, header: _Header, stored: np.ndarray
                    ) -> tuple[np.ndarray, list[str]]:
  """Rescales, windows and inverts stored pixels [H,W]; float32 (or untouched uint8) 0..255."""
  notes = []
  unused = header.allocated - header.bits
  if unused:  # old files keep overlays in the bits above
    kind = np.dtype(f'{"i" if header.signed else "u"}{header.allocated // 8}')
    stored = (stored.astype(kind) << unused) >> unused
  least = -(1 << header.bits - 1) if header.signed else 0
  ends = np.array([least, least + (1 << header.bits) - 1], np.float64)
  plain = (header.slope, header.intercept) == (1, 0)
  if data.get('ModalityLUTSequence'):
    pixels = pydicom.pixels.apply_modality_lut(stored, data).astype(np.float32)
    low, high = 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    plain = False
    notes.append('modality table applied')
  else:
    low, high = sorted(ends * header.slope + header.intercept)
    pixels = stored if plain else (
        stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept))
    notes += [] if plain else [f'rescaled by {header.slope:g} and {header.intercept:g}']
  if data.get('VOILUTSequence'):
    bounds = np.iinfo(np.int32)
    values = np.clip(np.rint(pixels), bounds.min, bounds.max - 127).astype(np.int32)
    pixels = pydicom.pixels.apply_voi(values, data).astype(np.float32)
    levels = pixels * np.float32(255 / (2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1))
    notes.append('table of gray levels (VOI LUT) applied')
  elif math.isfinite(header.center) and header.width > 0:
    levels = window(pixels, header.center, header.width, header.function)
    notes.append(f'window {header.center:g} wide {header.width:g}')
  elif header.bits == 8 and plain and not header.signed:
    levels = pixels.astype(np.uint8)
  else:
    levels = ((pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)))
  if levels.dtype != np.uint8:
    levels = np.clip(levels, 0, 255).astype(np.float32)
  if header.photometric == 'MONOCHROME1':
    levels = levels.dtype.type(255) - levels
    notes.append('inverted (MONOCHROME1)')
  used = (float(levels.max()) - float(levels.min())) / 255
  if used < _LEAST_RANGE:
    notes.append(f'only {100 * used:.2g}% of the gray scale is used; the file may need a window')
  return levels, notes


def window(pixels: np.ndarray, center: float, width: float, function: str = 'LINEAR'
           ) -> np.ndarray:
  """Gray levels of a VOI window as DICOM PS3.3 C.11.2.1.2 has it, float32 0..255.

  LINEAR: ((x - (c - 0.5)) / (w - 1) + 0.5) 255; LINEAR_EXACT: ((x - c) / w + 0.5) 255; both
  clipped; SIGMOID: 255 / (1 + exp(-4 (x - c) / w)). LINEAR of width 1 is a step at c - 0.5; a
  width below 1 is taken as LINEAR_EXACT.

  Args:
    pixels: of any shape, after the rescale.
    center, width: of the window; width > 0.
  """
  x = pixels.astype(np.float32)
  if function == 'SIGMOID':
    return np.float32(255) / (1 + np.exp(np.clip(-4 * (x - np.float32(center)) / np.float32(width),
                                                 -80, 80)))
  if function != 'LINEAR_EXACT' and width >= 1:
    center, width = center - 0.5, width - 1
  if not width:
    return np.where(x > np.float32(center), np.float32(255), np.float32(0))
  return np.clip((x - np.float32(center)) / np.float32(width) + np.float32(0.5), 0, 1
                 ) * np.float32(255)


def read_dicom(path: str | os.PathLike, content: bytes, most_pixels: int = 1 << 28) -> XRay:
  """Reads the X-ray of a DICOM file as gray levels 0..255, bones bright.

  Stored values go through the modality rescale (slope, intercept or table), then through the first
  VOI window or table if the file has one, else the range its bits can hold is brought to 0..255;
  MONOCHROME1 is inverted. 8-bit pixels that need none of it stay uint8. The spacing is
  PixelSpacing, else ImagerPixelSpacing (at the detector, larger than in the body by the
  magnification), else unknown.

  Args:
    path: for messages only.
    content: of the file.
    most_pixels: more are refused.

  Raises:
    ValueError: pydicom is missing; no DICOM file, truncated or corrupt; no picture; several frames;
      compressed in a way that cannot be decoded here; other than 8 to 16 bits; color that is not
      8-bit RGB.
  """
  pydicom = _pydicom(path)
  damaged = ValueError(f'{path}: this is not a DICOM file, or it is truncated or corrupt.')
  with quietly(pydicom):
    try:
      data = pydicom.dcmread(io.BytesIO(content), force=True)
      if not len(data):
        raise damaged
      header = _read_header(data) if 'PixelData' in data else None
    except Exception:
      raise damaged from None
    if header is None:
      if content[_PREAMBLE:_PREAMBLE + len(_MAGIC)] != _MAGIC:
        raise damaged
      raise ValueError(f'{path}: the DICOM file holds no picture.')
    _refuse(path, header, most_pixels)
    stored = _decode(path, pydicom, data)
    size = header.rows, header.columns
    if stored.shape != (size if header.samples == 1 else (*size, 3)):
      raise ValueError(f'{path}: the pixels of the DICOM file are truncated or corrupt.')
    notes: list[str] = []
    if header.samples == 3:
      pixels = stored.astype(np.uint8)
    else:
      try:
        pixels, notes = _to_gray_levels(pydicom, data, header, stored)
      except Exception:
        raise ValueError(f'{path}: a table of gray levels in the DICOM file is damaged.') from None
      pixels = pixels[..., None]
  notes.append(f'{header.spacing[0]:.4g} x {header.spacing[1]:.4g} mm a pixel '
               f'({header.spacing_from})' if header.spacing_from else 'no pixel spacing')
  return XRay(pixels, header.spacing, tuple(notes))
