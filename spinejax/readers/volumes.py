"""Volumes of the user: NIfTI, NRRD, MetaImage and NPZ files in our axes, and masks for them.

Arrays are turned to the axes (I, L, A) of `orientation` and back. Nothing is resampled.
"""
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spinejax.readers import contents, formats, orientation
from spinejax.readers.contents import Refusal
from spinejax.readers.formats import Stored
from spinejax.readers.orientation import Geometry

KINDS = {'.nii.gz': 'NIfTI', '.nii': 'NIfTI', '.nrrd': 'NRRD', '.mha': 'MetaImage', '.npz': 'NPZ'}

_WRITERS = {'NIfTI': formats.write_nifti, 'NRRD': formats.write_nrrd,
            'MetaImage': formats.write_metaimage, 'NPZ': formats.write_npz}


class Volume(NamedTuple):
  """A volume in our axes. The last three come from NPZ files that have them, else None."""
  array: np.ndarray  # float32 [D,H,W], gray values as stored
  spacing: np.ndarray  # float32 [3] mm per voxel along the axes of the array; NaN where unknown
  geometry: Geometry  # of the file
  label: np.ndarray | None  # uint8 [D,H,W], values as stored
  landmarks: np.ndarray | None  # float64 [P,3] voxels of the array, centers at whole numbers
  region: np.ndarray | None  # int8 [P]: 0 thoracic, 1 lumbar, -1 unknown


def is_volume(path: str | os.PathLike) -> bool:
  """Whether the file is a volume by its suffix. Any other file may be an image."""
  return bool(contents.suffix_of(path, KINDS))


def _read(path: str | os.PathLike, key: str) -> Stored:
  """A file as stored; of an NPZ file, the array `key`."""
  kind = KINDS.get(contents.suffix_of(path, KINDS))
  if not kind and pathlib.Path(path).exists():
    raise ValueError(f'{path}: a volume is a file {", ".join(KINDS)}; this is none of them.')
  content = contents.read_bytes(path)
  try:
    if kind == 'NPZ':
      return formats.read_npz(content, key)
    if kind == 'MetaImage':
      return formats.read_metaimage(path, content)
    return (formats.read_nifti if kind == 'NIfTI' else formats.read_nrrd)(content)
  except Refusal as refusal:
    raise ValueError(f'{path}: {refusal}') from None
  except MemoryError:
    raise ValueError(f'{path}: the volume is too large for the memory that is left; save a part of '
                     'it, or a coarser one.') from None
  except Exception:  # every library raises other errors for damaged files
    raise ValueError(f'{path}: the file is truncated or corrupt, or it is not {kind} as its suffix '
                     'says.') from None


def _geometry(stored: Stored, direction: np.ndarray, axes: np.ndarray = orientation.AXES
              ) -> Geometry:
  """The geometry of a file whose axes, with columns `direction`, are turned to the rows `axes`."""
  return Geometry(stored.array.shape, *orientation.orient(direction, axes), stored.spacing,
                  stored.origin, stored.direction)


def _check_not_thin(path: str | os.PathLike, shape: Sequence[int]) -> None:
  if min(shape) < 2:
    raise ValueError(f'{path}: the volume has {tuple(shape)} voxels; it needs 2 along every axis.')


def read_volume(path: str | os.PathLike, axes: str = '') -> Volume:
  """Reads a gray volume into our axes (I, L, A) by permuting and flipping the axes of the file.

  An oblique file goes to the nearest axes, and the geometry keeps its direction. The spacing is NaN
  if a MetaImage, NRRD or NPZ file has none. MetaImage needs SimpleITK. An NPZ file holds image
  [D,H,W] (in our axes unless direction says otherwise) and optionally spacing [3] and origin [3] in
  mm, direction [3,3] (columns: LPS directions of the axes), label [D,H,W], landmarks [P,3] in
  voxels of the image as stored, and region [P].

  `axes` says where the axes (i, j, k) of the file point, such as 'RAS', if its direction is not
  that of the patient, as of a reconstruction in the coordinates of a tracker. It turns the array
  and leaves the geometry alone.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it is not one finite gray volume.
  """
  stored = _read(path, 'image')
  _check_not_thin(path, stored.array.shape)
  geometry = _geometry(stored, orientation.directions(axes) if axes else stored.direction)
  with np.errstate(over='ignore'):
    array = orientation.to_array(stored.array, geometry).astype(np.float32)
  bad = array.size - int(np.isfinite(array).sum())
  if bad:
    raise ValueError(f'{path}: {bad} of the {array.size} voxels are not finite numbers; repair the '
                     'volume.')
  if array.min() == array.max():
    raise ValueError(f'{path}: every voxel is {array.flat[0]:g}; a constant volume shows nothing.')
  label, landmarks, region = (stored.extra.get(name) for name in ('label', 'landmarks', 'region'))
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
  return Volume(array, orientation.spacing_of(geometry).astype(np.float32), geometry, label,
                landmarks, region)


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
  """Reads the mask of an image into the voxels of that image, uint8 [D,H,W], values as stored.

  A mask with another order or direction of axes is turned if both files then describe the same
  places (within a tenth of a voxel). If either file has no spacing, the shapes alone must agree. An
  NPZ file holds label, and optionally spacing, origin and direction. A mask may be all 0.

  Raises:
    FileNotFoundError, ValueError: as `read_volume`; another shape or other places than the image;
      values that are no labels.
  """
  stored = _read(path, 'label')
  axes = geometry.direction[:, list(geometry.order)] * np.where(geometry.flips, -1, 1)
  own = _geometry(stored, stored.direction, axes.T)
  if stored.extra and 'direction' not in stored.extra:  # an NPZ file in the axes of the image
    own = own._replace(order=(0, 1, 2), flips=(False, False, False), spacing=np.full(3, np.nan))
  orientation.check_same_grid(path, own, geometry)
  return orientation.to_array(_as_label(path, stored.array), own)


def read_labels(path: str | os.PathLike, axes: str = ''
                ) -> tuple[np.ndarray, np.ndarray, Geometry | None]:
  """Reads a mask without its image: of a volume, or of a single slice.

  A file with one voxel along its third axis is an image of (column, row), unless its first axis
  runs along the patient. Its rows are turned if they run up the patient and its columns are as
  stored, so that the slices that `handoff` writes come back as they were. Any other file with one
  voxel along an axis is turned to our axes and loses that axis. Files and `axes` are as for
  `read_volume`; an NPZ file holds label.

  Returns:
    uint8 [D,H,W], its spacing float32 [3] (NaN where unknown) and geometry; or for a slice, uint8
    [H,W], spacing [2] and None. All 0 is allowed.

  Raises:
    FileNotFoundError, ValueError: as `read_volume`; values that are no labels.
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
  label = orientation.to_array(label, geometry)
  spacing = orientation.spacing_of(geometry).astype(np.float32)
  if 1 not in label.shape:
    return label, spacing, geometry
  thin = label.shape.index(1)
  label = label.squeeze(thin)
  _check_not_thin(path, label.shape)
  return label, np.delete(spacing, thin), None


def write_mask(path: str | os.PathLike, mask: np.ndarray, geometry: Geometry) -> None:
  """Writes a mask on the grid of the file that its image came from, in the format of the suffix.

  Origin, spacing and direction are written as they were read (NIfTI keeps 32 bits of them). An
  unknown spacing is NaN in an NPZ file, else 1 mm. The mask [D,H,W] is in our axes, boolean or of
  whole numbers 0..65535.

  Raises ValueError for another suffix, another mask, or a file that cannot be written.
  """
  mask, kind = np.asarray(mask), KINDS.get(contents.suffix_of(path, KINDS))
  if not kind:
    raise ValueError(f'{path}: a mask is written as {", ".join(KINDS)}; give one as suffix.')
  if mask.shape != orientation.shape_of(geometry):
    raise ValueError(f'the mask has the shape {mask.shape}, but its volume '
                     f'{orientation.shape_of(geometry)}.')
  if mask.dtype.kind not in 'biu' or mask.min() < 0 or mask.max() > 65535:
    raise ValueError(f'a mask holds whole numbers from 0 to 65535, not {mask.dtype} from '
                     f'{mask.min():g} to {mask.max():g}.')
  array = orientation.to_file(mask.astype(np.uint8 if mask.max() < 256 else np.uint16), geometry)
  spacing = geometry.spacing if kind == 'NPZ' else np.nan_to_num(geometry.spacing, nan=1.0)
  try:
    _WRITERS[kind](path, Stored(array, spacing, geometry.origin, geometry.direction))
  except Refusal as refusal:
    raise ValueError(f'{path}: {refusal}') from None
  except (OSError, RuntimeError):
    raise ValueError(f'{path}: the mask cannot be written there.') from None
