"""Volume files as stored, read and written by the libraries of their formats.

A reader raises `Refusal`, or for a damaged file any other exception of whatever library. The
readers check first what these libraries take for good or end the process at. They are imported
late, because that takes a part of a second.
"""
import gzip
import io
import math
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spinejax.readers import memory, orientation
from spinejax.readers.contents import Damaged, Refusal

_NO_SPACING = np.full(3, np.nan)
_LARGEST = 2.0 ** 50  # bytes; a header that asks for more is damaged
_SURPLUS = 1 << 20  # bytes that may follow the voxels

_NIFTI_HEADER = 348  # bytes
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # meters and micrometers; other codes of NIfTI mean mm
_SCANNER = 1  # NIfTI code of a transform to the axes of the scanner
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_ORTHOGONAL = 1e-3  # largest cosine between axes at right angles

_NRRD_TO_LPS = {  # by space, as a sign for each axis; other spaces are taken as LPS
    'right-anterior-superior': (-1.0, -1.0, 1.0), 'ras': (-1.0, -1.0, 1.0),
    'left-anterior-superior': (1.0, -1.0, 1.0), 'las': (1.0, -1.0, 1.0)}
_NRRD_ENCODINGS = ('raw', 'ascii', 'text', 'txt', 'gzip', 'gz')
_SPATIAL_KINDS = {'domain', 'space', '???', 'none'}

_META_BYTES = {  # of a voxel
    'MET_CHAR': 1, 'MET_UCHAR': 1, 'MET_SHORT': 2, 'MET_USHORT': 2, 'MET_INT': 4, 'MET_UINT': 4,
    'MET_LONG': 4, 'MET_ULONG': 4, 'MET_LONG_LONG': 8, 'MET_ULONG_LONG': 8, 'MET_FLOAT': 4,
    'MET_DOUBLE': 8}


class Stored(NamedTuple):
  """A file as stored."""
  array: np.ndarray  # along the axes (i, j, k) of the file
  spacing: np.ndarray  # float64 [3] mm along these axes; NaN if the file has none
  origin: np.ndarray  # float64 [3] mm, LPS position of the first voxel
  direction: np.ndarray  # float64 [3,3], columns are the LPS directions of the axes
  extra: Mapping[str, np.ndarray] = {}  # all arrays of an NPZ file


def _check_shape(shape: Sequence[int], kind: str = '') -> None:
  """Refuses other than 3 axes; `kind` says what else the file holds."""
  if kind or len(shape) != 3:
    raise Refusal(f'expected one gray volume of 3 axes, but the file has '
                  f'{kind or f"{len(shape)} axes"}; save each volume in a file of its own.')


def _check_spacing(spacing: np.ndarray) -> None:
  if not (np.isfinite(spacing) & (spacing > 0)).all():
    raise Refusal(f'the spacing is {tuple(map(float, spacing))} mm; it must be positive along '
                  'every axis.')


def _check_place(spacing: np.ndarray, origin: np.ndarray, direction: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The place, unless it is none. A spacing with NaN is unknown."""
  spacing = _NO_SPACING if np.isnan(spacing).any() else spacing
  if spacing is not _NO_SPACING:
    _check_spacing(spacing)
  lengths = np.linalg.norm(direction, axis=0)
  if not (np.isfinite(origin).all() and np.allclose(lengths, 1, atol=1e-3)
          and abs(np.linalg.det(direction)) > 1e-3):
    raise Refusal('origin must be finite and direction three independent unit columns.')
  return spacing, origin, direction


def _check_memory(num_bytes: float) -> None:
  """Refuses what a header asks for if it cannot be or exceeds the memory that is left."""
  if not 0 < num_bytes < _LARGEST:
    raise Damaged
  try:
    memory.require(num_bytes, 'the volume', 'save a part of it, or a coarser one')
  except ValueError as error:
    raise Refusal(str(error)) from None


def _unpack_gzip(content: bytes, num_bytes: float) -> bytes:
  """Unpacks a little more than `num_bytes`: the end, if it comes, compares the checksum."""
  with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
    return file.read(int(num_bytes) + _SURPLUS)


def read_nifti(content: bytes) -> Stored:
  """Reads a volume of one NIfTI-1 file, with its scaling. Sheared axes are refused."""
  import nibabel

  packed = content.startswith(b'\x1f\x8b')
  # The header tells how much may be unpacked. nibabel would unpack whatever the file holds.
  block = _unpack_gzip(content, 0) if packed else content
  header = nibabel.Nifti1Header(block[:_NIFTI_HEADER], check=False)
  dtype = header.get_data_dtype()
  count, *shape = header['dim'].tolist()
  start = float(header['vox_offset'])
  if (header['sizeof_hdr'] != _NIFTI_HEADER or header['magic'] != b'n+1' or not 1 <= count <= 7
      or min(shape[:count]) < 1 or not 0 <= start < 2**31):
    raise Damaged
  _check_shape(shape[:count], {'V': 'several values a voxel', 'c': 'complex values'}.get(
      dtype.kind, ''))
  end = start + math.prod(shape[:count]) * dtype.itemsize
  _check_memory(end)
  content = _unpack_gzip(content, end) if packed else content
  array = header.data_from_fileobj(io.BytesIO(content))
  header['pixdim'][1:4] = np.abs(header['pixdim'][1:4])
  header['pixdim'][0] = -1 if header['pixdim'][0] < 0 else 1  # 0 counts as 1
  scale = _MM_PER_UNIT.get(int(header['xyzt_units']) & 7, 1.0)  # nibabel ignores the unit
  spacing = header['pixdim'][1:4].astype(np.float64) * scale
  _check_spacing(spacing)
  origin, direction = _nifti_place(header)
  return Stored(array, spacing, origin * scale, direction)


def _nifti_place(header: Any) -> tuple[np.ndarray, np.ndarray]:
  """LPS position of the first voxel, in the unit of the file, and directions of the axes."""
  # As ITK does where two transforms differ: the sform counts if its axes are at right angles and it
  # leads to the scanner's axes or there is no qform. nibabel always takes the sform.
  sform, qform = int(header['sform_code']), int(header['qform_code'])
  if sform <= 0 and qform <= 0:
    return np.zeros(3), np.eye(3)
  for use, read_transform in ((sform > 0 and (sform == _SCANNER or qform <= 0), header.get_sform),
                              (qform > 0, header.get_qform)):
    affine = read_transform() if use else np.zeros((4, 4))
    axes = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-30)
    if np.isfinite(affine).all() and np.allclose(axes.T @ axes, np.eye(3), atol=_ORTHOGONAL):
      return _RAS_TO_LPS * affine[:3, 3], _RAS_TO_LPS[:, None] * axes
  raise Refusal('the axes of the volume are not at right angles, or their transform is not '
                'finite; resample the volume to a rectangular grid.')


def write_nifti(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  import nibabel

  affine = np.eye(4)
  affine[:3, :3] = _RAS_TO_LPS[:, None] * volume.direction * volume.spacing
  affine[:3, 3] = _RAS_TO_LPS * volume.origin
  image = nibabel.Nifti1Image(volume.array, affine)
  image.set_sform(affine, _SCANNER)
  image.set_qform(affine, _SCANNER)
  image.header.set_xyzt_units('mm')
  nibabel.save(image, path)


def read_nrrd(content: bytes) -> Stored:
  """Reads a volume of one NRRD file. The spacing is NaN if the file has none."""
  import nrrd

  file = io.BytesIO(content)
  header = nrrd.read_header(file)
  fields = {name.replace(' ', '').lower(): value for name, value in header.items()}
  if 'datafile' in fields:  # pynrrd would open it, wherever it is
    raise Refusal('expected the voxels in the file itself, not in another one.')
  special = set(map(str, fields.get('kinds', ()))) - _SPATIAL_KINDS
  _check_shape(fields['sizes'], f'an axis of kind {special.pop()}' if special else '')
  encoding = str(fields['encoding']).lower()
  if encoding not in _NRRD_ENCODINGS or min(fields['sizes']) < 1:
    raise Damaged
  num_bytes = math.prod(map(float, fields['sizes'])) * 8  # at most, for a voxel
  _check_memory(num_bytes)
  if encoding.startswith('g'):  # pynrrd would unpack whatever the file holds
    file = io.BytesIO(_unpack_gzip(content[file.tell():], num_bytes))
    encoding = 'raw'
  array = nrrd.read_data({**header, 'encoding': encoding}, file)
  _check_shape(array.shape, '' if array.dtype.kind in 'iuf' else 'blocks')
  signs = np.array(_NRRD_TO_LPS.get(str(fields.get('space', '')).lower(), (1.0, 1.0, 1.0)))
  origin = signs * np.asarray(fields.get('spaceorigin', np.zeros(3)), np.float64)
  if 'spacedirections' in fields:
    steps = np.asarray(fields['spacedirections'], np.float64)
    spacing = np.linalg.norm(steps, axis=1)
    _check_spacing(spacing)
    direction = (steps * signs / spacing[:, None]).T
  else:
    steps = np.asarray(fields.get('spacings', _NO_SPACING), np.float64)
    spacing, direction = np.abs(steps), np.diag(np.where(steps < 0, -1.0, 1.0))
    if 'axismins' in fields and 'spaceorigin' not in fields:  # where the first voxel begins
      origin = np.asarray(fields['axismins'], np.float64) + steps / 2
  return Stored(array, *_check_place(spacing, origin, direction))


def write_nrrd(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  import nrrd

  nrrd.write(os.fspath(path), volume.array, {
      'space': 'left-posterior-superior', 'kinds': ['domain'] * 3,
      'space directions': (volume.direction * volume.spacing).T, 'space origin': volume.origin})


def _import_sitk() -> Any:
  try:
    import SimpleITK
  except ImportError:
    raise Refusal('MetaImage files need SimpleITK; run `pip install spinejax[medical]`, or '
                  'save the volume as NIfTI, NRRD or NPZ.') from None
  return SimpleITK


def read_metaimage(path: str | os.PathLike, content: bytes) -> Stored:
  """Reads a volume of one MetaImage file. The spacing is NaN if the file has none."""
  has_spacing = _check_metaimage(content)
  sitk = _import_sitk()
  reader = sitk.ImageFileReader()
  reader.SetImageIO('MetaImageIO')
  reader.SetFileName(str(path))
  reader.ReadImageInformation()
  components = reader.GetNumberOfComponents()
  _check_shape(reader.GetSize(), f'{components} values a voxel' if components > 1 else '')
  image = reader.Execute()
  spacing = np.array(image.GetSpacing()) if has_spacing else _NO_SPACING
  return Stored(sitk.GetArrayFromImage(image).T, *_check_place(
      spacing, np.array(image.GetOrigin()), np.reshape(image.GetDirection(), (3, 3))))


def _check_metaimage(content: bytes) -> bool:
  """Whether the file has a spacing. ITK invents one, and voxels that a damaged file lacks."""
  fields: dict[str, str] = {}
  end = 0
  for line in io.BytesIO(content):
    end += len(line)
    name, _, value = re.split('(=|:)', line[:4096].decode('latin-1').strip() + '=', maxsplit=1)
    name = name.strip().lower()
    fields.setdefault(name, value.rstrip('=').strip())
    if name == 'elementdatafile':  # the last one
      break
  frames = {name.split('_')[1] for name in fields if name.startswith('seq_frame')}
  if len(frames) > 1:
    raise Refusal(f'this is a tracked sweep of {len(frames)} frames, not a volume; '
                  'reconstruct the volume first, for example with PLUS or 3D Slicer.')
  if fields['elementdatafile'].upper() != 'LOCAL':
    raise Refusal('expected the voxels in the file itself, not in '
                  f'{fields["elementdatafile"]}.')
  if fields.get('ndims', '3') != '3':  # some numbers of axes end the process inside of ITK
    _check_shape((), f'{fields["ndims"]} axes')
  shape, data = _numbers(fields['dimsize']), content[end:]
  if not (len(shape) == 3 and (shape > 0).all() and np.isfinite(shape).all()):
    raise Damaged
  if fields.get('compresseddata', '').lower() in ('true', '1'):
    channels = _numbers(fields.get('elementnumberofchannels', '1'))
    num_bytes = shape.prod() * channels.prod() * _META_BYTES[fields['elementtype']]
    _check_memory(num_bytes)
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(data, int(num_bytes) + 1)
    if not unpacker.eof or len(data) != num_bytes:
      raise Damaged
  if shape.prod() > len(data):
    raise Damaged
  spacing = fields.get('elementspacing', fields.get('elementsize'))
  if spacing is not None:
    _check_spacing(np.abs(_numbers(spacing)))
  return spacing is not None


def _numbers(text: str) -> np.ndarray:
  return np.array([float(word) for word in text.split()])


def write_metaimage(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  sitk = _import_sitk()
  image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
  image.SetSpacing(volume.spacing.tolist())
  image.SetOrigin(volume.origin.tolist())
  image.SetDirection(volume.direction.reshape(-1).tolist())
  sitk.WriteImage(image, str(path), useCompression=True)


def read_npz(content: bytes, key: str) -> Stored:
  """Reads the array `key`; by default, the spacing is NaN, the origin 0 and the axes are ours."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    _check_memory(sum(member.file_size for member in archive.infolist()))
  with np.load(io.BytesIO(content), allow_pickle=False) as archive:
    arrays = {name: archive[name] for name in archive.files}
  arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
  if key not in arrays:
    found = ', '.join(name[:40] for name in sorted(arrays)[:20])
    raise Refusal(f'expected an array {key!r} in the file; found {found or "none"}.')
  array, place = arrays[key], []
  _check_shape(array.shape, '' if array.dtype.kind in 'biuf' else f'{array.dtype} values')
  for name, default in (('spacing', _NO_SPACING), ('origin', np.zeros(3)),
                        ('direction', orientation.AXES.T)):
    value = arrays.get(name, default)
    if value.shape != default.shape or value.dtype.kind not in 'iuf':
      raise Refusal(f'{name} must be numbers of shape {default.shape}, not {value.dtype} of shape '
                    f'{value.shape}.')
    place.append(value.astype(np.float64))
  return Stored(array, *_check_place(*place), arrays)


def write_npz(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume whose array is `label`."""
  np.savez_compressed(path, label=volume.array, spacing=volume.spacing, origin=volume.origin,
                      direction=volume.direction)
