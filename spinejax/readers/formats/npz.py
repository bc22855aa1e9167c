"""Volumes in NumPy archives."""
import io
import os
import zipfile

import numpy as np

from spinejax.readers import contents
from spinejax.readers import orientation
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

KIND = 'NPZ'


def read(path: str | os.PathLike, key: str) -> Stored:
  """Reads the array `key`, and spacing, origin and direction if the file has them.

  The spacing is NaN by default, the origin 0 and the direction that of our axes.

  Raises:
    FileNotFoundError, ValueError: as `contents.read_bytes`; a damaged file; no such array; other
      than 3 axes or real numbers; a spacing, origin or direction that cannot be.
  """
  content = contents.read_bytes(path)
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      num_bytes = sum(member.file_size for member in archive.infolist())
  except Exception:  # zipfile raises many kinds of errors for damaged files
    raise stored.damaged(path, KIND) from None
  stored.require_memory(path, KIND, num_bytes)
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except MemoryError:
    raise
  except Exception:
    raise stored.damaged(path, KIND) from None
  arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
  if key not in arrays:
    found = ', '.join(name[:40] for name in sorted(arrays)[:20])
    raise ValueError(f'{path}: expected an array {key!r} in the file; found {found or "none"}.')
  array = arrays[key]
  stored.check_shape(path, array.shape,
                     '' if array.dtype.kind in 'biuf' else f'{array.dtype} values')
  fields = {'spacing': stored.NO_SPACING, 'origin': np.zeros(3), 'direction': orientation.AXES.T}
  for name, default in fields.items():
    value = arrays.get(name, default)
    if value.shape != default.shape or value.dtype.kind not in 'iuf':
      raise ValueError(f'{path}: {name} must be numbers of shape {default.shape}, not '
                       f'{value.dtype} of shape {value.shape}.')
    fields[name] = value.astype(np.float64)
  if np.isnan(fields['spacing']).any():
    fields['spacing'] = stored.NO_SPACING
  else:
    stored.check_spacing(path, fields['spacing'])
  stored.check_place(path, fields['origin'], fields['direction'])
  return Stored(array, extra=arrays, **fields)


def write(path: str | os.PathLike, array: np.ndarray, spacing: np.ndarray, origin: np.ndarray,
          direction: np.ndarray) -> None:
  """Writes an array as label; the arguments are those of `Stored`. Raises OSError."""
  np.savez_compressed(path, label=array, spacing=spacing, origin=origin, direction=direction)
