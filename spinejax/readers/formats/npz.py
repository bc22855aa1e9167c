"""Volumes in NumPy archives."""
import io
import os
import zipfile

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
  place = []
  for name, default in (('spacing', stored.NO_SPACING), ('origin', np.zeros(3)),
                        ('direction', orientation.AXES.T)):
    value = arrays.get(name, default)
    if value.shape != default.shape or value.dtype.kind not in 'iuf':
      raise Refusal(f'{name} must be numbers of shape {default.shape}, not {value.dtype} of '
                    f'shape {value.shape}.')
    place.append(value.astype(np.float64))
  if np.isnan(place[0]).any():
    place[0] = stored.NO_SPACING
  stored.check_place(*place)
  return Stored(array, *place, arrays)


def write(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume whose array is `label`."""
  np.savez_compressed(path, label=volume.array, spacing=volume.spacing, origin=volume.origin,
                      direction=volume.direction)
