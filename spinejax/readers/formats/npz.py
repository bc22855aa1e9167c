"""Volumes in NumPy archives."""
import io
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from spinejax.readers import orientation
from spinejax.readers.contents import Refusal
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored


def read(content: bytes, key: str) -> Stored:
  """Reads the array `key`, and spacing, origin and direction if the file has them.

  The spacing is NaN by default, the origin 0 and the direction that of our axes.
  """
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    stored.check_memory(sum(member.file_size for member in archive.infolist()))
  with np.load(io.BytesIO(content), allow_pickle=False) as archive:
    arrays = {name: archive[name] for name in archive.files}
  arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
  if key not in arrays:
    found = ', '.join(name[:40] for name in sorted(arrays)[:20])
    raise Refusal(f'expected an array {key!r} in the file; found {found or "none"}.')
  array = arrays[key]
  stored.check_shape(array.shape, '' if array.dtype.kind in 'biuf' else f'{array.dtype} values')
  spacing = _read_place(arrays, 'spacing', stored.NO_SPACING)
  spacing = stored.NO_SPACING if np.isnan(spacing).any() else spacing
  origin = _read_place(arrays, 'origin', np.zeros(3))
  direction = _read_place(arrays, 'direction', orientation.AXES.T)
  stored.check_place(spacing, origin, direction)
  return Stored(array, spacing, origin, direction, arrays)


def _read_place(arrays: Mapping[str, np.ndarray], name: str, default: np.ndarray) -> np.ndarray:
  value = arrays.get(name, default)
  if value.shape != default.shape or value.dtype.kind not in 'iuf':
    raise Refusal(f'{name} must be numbers of shape {default.shape}, not {value.dtype} of shape '
                  f'{value.shape}.')
  return value.astype(np.float64)


def write(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume whose array is `label`."""
  np.savez_compressed(path, label=volume.array, spacing=volume.spacing, origin=volume.origin,
                      direction=volume.direction)
