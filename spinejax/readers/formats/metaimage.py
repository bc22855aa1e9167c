"""MetaImage files, by SimpleITK."""
import io
import os
import re
import zlib
from typing import Any

import numpy as np

from spinejax.readers.contents import Damaged, Refusal
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

_BYTES = {  # of a voxel
    'MET_CHAR': 1, 'MET_UCHAR': 1, 'MET_SHORT': 2, 'MET_USHORT': 2, 'MET_INT': 4, 'MET_UINT': 4,
    'MET_LONG': 4, 'MET_ULONG': 4, 'MET_LONG_LONG': 8, 'MET_ULONG_LONG': 8, 'MET_FLOAT': 4,
    'MET_DOUBLE': 8}


def _import_sitk() -> Any:
  try:
    import SimpleITK
  except ImportError:
    raise Refusal('MetaImage files need SimpleITK; run `pip install spinejax[medical]`, or '
                  'save the volume as NIfTI, NRRD or NPZ.') from None
  return SimpleITK


def read(path: str | os.PathLike, content: bytes) -> Stored:
  """Reads a volume of one MetaImage file. The spacing is NaN if the file has none."""
  has_spacing = _check(content)
  sitk = _import_sitk()
  reader = sitk.ImageFileReader()
  reader.SetImageIO('MetaImageIO')
  reader.SetFileName(str(path))
  reader.ReadImageInformation()
  components = reader.GetNumberOfComponents()
  stored.check_shape(reader.GetSize(), f'{components} values a voxel' if components > 1 else '')
  image = reader.Execute()
  spacing = np.array(image.GetSpacing()) if has_spacing else stored.NO_SPACING
  place = spacing, np.array(image.GetOrigin()), np.reshape(image.GetDirection(), (3, 3))
  stored.check_place(*place)
  return Stored(sitk.GetArrayFromImage(image).T, *place)


def _check(content: bytes) -> bool:
  """Checks what ITK does not: it invents voxels that a damaged file lacks, and a spacing of 1 mm.

  Returns:
    Whether the file has a spacing.
  """
  fields, end = _read_header(content)
  frames = {name.split('_')[1] for name in fields if name.startswith('seq_frame')}
  if len(frames) > 1:
    raise Refusal(f'this is a tracked sweep of {len(frames)} frames, not a volume; '
                  'reconstruct the volume first, for example with PLUS or 3D Slicer.')
  if fields['elementdatafile'].upper() != 'LOCAL':
    raise Refusal('expected the voxels in the file itself, not in '
                  f'{fields["elementdatafile"]}.')
  if fields.get('ndims', '3') != '3':  # some numbers of axes end the process inside of ITK
    stored.check_shape((), f'{fields["ndims"]} axes')
  shape, data = _numbers(fields['dimsize']), content[end:]
  if not (len(shape) == 3 and (shape > 0).all() and np.isfinite(shape).all()):
    raise Damaged
  if fields.get('compresseddata', '').lower() in ('true', '1'):
    channels = _numbers(fields.get('elementnumberofchannels', '1'))
    num_bytes = shape.prod() * channels.prod() * _BYTES[fields['elementtype']]
    stored.check_memory(num_bytes)
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(data, int(num_bytes) + 1)
    if not unpacker.eof or len(data) != num_bytes:
      raise Damaged
  if shape.prod() > len(data):
    raise Damaged
  spacing = fields.get('elementspacing', fields.get('elementsize'))
  if spacing is not None:
    stored.check_spacing(np.abs(_numbers(spacing)))
  return spacing is not None


def _read_header(content: bytes) -> tuple[dict[str, str], int]:
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
  raise Damaged


def _numbers(text: str) -> np.ndarray:
  return np.array([float(word) for word in text.split()])


def write(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  sitk = _import_sitk()
  image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
  image.SetSpacing(volume.spacing.tolist())
  image.SetOrigin(volume.origin.tolist())
  image.SetDirection(volume.direction.reshape(-1).tolist())
  sitk.WriteImage(image, str(path), useCompression=True)
