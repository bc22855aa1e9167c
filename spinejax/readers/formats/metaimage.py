"""MetaImage files, by SimpleITK."""
import io
import os
import re
import zlib
from typing import Any

import numpy as np

from spinejax.readers import contents
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

KIND = 'MetaImage'

_BYTES = {  # of a voxel
    'MET_CHAR': 1, 'MET_UCHAR': 1, 'MET_SHORT': 2, 'MET_USHORT': 2, 'MET_INT': 4, 'MET_UINT': 4,
    'MET_LONG': 4, 'MET_ULONG': 4, 'MET_LONG_LONG': 8, 'MET_ULONG_LONG': 8, 'MET_FLOAT': 4,
    'MET_DOUBLE': 8}


def _import_sitk(path: str | os.PathLike) -> Any:
  try:
    import SimpleITK
  except ImportError:
    raise ValueError(f'{path}: MetaImage files need SimpleITK; run `pip install '
                     'spinejax[medical]`, or save the volume as NIfTI, NRRD or NPZ.') from None
  return SimpleITK


def read(path: str | os.PathLike) -> Stored:
  """Reads a volume of one MetaImage file. The spacing is NaN if the file has none.

  Raises:
    FileNotFoundError, ValueError: as `contents.read_bytes`; SimpleITK is missing; a damaged file;
      voxels in another file; a tracked sweep; other than 3 axes; several values a voxel; a spacing
      that is not positive.
  """
  has_spacing = _check(path, contents.read_bytes(path))
  sitk = _import_sitk(path)
  reader = sitk.ImageFileReader()
  reader.SetImageIO('MetaImageIO')
  reader.SetFileName(str(path))
  try:
    reader.ReadImageInformation()
    components = reader.GetNumberOfComponents()
    stored.check_shape(
        path, reader.GetSize(), f'{components} values a voxel' if components > 1 else '')
    image = reader.Execute()
  except RuntimeError:
    raise stored.damaged(path, KIND) from None
  origin, direction = np.array(image.GetOrigin()), np.reshape(image.GetDirection(), (3, 3))
  stored.check_place(path, origin, direction)
  return Stored(sitk.GetArrayFromImage(image).T,
                np.array(image.GetSpacing()) if has_spacing else stored.NO_SPACING,
                origin, direction)


def _check(path: str | os.PathLike, content: bytes) -> bool:
  """Checks what ITK does not: it invents voxels that a damaged file lacks, and a spacing of 1 mm.

  Returns:
    Whether the file has a spacing.
  """
  fields, end = _read_header(path, content)
  frames = {name.split('_')[1] for name in fields if name.startswith('seq_frame')}
  if len(frames) > 1:
    raise ValueError(f'{path}: this is a tracked sweep of {len(frames)} frames, not a volume; '
                     'reconstruct the volume first, for example with PLUS or 3D Slicer.')
  if fields['elementdatafile'].upper() != 'LOCAL':
    raise ValueError(f'{path}: expected the voxels in the file itself, not in '
                     f'{fields["elementdatafile"]}.')
  if fields.get('ndims', '3') != '3':  # some numbers of axes end the process inside of ITK
    stored.check_shape(path, (), f'{fields["ndims"]} axes')
  shape = _numbers(path, fields.get('dimsize', ''))
  if not (len(shape) == 3 and (shape > 0).all() and np.isfinite(shape).all()):
    raise stored.damaged(path, KIND)
  data = content[end:]
  if fields.get('compresseddata', '').lower() in ('true', '1'):
    channels = _numbers(path, fields.get('elementnumberofchannels', '1'))
    num_bytes = shape.prod() * channels.prod() * _BYTES.get(fields.get('elementtype', ''), 0)
    stored.require_memory(path, KIND, num_bytes)
    try:
      unpacker = zlib.decompressobj()
      data = unpacker.decompress(data, int(num_bytes) + 1)
    except zlib.error:
      raise stored.damaged(path, KIND) from None
    if not unpacker.eof or len(data) != num_bytes:
      raise stored.damaged(path, KIND)
  if shape.prod() > len(data):
    raise stored.damaged(path, KIND)
  spacing = fields.get('elementspacing', fields.get('elementsize'))
  if spacing is not None:
    stored.check_spacing(path, np.abs(_numbers(path, spacing)))
  return spacing is not None


def _read_header(path: str | os.PathLike, content: bytes) -> tuple[dict[str, str], int]:
  """Fields of the header by name in lower case, and its length. ElementDataFile is the last."""
  fields: dict[str, str] = {}
  end = 0
  for line in io.BytesIO(content):
    end += len(line)
    name, _, value = re.split('(=|:)', line[:4096].decode('latin-1').strip() + '=', maxsplit=1)
    name = name.strip().lower()
    fields.setdefault(name, value.rstrip('=').strip())
    if name == 'elementdatafile':
      return fields, end
  raise stored.damaged(path, KIND)


def _numbers(path: str | os.PathLike, text: str) -> np.ndarray:
  try:
    return np.array([float(word) for word in text.split()])
  except ValueError:
    raise stored.damaged(path, KIND) from None


def write(path: str | os.PathLike, array: np.ndarray, spacing: np.ndarray, origin: np.ndarray,
          direction: np.ndarray) -> None:
  """Writes an array; the arguments are those of `Stored`. Raises OSError or RuntimeError."""
  sitk = _import_sitk(path)
  image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
  image.SetSpacing(spacing.tolist())
  image.SetOrigin(origin.tolist())
  image.SetDirection(direction.reshape(-1).tolist())
  sitk.WriteImage(image, str(path), useCompression=True)
