"""NIfTI files, by nibabel."""
import io
import math
import os
from typing import Any

import numpy as np

from spinejax.readers.contents import Damaged, Refusal
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

_HEADER_BYTES = 348
_GZIP = b'\x1f\x8b'
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # meters and micrometers; other codes mean mm
_SCANNER = 1  # code of a transform to the axes of the scanner
_TO_LPS = np.array([-1.0, -1.0, 1.0])  # NIfTI has RAS
_ORTHOGONAL = 1e-3  # largest cosine between axes at right angles


def read(content: bytes) -> Stored:
  """Reads a volume of one NIfTI-1 file, with its scaling. Sheared axes are refused."""
  import nibabel  # late, because it takes half a second

  packed = content.startswith(_GZIP)
  # The header tells how much may be unpacked. nibabel would unpack whatever the file holds.
  block = stored.unpack_gzip(content, 0) if packed else content
  header = nibabel.Nifti1Header(block[:_HEADER_BYTES], check=False)
  dtype = header.get_data_dtype()
  count, *shape = header['dim'].tolist()
  start = float(header['vox_offset'])
  if (header['sizeof_hdr'] != _HEADER_BYTES or header['magic'] != b'n+1' or not 1 <= count <= 7
      or min(shape[:count]) < 1 or not 0 <= start < 2**31):
    raise Damaged
  special = {'V': 'several values a voxel', 'c': 'complex values'}.get(dtype.kind, '')
  stored.check_shape(shape[:count], special)
  end = start + math.prod(shape[:count]) * dtype.itemsize
  stored.check_memory(end)
  content = stored.unpack_gzip(content, end) if packed else content
  array = header.data_from_fileobj(io.BytesIO(content))
  header['pixdim'][1:4] = np.abs(header['pixdim'][1:4])
  header['pixdim'][0] = -1 if header['pixdim'][0] < 0 else 1  # 0 counts as 1
  scale = _MM_PER_UNIT.get(int(header['xyzt_units']) & 7, 1.0)  # nibabel ignores the unit
  spacing = header['pixdim'][1:4].astype(np.float64) * scale
  stored.check_spacing(spacing)
  origin, direction = _read_place(header)
  return Stored(array, spacing, origin * scale, direction)


def _read_place(header: Any) -> tuple[np.ndarray, np.ndarray]:
  """LPS position of the first voxel, in the unit of the file, and directions of the axes.

  Follows ITK where the two transforms of a header differ: the sform counts if its axes are at right
  angles and it leads to the scanner's axes or there is no qform. nibabel always takes the sform.
  """
  sform, qform = int(header['sform_code']), int(header['qform_code'])
  if sform <= 0 and qform <= 0:
    return np.zeros(3), np.eye(3)
  for use, read_transform in ((sform > 0 and (sform == _SCANNER or qform <= 0), header.get_sform),
                              (qform > 0, header.get_qform)):
    affine = read_transform() if use else np.zeros((4, 4))
    axes = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-30)
    if np.isfinite(affine).all() and np.allclose(axes.T @ axes, np.eye(3), atol=_ORTHOGONAL):
      return _TO_LPS * affine[:3, 3], _TO_LPS[:, None] * axes
  raise Refusal('the axes of the volume are not at right angles, or their transform is not '
                'finite; resample the volume to a rectangular grid.')


def write(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  import nibabel

  affine = np.eye(4)
  affine[:3, :3] = _TO_LPS[:, None] * volume.direction * volume.spacing
  affine[:3, 3] = _TO_LPS * volume.origin
  image = nibabel.Nifti1Image(volume.array, affine)
  image.set_sform(affine, _SCANNER)
  image.set_qform(affine, _SCANNER)
  image.header.set_xyzt_units('mm')
  nibabel.save(image, path)
