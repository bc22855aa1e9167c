"""Volumes of the user: reading NIfTI, NRRD, MetaImage and NPZ files, and writing masks of them.

Arrays are turned to the axes (I, L, A) of `orientation` and back; nothing is resampled.
"""
import gzip
import io
import math
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spinejax.readers import memory
from spinejax.readers import orientation
from spinejax.readers.orientation import Geometry
from spinejax.measure.angles import Numbers

NUMPY, NIFTI, NRRD, META = 'NPZ', 'NIfTI', 'NRRD', 'MetaImage'
KINDS = {'.nii.gz': NIFTI, '.nii': NIFTI, '.nrrd': NRRD, '.mha': META, '.npz': NUMPY}

_MOST_BYTES = 8  # of a voxel
_SURPLUS = 1 << 20  # bytes that may follow the voxels, so that the checksum after them is read
_NIFTI_FLOATS = {16: 'f4', 64: 'f8'}  # by datatype
_META_BYTES = {  # of a voxel
    'MET_CHAR': 1, 'MET_UCHAR': 1, 'MET_SHORT': 2, 'MET_USHORT': 2, 'MET_INT': 4, 'MET_UINT': 4,
    'MET_LONG': 4, 'MET_ULONG': 4, 'MET_LONG_LONG': 8, 'MET_ULONG_LONG': 8, 'MET_FLOAT': 4,
    'MET_DOUBLE': 8}
_ITK_READERS = {NIFTI: 'NiftiImageIO', NRRD: 'NrrdImageIO', META: 'MetaImageIO'}


class Volume(NamedTuple):
  """A volume in our axes; the last three come from an NPZ file that has them, else None.

  Attributes:
    array: float32 [D,H,W], gray values as stored.
    spacing: float32 [3] mm per voxel along the axes of the array; NaN where unknown.
    geometry: of the file.
    label: uint8 [D,H,W], values as stored.
    landmarks: float64 [P,3] voxels of the array, centers at whole numbers.
    region: int8 [P]: 0 thoracic, 1 lumbar, -1 unknown.
  """
  array: np.ndarray
  spacing: np.ndarray
  geometry: Geometry
  label: np.ndarray | None = None
  landmarks: np.ndarray | None = None
  region: np.ndarray | None = None


def suffix_of(path: str | os.PathLike) -> str:
  """The suffix of a volume file, '.nii.gz' as one, in lower case; '' of any other file."""
  name = pathlib.Path(path).name.lower()
  return next((suffix for suffix in KINDS if name.endswith(suffix)), '')


class _Stored(NamedTuple):
  """A file as stored: array in the axes (i, j, k) and what else it says."""
  array: np.ndarray
  spacing: np.ndarray
  origin: np.ndarray
  direction: np.ndarray
  extra: Mapping[str, np.ndarray]


def _sitk(path: str | os.PathLike) -> Any:
  try:
    import SimpleITK
  except ImportError:
    raise ValueError(f'{path}: {KINDS[suffix_of(path)]} files need SimpleITK; run '
                     '`pip install spinejax[medical]`, or save the volume as .npz.') from None
  return SimpleITK


def _damaged(path: pathlib.Path) -> ValueError:
  return ValueError(f'{path}: the file is truncated or corrupt, or it is not '
                    f'{KINDS[suffix_of(path)]} as its suffix says.')


def _refuse_shape(path: pathlib.Path, shape: Sequence[int], kind: str = '') -> None:
  """Raises ValueError unless the shape is that of a gray volume; `kind` says what else it is."""
  if kind or len(shape) != 3:
    raise ValueError(f'{path}: expected one gray volume of 3 axes, but the file has '
                     f'{kind or f"{len(shape)} axes"}; save each volume in a file of its own.')


def _refuse_thin(path: str | os.PathLike, shape: Sequence[int]) -> None:
  if min(shape) < 2:
    raise ValueError(f'{path}: the volume has {tuple(shape)} voxels; it needs 2 along every axis.')


def _refuse_spacing(path: pathlib.Path, spacing: Numbers) -> None:
  if not all(math.isfinite(size) and size > 0 for size in spacing):
    raise ValueError(f'{path}: the spacing is {tuple(map(float, spacing))} mm; it must be positive '
                     'along every axis.')


def _refuse_voxels(path: str | os.PathLike, array: np.ndarray) -> None:
  bad = array.size - int(np.isfinite(array).sum())
  if bad:
    raise ValueError(f'{path}: {bad} of the {array.size} voxels are not finite numbers; repair the '
                     'volume.')


def _too_large(path: pathlib.Path) -> ValueError:
  return ValueError(f'{path}: the volume is too large for the memory that is left; save a part of '
                    'it, or a coarser one.')


def _require(path: pathlib.Path, num_bytes: float) -> None:
  """Raises ValueError where what a file unpacks to, as it says itself, exceeds the memory."""
  memory.require(num_bytes, f'{path}: the volume', 'save a part of it, or a coarser one')


def _gunzip(path: pathlib.Path, content: bytes, most: int) -> bytes:
  """The first `most` bytes of what is packed; whatever a small file claims, no more of it."""
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
      return file.read(most)
  except (OSError, EOFError, zlib.error):
    raise _damaged(path) from None


def _check_nifti(path: pathlib.Path, content: bytes) -> bool:
  """Checks that a NIfTI file is whole and finite, for ITK reads zeros where it is not.

  Returns whether it has a spacing, which it always has.
  """
  packed = content[:2] == b'\x1f\x8b'
  header = _gunzip(path, content, 348) if packed else content[:348]
  order = next((o for o in '<>' if header[:4] == np.array(348, o + 'i4').tobytes()), '')
  if not order or len(header) < 348 or header[344:347] != b'n+1':
    raise _damaged(path)
  count, *shape = np.frombuffer(header, order + 'i2', 8, 40).tolist()
  kind, bits = np.frombuffer(header, order + 'i2', 2, 70).tolist()
  start, = np.frombuffer(header, order + 'f4', 1, 108).tolist()
  shape = shape[:max(count, 0)]
  size = max(bits / 8, np.dtype(_NIFTI_FLOATS.get(kind, 'u1')).itemsize)
  if not (shape and count <= 7 and min(shape) > 0 and 0 <= start < 2**31):
    raise _damaged(path)
  end = start + math.prod(shape) * size
  if packed:
    _require(path, end)
    content = _gunzip(path, content, int(end) + _SURPLUS)
  if end > len(content):
    raise _damaged(path)
  _refuse_shape(path, shape)
  _refuse_spacing(path, np.abs(np.frombuffer(content, order + 'f4', 3, 80)))
  if kind in _NIFTI_FLOATS:
    _refuse_voxels(path, np.frombuffer(
        content, order + _NIFTI_FLOATS[kind], math.prod(shape), int(start)))
  return True


def _header(path: pathlib.Path, content: bytes, last: str) -> tuple[dict[str, str], int]:
  """Fields of a text header up to the field `last`, by name in lower case, and its length."""
  fields: dict[str, str] = {}
  end = 0
  for line in io.BytesIO(content):
    end += len(line)
    name, _, value = re.split('(=|:)', line[:4096].decode('latin-1').strip() + '=', maxsplit=1)
    fields.setdefault(name.strip().lower(), value.rstrip('=').strip())
    if name.strip().lower() == last:
      return fields, end
  raise _damaged(path)


def _numbers(path: pathlib.Path, text: str) -> np.ndarray:
  try:
    return np.array([float(word) for word in re.sub('[(),]', ' ', text).split()])
  except ValueError:
    raise _damaged(path) from None


def _check_meta(path: pathlib.Path, content: bytes) -> bool:
  """Whether a MetaImage has a spacing (ITK takes 1 mm), once its compressed data prove whole."""
  fields, end = _header(path, content, 'elementdatafile')
  frames = {name.split('_')[1] for name in fields if name.startswith('seq_frame')}
  if len(frames) > 1:
    raise ValueError(f'{path}: this is a tracked sweep of {len(frames)} frames, not a volume; '
                     'reconstruct the volume first, for example with PLUS or 3D Slicer.')
  if fields['elementdatafile'].upper() != 'LOCAL':
    raise ValueError(f'{path}: expected the voxels in the file itself, not in '
                     f'{fields["elementdatafile"]}.')
  if fields.get('ndims', '3') != '3':  # ITK dies of some
    _refuse_shape(path, (), f'{fields["ndims"]} axes')
  data = content[end:]
  shape = _numbers(path, fields.get('dimsize', ''))
  if not (len(shape) == 3 and (shape > 0).all() and np.isfinite(shape).all()):
    raise _damaged(path)
  if fields.get('compresseddata', '').lower() in ('true', '1'):
    channels = _numbers(path, fields.get('elementnumberofchannels', '1'))
    size = shape.prod() * channels.prod() * _META_BYTES.get(fields.get('elementtype', ''), 0)
    if not 0 < size < 2**50:
      raise _damaged(path)
    _require(path, size)
    try:
      unpacker = zlib.decompressobj()
      data = unpacker.decompress(data, int(size) + 1)
    except zlib.error:
      raise _damaged(path) from None
    if not unpacker.eof or len(data) != size:  # ITK makes something up where it is more
      raise _damaged(path)
  if shape.prod() > len(data):
    raise _damaged(path)
  spacing = fields.get('elementspacing', fields.get('elementsize'))
  if spacing is not None:
    _refuse_spacing(path, np.abs(_numbers(path, spacing)))
  return spacing is not None


def _check_nrrd(path: pathlib.Path, content: bytes) -> bool:
  """Whether an NRRD has a spacing (ITK takes 1 mm), once its compressed data prove whole."""
  if not content.startswith(b'NRRD'):
    raise _damaged(path)
  fields, end = _header(path, content, '')
  if {'data file', 'datafile'} & fields.keys():
    raise ValueError(f'{path}: expected the voxels in the file itself, not in another one.')
  if fields.get('dimension', '3') != '3':
    _refuse_shape(path, (), f'{fields["dimension"]} axes')
  if fields.get('encoding', '').lower() in ('gzip', 'gz'):
    size = _numbers(path, fields.get('sizes', '')).prod()
    if not 0 < size < 2**50:
      raise _damaged(path)
    _require(path, size)
    _gunzip(path, content[end:], int(size * _MOST_BYTES) + _SURPLUS)
  vectors = re.findall(r'\([^)]*\)', fields.get('space directions', ''))
  spacing = [float(np.linalg.norm(_numbers(path, vector))) for vector in vectors]
  if not spacing and 'nan' not in fields.get('spacings', 'nan').lower():
    spacing = np.abs(_numbers(path, fields['spacings']))
  _refuse_spacing(path, spacing)
  return len(spacing) > 0


_CHECKS = {NIFTI: _check_nifti, META: _check_meta, NRRD: _check_nrrd}


def _read_itk(path: pathlib.Path, content: bytes) -> _Stored:
  """A NIfTI, NRRD or MetaImage file."""
  kind = KINDS[suffix_of(path)]
  known = _CHECKS[kind](path, content)
  sitk = _sitk(path)
  reader = sitk.ImageFileReader()
  reader.SetImageIO(_ITK_READERS[kind])
  reader.SetFileName(str(path))
  try:
    reader.ReadImageInformation()
    components = reader.GetNumberOfComponents()
    is_complex = 'complex' in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    _refuse_shape(path, reader.GetSize(), 'complex values' if is_complex else
                  f'{components} values a voxel' if components > 1 else '')
    image = reader.Execute()
  except RuntimeError:
    raise _damaged(path) from None
  spacing = np.array(image.GetSpacing()) if known else np.full(3, np.nan)
  return _Stored(sitk.GetArrayFromImage(image).T, spacing, np.array(image.GetOrigin()),
                 np.reshape(image.GetDirection(), (3, 3)), {})


def _read_npz(path: pathlib.Path, content: bytes, key: str) -> _Stored:
  """An NPZ file with the array `key`; i, j and k are the axes of the array, ours by default."""
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      size = sum(member.file_size for member in archive.infolist())
  except Exception:  # zipfile and NumPy raise a dozen kinds, and each means the same
    raise _damaged(path) from None
  _require(path, size)
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except MemoryError:
    raise
  except Exception:
    raise _damaged(path) from None
  arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
  if key not in arrays:
    found = ', '.join(name[:40] for name in sorted(arrays)[:20])
    raise ValueError(f'{path}: expected an array {key!r} in the file; found {found or "none"}.')
  array = arrays[key]
  _refuse_shape(path, array.shape, '' if array.dtype.kind in 'biuf' else f'{array.dtype} values')
  fields = {'spacing': np.full(3, np.nan), 'origin': np.zeros(3), 'direction': orientation.AXES.T}
  for name, default in fields.items():
    value = arrays.get(name, default)
    if value.shape != default.shape or value.dtype.kind not in 'iuf':
      raise ValueError(f'{path}: {name} must be numbers of shape {default.shape}, not '
                       f'{value.dtype} of shape {value.shape}.')
    fields[name] = value.astype(np.float64)
  if np.isnan(fields['spacing']).any():
    fields['spacing'] = np.full(3, np.nan)
  else:
    _refuse_spacing(path, fields['spacing'])
  lengths = np.linalg.norm(fields['direction'], axis=0)
  if not (np.isfinite(fields['origin']).all() and np.allclose(lengths, 1, atol=1e-3)
          and abs(np.linalg.det(fields['direction'])) > 1e-3):
    raise ValueError(f'{path}: origin must be finite and direction three independent unit columns.')
  return _Stored(array, extra=arrays, **fields)


def _read(path: str | os.PathLike, key: str) -> _Stored:
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'{path}: there is no such file.')
  if not path.is_file():
    raise ValueError(f'{path}: expected a file, not a folder.')
  if not suffix_of(path):
    raise ValueError(f'{path}: a volume is a file {", ".join(KINDS)}; this is none of them.')
  try:
    content = path.read_bytes()
  except OSError as error:
    raise ValueError(f'{path}: the file cannot be read ({error.strerror}).') from None
  if not content:
    raise ValueError(f'{path}: the file is empty.')
  try:
    if KINDS[suffix_of(path)] == NUMPY:
      return _read_npz(path, content, key)
    return _read_itk(path, content)
  except MemoryError:
    raise _too_large(path) from None


def _geometry(
    stored: _Stored, direction: np.ndarray, axes: np.ndarray = orientation.AXES) -> Geometry:
  """The geometry of a file whose axes, with columns `direction`, are turned to the rows `axes`."""
  order, flips = orientation.orient(direction, axes)
  return Geometry(
      stored.array.shape, order, flips, stored.spacing, stored.origin, stored.direction)


def read_volume(path: str | os.PathLike, axes: str = '') -> Volume:
  """Reads a gray volume into our axes (I, L, A) by permuting and flipping the axes of the file.

  An oblique file goes to the nearest axes; its direction is kept in the geometry. The spacing is
  unknown (NaN) where a MetaImage, NRRD or NPZ file has none. An NPZ file holds image [D,H,W] (in
  our axes unless direction says otherwise) and optionally spacing [3] and origin [3] in mm,
  direction [3,3] (columns: LPS directions of the axes), label [D,H,W], landmarks [P,3] in voxels of
  the image as stored, and region [P].

  Args:
    path: .nii, .nii.gz, .nrrd, .mha (these need SimpleITK) or .npz.
    axes: where the axes (i, j, k) of the file grow to, three of the letters L/R, P/A and S/I such
      as 'RAS'; for files whose direction is not that of the patient, such as a reconstruction in
      the coordinates of a tracker. It turns the array and leaves the geometry alone. '': as the
      file says.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: SimpleITK is missing; another format, truncated, corrupt or empty file; 2 or 4 axes,
      color, vectors, complex values; a tracked sweep; a spacing that is not positive; a voxel that
      is not finite; a constant volume; an NPZ with arrays that do not fit.
  """
  stored = _read(path, 'image')
  _refuse_thin(path, stored.array.shape)
  geometry = _geometry(stored, orientation.directions(axes) if axes else stored.direction)
  with np.errstate(over='ignore'):
    array = orientation.to_array(stored.array, geometry).astype(np.float32)
  _refuse_voxels(path, array)
  if array.min() == array.max():
    raise ValueError(f'{path}: every voxel is {array.flat[0]:g}; a constant volume shows nothing.')
  extras = _extras(path, stored.extra, geometry)
  return Volume(array, orientation.spacing_of(geometry), geometry, *extras)


def _extras(path: str | os.PathLike, extra: Mapping[str, np.ndarray], geometry: Geometry
            ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
  """Label, landmarks and region of an NPZ file in our axes."""
  label, landmarks, region = (extra.get(name) for name in ('label', 'landmarks', 'region'))
  if label is not None:
    if label.shape != geometry.shape:
      raise ValueError(f'{path}: label has the shape {label.shape}, but image {geometry.shape}.')
    label = orientation.to_array(_as_label(path, label), geometry)
  if landmarks is not None:
    if (landmarks.ndim != 2 or landmarks.shape[1] != 3 or landmarks.dtype.kind not in 'iuf'
        or not np.isfinite(landmarks).all()):
      raise ValueError(f'{path}: landmarks must be finite voxel coordinates [P,3], not '
                       f'{landmarks.dtype} of shape {landmarks.shape}.')
    landmarks = orientation.from_index(landmarks, geometry)
    if not orientation.inside(landmarks, geometry).all():
      raise ValueError(f'{path}: landmarks lie outside of the image of {geometry.shape} voxels.')
  if region is not None:
    if (landmarks is None or region.shape != landmarks.shape[:1]
        or not np.isin(region, (-1, 0, 1)).all()):
      raise ValueError(f'{path}: region must hold 0 (thoracic), 1 (lumbar) or -1 (unknown) for '
                       'each of the landmarks.')
    region = region.astype(np.int8)
  return label, landmarks, region


def _as_label(path: str | os.PathLike, label: np.ndarray) -> np.ndarray:
  """Label values as uint8."""
  values = np.unique(label) if label.dtype.kind in 'biuf' else np.array([np.nan])
  outside = [f'{value:g}' for value in values.tolist()
             if not (0 <= value < 256 and value == int(value))]
  if outside:
    raise ValueError(f'{path}: the mask has the values {", ".join(outside[:5])}'
                     f'{" and more" * (len(outside) > 5)}, but labels are whole numbers from 0 to '
                     '255.')
  return label.astype(np.uint8)


def read_mask(path: str | os.PathLike, geometry: Geometry) -> np.ndarray:
  """Reads the mask of an image into the voxels of that image.

  A mask stored in another order or direction of the axes is turned, voxel by voxel, where both
  files then describe the same places (within a tenth of a voxel); nothing is resampled. Where
  either file has no spacing, the shapes alone must agree.

  Args:
    path: as `read_volume`; an NPZ file holds label, and spacing, origin and direction as there.
    geometry: of the image.

  Returns:
    uint8 [D,H,W], values as stored; all 0 is allowed.

  Raises:
    FileNotFoundError, ValueError: as `read_volume`; another shape or other places than the image;
      values that are not labels.
  """
  stored = _read(path, 'label')
  axes = geometry.direction[:, list(geometry.order)] * np.where(geometry.flips, -1, 1)
  own = _geometry(stored, stored.direction, axes.T)
  if stored.extra and 'direction' not in stored.extra:  # an NPZ in our axes, wherever they lie
    own = own._replace(order=(0, 1, 2), flips=(False, False, False), spacing=np.full(3, np.nan))
  orientation.check_same_grid(path, own, geometry)
  return orientation.to_array(_as_label(path, stored.array), own)


def read_labels(path: str | os.PathLike, axes: str = ''
                ) -> tuple[np.ndarray, np.ndarray, Geometry | None]:
  """Reads a mask that stands for itself, without an image: of a volume, or of a single slice.

  A file of one voxel along its third axis is an image of (column, row), unless its first axis runs
  along the patient; its rows are turned where they run up the patient, its columns are as stored,
  so that the slices of `report.handoff` come back as they were. Any other file of one voxel along
  an axis is turned to our axes, and that one left out.

  Args:
    path, axes: as `read_volume`; an NPZ file holds label.

  Returns:
    uint8 [D,H,W], its spacing float32 [3] (NaN where unknown) and geometry; or, of a slice, uint8
    [H,W], spacing [2] and None. All 0 is allowed.

  Raises:
    FileNotFoundError, ValueError: as `read_volume`; values that are not labels; one voxel along
      two axes other than the third.
  """
  stored = _read(path, 'label')
  label = _as_label(path, stored.array)
  direction = orientation.directions(axes) if axes else stored.direction
  if label.shape[2] == 1 and abs(direction[2, 0]) < np.abs(direction[:2, 0]).max():
    image = label[..., 0].T
    upward = direction[2, 1] > np.abs(direction[:2, 1]).max()
    image = np.ascontiguousarray(image[::-1] if upward else image)
    return image, stored.spacing[[1, 0]].astype(np.float32), None
  geometry = _geometry(stored, direction)
  label, spacing = orientation.to_array(label, geometry), orientation.spacing_of(geometry)
  if 1 not in label.shape:
    return label, spacing, geometry
  thin = label.shape.index(1)
  label = label.squeeze(thin)
  _refuse_thin(path, label.shape)
  return label, np.delete(spacing, thin), None


def write_mask(path: str | os.PathLike, mask: np.ndarray, geometry: Geometry,
               fields: Mapping[str, str] | None = None) -> None:
  """Writes a mask on the grid of the file that its image came from, in the format of the suffix.

  Origin, spacing and direction come out as they were read, bit by bit (NIfTI itself keeps 32 bits
  of them). An unknown spacing is NaN in an NPZ file and else 1 mm, as ITK reads the image itself.

  Args:
    path: suffix as `read_volume`; overwritten if it exists.
    mask: [D,H,W] in our axes, boolean or whole numbers 0..65535.
    geometry: of the image.
    fields: keys and values for the header of an NRRD file.

  Raises:
    ValueError: SimpleITK is missing; another suffix; a mask of another shape or of other values; a
      folder that cannot be written to.
  """
  path, mask = pathlib.Path(path), np.asarray(mask)
  if not suffix_of(path):
    raise ValueError(f'{path}: a mask is written as {", ".join(KINDS)}; give one as suffix.')
  if mask.shape != orientation.shape_of(geometry):
    raise ValueError(f'the mask has the shape {mask.shape}, but its volume '
                     f'{orientation.shape_of(geometry)}.')
  if mask.dtype.kind not in 'biu' or mask.min() < 0 or mask.max() > 65535:
    raise ValueError(f'a mask holds whole numbers from 0 to 65535, not {mask.dtype} from '
                     f'{mask.min():g} to {mask.max():g}.')
  array = orientation.to_file(mask.astype(np.uint8 if mask.max() < 256 else np.uint16), geometry)
  try:
    if KINDS[suffix_of(path)] == NUMPY:
      np.savez_compressed(path, label=array, spacing=geometry.spacing, origin=geometry.origin,
                          direction=geometry.direction)
      return
    sitk = _sitk(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(np.nan_to_num(geometry.spacing, nan=1.0).tolist())
    image.SetOrigin(geometry.origin.tolist())
    image.SetDirection(geometry.direction.reshape(-1).tolist())
    for key, value in (fields or {}).items():
      image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)
  except (OSError, RuntimeError):
    raise ValueError(f'{path}: the mask cannot be written there.') from None
