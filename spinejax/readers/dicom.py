"""X-rays in DICOM files, by pydicom, as gray levels.

Only the part of the header that the pixels need is read. No name, number or date of a patient
leaves this module, not even in an error.
"""
import contextlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from spinejax.readers import contents
from spinejax.readers.contents import Damaged, Refusal
from spinejax.readers.records import Picture

SUFFIXES = ('.dcm', '.dicom')

_MARK = slice(128, 132)  # place of b'DICM' after the preamble
_PICTURES = b'\x89PNG', b'\xff\xd8\xff', b'II*\0', b'MM\0*'  # first bytes of PNG, JPEG and TIFF
_SPACINGS = {'PixelSpacing': 'PixelSpacing',
             'ImagerPixelSpacing': 'ImagerPixelSpacing, at the detector'}
_LEAST_RANGE = 1 / 8  # share of the gray scale; a picture that uses less gets a note
_LOCK = threading.Lock()  # pydicom's settings and Python's warnings are global


def is_dicom(path: str | os.PathLike, content: bytes) -> bool:
  """Whether a file is DICOM: by its preamble, or without one by its suffix."""
  return content[_MARK] == b'DICM' or bool(
      contents.suffix_of(path, SUFFIXES) and not content.startswith(_PICTURES))


@contextlib.contextmanager
def quietly(pydicom: Any) -> Iterator[None]:
  """Keeps pydicom from printing what it reads. One thread at a time."""
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


def read_dicom(path: str | os.PathLike, content: bytes, most_pixels: int = 1 << 28) -> Picture:
  """Reads the X-ray of a DICOM file.

  Stored values pass the modality transform (slope and intercept, or a table), then the first VOI
  window or table of the file. Without one, the range that their bits can hold becomes 0..255.
  MONOCHROME1 is inverted, YBR becomes RGB. 8-bit pixels that need none of it stay uint8. The
  spacing is PixelSpacing, else ImagerPixelSpacing (at the detector, larger than in the body by the
  magnification). The path is for messages only.

  Raises:
    ValueError: pydicom is missing; no DICOM file of one picture of at most `most_pixels`, gray of 8
      to 16 bits or 8-bit RGB; a compression that cannot be decoded here.
  """
  try:
    import pydicom
  except ImportError:
    raise ValueError(f'{path}: DICOM files need pydicom; run `pip install spinejax[medical]`, or '
                     'save the X-ray as PNG.') from None
  with quietly(pydicom):
    try:
      return _read(pydicom, content, most_pixels)
    except Refusal as refusal:
      raise ValueError(f'{path}: {refusal}') from None
    except Exception:  # pydicom raises many kinds of errors for damaged files
      raise ValueError(
          f'{path}: this is not a DICOM file, or it is truncated or corrupt.') from None


def _read(pydicom: Any, content: bytes, most_pixels: int) -> Picture:
  data = pydicom.dcmread(io.BytesIO(content), force=True)
  if 'PixelData' not in data:
    if not len(data) or content[_MARK] != b'DICM':
      raise Damaged
    raise Refusal('the DICOM file holds no picture.')
  spacing, note = _read_spacing(data)
  header = _read_header(data, most_pixels)
  stored = _decode(pydicom, data)
  if stored.shape != header.shape:
    raise Damaged
  if stored.ndim == 3:
    return Picture(stored.astype(np.uint8), spacing, (note,))
  try:
    levels, notes = _to_gray_levels(pydicom, data, header, stored)
  except Exception:
    raise Refusal('a table of gray levels in the DICOM file is damaged.') from None
  return Picture(levels[..., None], spacing, (*notes, note))


class _Header(NamedTuple):
  """What the pixels depend on, under the names of DICOM."""
  shape: tuple[int, ...]
  photometric: str
  bits: int
  signed: bool
  slope: float
  intercept: float
  center: float
  width: float


def _first_number(value: Any) -> float:
  """The first of one or several numbers; NaN if there is none."""
  try:
    return float(value)
  except (TypeError, ValueError):
    return float(value[0]) if value else math.nan


def _read_spacing(data: Any) -> tuple[tuple[float, float], str]:
  """Spacing in mm, NaN without a valid one, and a note on it."""
  for keyword, words in _SPACINGS.items():
    try:
      vertical, horizontal = (float(size) for size in data.get(keyword))
    except (TypeError, ValueError):
      continue
    if all(math.isfinite(size) and size > 0 for size in (vertical, horizontal)):
      return (vertical, horizontal), f'{vertical:.4g} x {horizontal:.4g} mm a pixel ({words})'
  return (math.nan, math.nan), 'no pixel spacing'


def _read_header(data: Any, most_pixels: int) -> _Header:
  """Reads the tags and refuses what this module does not read. Damaged tags raise other errors."""
  frames, samples = int(data.get('NumberOfFrames') or 1), int(data.get('SamplesPerPixel') or 1)
  rows, columns, allocated = int(data.Rows), int(data.Columns), int(data.BitsAllocated)
  bits = int(data.get('BitsStored') or allocated)
  high_bit = bits - 1 if data.get('HighBit') is None else int(data.HighBit)
  header = _Header(
      (rows, columns, 3)[:2 + samples // 3],
      str(data.get('PhotometricInterpretation', '')).strip().upper(), bits,
      bool(data.get('PixelRepresentation')), _first_number(data.get('RescaleSlope', 1)),
      _first_number(data.get('RescaleIntercept', 0)), _first_number(data.get('WindowCenter')),
      _first_number(data.get('WindowWidth')))
  if frames != 1:
    raise Refusal(f'the file holds {frames} pages or frames; save one image per file.')
  if rows < 1 or columns < 1:
    raise Damaged
  if rows * columns > most_pixels:
    raise Refusal(f'the image has more than {most_pixels} pixels; save it smaller.')
  gray = samples == 1 and header.photometric in ('MONOCHROME1', 'MONOCHROME2')
  color = samples == 3 and allocated == 8 and header.photometric.startswith(('RGB', 'YBR'))
  if not (gray or color):
    raise Refusal('expected a gray DICOM X-ray (MONOCHROME1 or MONOCHROME2) or 8-bit RGB; save it '
                  'as PNG.')
  if not (8 <= bits <= min(16, allocated) and allocated in (8, 16)):
    raise Refusal(f'the pixels have {bits} of {allocated} bits; expected X-rays of 8 to 16 bits.')
  if high_bit != bits - 1:
    raise Refusal(f'the highest bit of a pixel is {high_bit}, not {bits - 1}; save the X-ray again '
                  'with another program.')
  if not (math.isfinite(header.slope) and header.slope and math.isfinite(header.intercept)):
    raise Refusal(f'the rescale slope and intercept are {header.slope:g} and {header.intercept:g}; '
                  'expected a slope other than 0.')
  return header


def _decode(pydicom: Any, data: Any) -> np.ndarray:
  """The stored pixels, without overlays in the bits above them."""
  uids = pydicom.uid
  syntax = data.file_meta.get('TransferSyntaxUID')
  if syntax is None:
    implicit, little = data.original_encoding
    syntax = data.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else (
        uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian)
  known = syntax.is_transfer_syntax
  name = syntax.name if known and not syntax.is_private else 'an unknown transfer syntax'
  try:
    available = known and pydicom.pixels.get_decoder(syntax).is_available
  except NotImplementedError:
    available = False
  if not available:
    raise Refusal(f'the DICOM pixels are compressed ({name}) in a way pydicom cannot decode here; '
                  'run `pip install pylibjpeg[all]`, or save the X-ray uncompressed.')
  try:
    return np.asarray(pydicom.pixels.pixel_array(data))
  except Exception:
    if not syntax.is_compressed or syntax.is_deflated:
      raise
    raise Refusal(f'the compressed DICOM pixels ({name}) cannot be decoded: they are corrupt, or '
                  'they need `pip install pylibjpeg[all]`; save the X-ray uncompressed.') from None


def _to_gray_levels(pydicom: Any, data: Any, header: _Header, stored: np.ndarray
                    ) -> tuple[np.ndarray, list[str]]:
  """Applies the transforms to stored pixels [H,W]; float32 (or unchanged uint8) 0..255."""
  least = -(1 << header.bits - 1) if header.signed else 0
  ends = np.array([least, least + (1 << header.bits) - 1])
  plain, notes = False, []
  data.RescaleSlope, data.RescaleIntercept = header.slope, header.intercept  # it needs both
  values = pydicom.pixels.apply_modality_lut(stored, data)
  if data.get('ModalityLUTSequence'):
    low, high = 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    notes.append('modality table applied')
  else:
    low, high = sorted(ends * header.slope + header.intercept)
    plain = (header.slope, header.intercept) == (1, 0)
    notes += [] if plain else [f'rescaled by {header.slope:g} and {header.intercept:g}']
  if data.get('VOILUTSequence'):
    bounds = np.iinfo(np.int32)
    values = np.clip(np.rint(values), bounds.min, bounds.max - 127).astype(np.int32)
    high = 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
    levels = pydicom.pixels.apply_voi(values, data) * (255 / high)
    notes.append('table of gray levels (VOI LUT) applied')
  elif math.isfinite(header.center) and header.width > 0:
    # PS3.3, C.11.2.1.2: LINEAR needs a width from 1. Eight bits make 0..255 the range.
    function = str(data.get('VOILUTFunction') or 'LINEAR').strip().upper()
    if function not in ('LINEAR_EXACT', 'SIGMOID'):
      function = 'LINEAR' if header.width >= 1 else 'LINEAR_EXACT'
    window = pydicom.Dataset()
    for name, value in dict(
        WindowCenter=header.center, WindowWidth=header.width, VOILUTFunction=function,
        PhotometricInterpretation='MONOCHROME2', PixelRepresentation=0, BitsStored=8).items():
      setattr(window, name, value)
    levels = pydicom.pixels.apply_windowing(values.astype(np.float64), window)
    notes.append(f'window {header.center:g} wide {header.width:g}')
  elif header.bits == 8 and plain and not header.signed:
    levels = stored.astype(np.uint8)
  else:
    levels = (values - low) * (255 / (high - low))
  if levels.dtype != np.uint8:
    levels = np.clip(levels, 0, 255).astype(np.float32)
  if header.photometric == 'MONOCHROME1':
    levels = levels.dtype.type(255) - levels
    notes.append('inverted (MONOCHROME1)')
  used = (float(levels.max()) - float(levels.min())) / 255
  if used < _LEAST_RANGE:
    notes.append(f'only {100 * used:.2g}% of the gray scale is used; the file may need a window')
  return levels, notes
