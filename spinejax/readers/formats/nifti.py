"""NIfTI files, by nibabel."""
import io
import math
import os
from typing import Any

import numpy as np

from spinejax.readers import contents
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

KIND = 'NIfTI'

_HEADER_BYTES = 348
_GZIP = b'\x1f\x8b'
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # meters and micrometers; other codes mean mm
_SCANNER = 1  # code of a transform to the axes of the scanner
_TO_LPS = np.array([-1.0, -1.0, 1.0])  # NIfTI has RAS


def read(path: str | os.PathLike) -> Stored:
  """Reads a volume of one NIfTI-1 file, with its scaling.

  Raises:
    FileNotFoundError, ValueError: as `contents.read_bytes`; a damaged file; other than 3 axes;
      color; complex values; a spacing that is not positive; sheared axes.
  """
  import nibabel  # late, because it takes half a second

  content = contents.read_bytes(path)
  packed = content.startswith(_GZIP)
  # The header tells how much may be unpacked. nibabel would unpack whatever the file holds.
  block = stored.unpack_gzip(path, KIND, content, 0) if packed else content
  try:
    header = nibabel.Nifti1Header(block[:_HEADER_BYTES], check=False)
    dtype = header.get_data_dtype()
  except Exception:  # nibabel raises many kinds of errors for damaged headers
    raise stored.damaged(path, KIND) from None
  count, *shape = header['dim'].tolist()
  start = float(header['vox_offset'])
  if (header['sizeof_hdr'] != _HEADER_BYTES or header['magic'] != b'n+1' or not 1 <= count <= 7
      or min(shape[:count]) < 1 or not 0 <= start < 2**31):
    raise stored.damaged(path, KIND)
  special = {'V': 'several values a voxel', 'c': 'complex values'}.get(dtype.kind, '')
  stored.check_shape(path, shape[:count], special)
  end = start + math.prod(shape[:count]) * dtype.itemsize
  stored.require_memory(path, KIND, end)
  if packed:
    content = stored.unpack_gzip(path, KIND, content, end)
  try:
    array = header.data_from_fileobj(io.BytesIO(content))
  except Exception:
    raise stored.damaged(path, KIND) from None
  scale = _MM_PER_UNIT.get(int(header['xyzt_units']) & 7, 1.0)  # nibabel ignores the unit
  header['pixdim'][1:4] = np.abs(header['pixdim'][1:4])
  header['pixdim'][0] = -1 if header['pixdim'][0] < 0 else 1  # 0 counts as 1
  spacing = header['pixdim'][1:4].astype(np.float64) * scale
  stored.check_spacing(path, spacing)
  origin, direction = _read_place(path, header)
  return Stored(array, spacing, origin * scale, direction)


def _read_place(path: str | os.PathLike, header: Any) -> tuple[np.ndarray, np.ndarray]:
  """LPS position of the first voxel, in the unit of the file, and directions of the axes.

  Follows ITK where the two transforms of a header differ: the sform counts if its axes are at right
  angles and it leads to the scanner's axes or there is no qform. nibabel always takes the sform.
  """
  sform, qform = int(header['sform_code']), int(header['qform_code'])
  if sform <= 0 and qform <= 0:
    return np.zeros(3), np.eye(3)
  for use, read_transform in ((sform > 0 and (sform == _SCANNER or qform <= 0), header.get_sform),
                              (qform > 0, header.get_qform)):
    if not use:
      continue
    try:
      affine = read_transform()
    except Exception:  # a quaternion that is no rotation
      raise stored.damaged(path, KIND) from None
    axes = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-30)
    if np.isfinite(affine).all() and stored.is_orthogonal(axes):
      return _TO_LPS * affine[:3, 3], _TO_LPS[:, None] * axes
  raise ValueError(f'{path}: the axes of the volume are not at right angles, or their transform is '
                   'not finite; resample the volume to a rectangular grid.')


def write(path: str | os.PathLike, array: np.ndarray, spacing: np.ndarray, origin: np.ndarray,
          direction: np.ndarray) -> None:
  """Writes an array; the arguments are those of `Stored`. Raises OSError."""
  import nibabel

  affine = np.eye(4)
  affine[:3, :3] = _TO_LPS[:, None] * direction * spacing
  affine[:3, 3] = _TO_LPS * origin
  image = nibabel.Nifti1Image(array, affine)
  image.set_sform(affine, _SCANNER)
  image.set_qform(affine, _SCANNER)
  image.header.set_xyzt_units('mm')
  nibabel.save(image, path)
