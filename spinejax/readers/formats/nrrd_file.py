"""NRRD files, by pynrrd."""
import io
import os
from collections.abc import Mapping

import numpy as np

from spinejax.readers import contents
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

KIND = 'NRRD'

_MOST_BYTES = 8  # of a voxel
_TO_LPS = {  # by space, as a sign for each axis; other spaces are taken as LPS
    'right-anterior-superior': (-1.0, -1.0, 1.0), 'ras': (-1.0, -1.0, 1.0),
    'left-anterior-superior': (1.0, -1.0, 1.0), 'las': (1.0, -1.0, 1.0)}
_GZIP = ('gzip', 'gz')
_ENCODINGS = ('raw', 'ascii', 'text', 'txt', *_GZIP)
_SPATIAL_KINDS = ('domain', 'space', '???', 'none')


def read(path: str | os.PathLike) -> Stored:
  """Reads a volume of one NRRD file. The spacing is NaN if the file has none.

  Raises:
    FileNotFoundError, ValueError: as `contents.read_bytes`; a damaged file; voxels in another file;
      other than 3 axes; several values a voxel; a spacing that is not positive; a place that is not
      finite.
  """
  import nrrd  # late, because it takes a fifth of a second

  content = contents.read_bytes(path)
  file = io.BytesIO(content)
  try:
    header = nrrd.read_header(file)
    fields = {name.replace(' ', '').lower(): value for name, value in header.items()}
    encoding = str(fields['encoding']).lower()
    sizes = fields['sizes']
    num_bytes = float(np.prod(sizes, dtype=np.float64)) * _MOST_BYTES
  except Exception:  # pynrrd raises many kinds of errors for damaged headers
    raise stored.damaged(path, KIND) from None
  if 'datafile' in fields:  # pynrrd would open it, wherever it is
    raise ValueError(f'{path}: expected the voxels in the file itself, not in another one.')
  special = set(map(str, fields.get('kinds', ()))) - set(_SPATIAL_KINDS)
  stored.check_shape(path, sizes, f'an axis of kind {special.pop()}' if special else '')
  if encoding not in _ENCODINGS or min(sizes) < 1:
    raise stored.damaged(path, KIND)
  stored.require_memory(path, KIND, num_bytes)
  if encoding in _GZIP:  # pynrrd would unpack whatever the file holds
    file = io.BytesIO(stored.unpack_gzip(path, KIND, content[file.tell():], num_bytes))
    encoding = 'raw'
  try:
    array = nrrd.read_data({**header, 'encoding': encoding}, file)
  except Exception:
    raise stored.damaged(path, KIND) from None
  stored.check_shape(path, array.shape, '' if array.dtype.kind in 'iuf' else 'blocks')
  return Stored(array, *_read_place(path, fields))


def _read_place(path: str | os.PathLike, fields: Mapping[str, object]
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Spacing, origin and direction of a header."""
  signs = np.array(_TO_LPS.get(str(fields.get('space', '')).lower(), (1.0, 1.0, 1.0)))
  try:
    origin = signs * np.asarray(fields.get('spaceorigin', np.zeros(3)), np.float64)
    if 'spacedirections' in fields:
      steps = np.asarray(fields['spacedirections'], np.float64)
      spacing = np.linalg.norm(steps, axis=1)
      stored.check_spacing(path, spacing)
      direction = (steps * signs / spacing[:, None]).T
    else:
      steps = np.asarray(fields.get('spacings', stored.NO_SPACING), np.float64)
      spacing, direction = np.abs(steps), np.diag(np.where(steps < 0, -1.0, 1.0))
      if 'axismins' in fields and 'spaceorigin' not in fields:  # where the first voxel begins
        origin = np.asarray(fields['axismins'], np.float64) + steps / 2
  except (TypeError, IndexError):
    raise stored.damaged(path, KIND) from None
  if spacing.shape != (3,) or origin.shape != (3,) or direction.shape != (3, 3):
    raise stored.damaged(path, KIND)
  if np.isnan(spacing).any():
    spacing = stored.NO_SPACING
  else:
    stored.check_spacing(path, spacing)
  stored.check_place(path, origin, direction)
  return spacing, origin, direction


def write(path: str | os.PathLike, array: np.ndarray, spacing: np.ndarray, origin: np.ndarray,
          direction: np.ndarray, fields: Mapping[str, str]) -> None:
  """Writes an array with fields in the header; other arguments as `Stored`. Raises OSError."""
  import nrrd

  nrrd.write(os.fspath(path), array, {
      'space': 'left-posterior-superior', 'kinds': ['domain'] * 3,
      'space directions': (direction * spacing).T, 'space origin': origin, **fields})
