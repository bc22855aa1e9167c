"""NRRD files, by pynrrd."""
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from spinejax.readers.contents import Damaged, Refusal
from spinejax.readers.formats import stored
from spinejax.readers.formats.stored import Stored

_MOST_BYTES = 8  # of a voxel
_TO_LPS = {  # by space, as a sign for each axis; other spaces are taken as LPS
    'right-anterior-superior': (-1.0, -1.0, 1.0), 'ras': (-1.0, -1.0, 1.0),
    'left-anterior-superior': (1.0, -1.0, 1.0), 'las': (1.0, -1.0, 1.0)}
_GZIP = ('gzip', 'gz')
_ENCODINGS = ('raw', 'ascii', 'text', 'txt', *_GZIP)
_SPATIAL_KINDS = ('domain', 'space', '???', 'none')


def read(content: bytes) -> Stored:
  """Reads a volume of one NRRD file. The spacing is NaN if the file has none."""
  import nrrd  # late, because it takes a fifth of a second

  file = io.BytesIO(content)
  header = nrrd.read_header(file)
  fields = {name.replace(' ', '').lower(): value for name, value in header.items()}
  if 'datafile' in fields:  # pynrrd would open it, wherever it is
    raise Refusal('expected the voxels in the file itself, not in another one.')
  special = set(map(str, fields.get('kinds', ()))) - set(_SPATIAL_KINDS)
  stored.check_shape(fields['sizes'], f'an axis of kind {special.pop()}' if special else '')
  encoding = str(fields['encoding']).lower()
  if encoding not in _ENCODINGS or min(fields['sizes']) < 1:
    raise Damaged
  num_bytes = float(np.prod(fields['sizes'], dtype=np.float64)) * _MOST_BYTES
  stored.check_memory(num_bytes)
  if encoding in _GZIP:  # pynrrd would unpack whatever the file holds
    file = io.BytesIO(stored.unpack_gzip(content[file.tell():], num_bytes))
    encoding = 'raw'
  array = nrrd.read_data({**header, 'encoding': encoding}, file)
  stored.check_shape(array.shape, '' if array.dtype.kind in 'iuf' else 'blocks')
  return Stored(array, *_read_place(fields))


def _read_place(fields: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Spacing, origin and direction of a header."""
  signs = np.array(_TO_LPS.get(str(fields.get('space', '')).lower(), (1.0, 1.0, 1.0)))
  origin = signs * np.asarray(fields.get('spaceorigin', np.zeros(3)), np.float64)
  if 'spacedirections' in fields:
    steps = np.asarray(fields['spacedirections'], np.float64)
    spacing = np.linalg.norm(steps, axis=1)
    stored.check_spacing(spacing)
    direction = (steps * signs / spacing[:, None]).T
  else:
    steps = np.asarray(fields.get('spacings', stored.NO_SPACING), np.float64)
    spacing, direction = np.abs(steps), np.diag(np.where(steps < 0, -1.0, 1.0))
    spacing = stored.NO_SPACING if np.isnan(spacing).any() else spacing
    if 'axismins' in fields and 'spaceorigin' not in fields:  # where the first voxel begins
      origin = np.asarray(fields['axismins'], np.float64) + steps / 2
  stored.check_place(spacing, origin, direction)
  return spacing, origin, direction


def write(path: str | os.PathLike, volume: Stored) -> None:
  """Writes a volume."""
  import nrrd

  nrrd.write(os.fspath(path), volume.array, {
      'space': 'left-posterior-superior', 'kinds': ['domain'] * 3,
      'space directions': (volume.direction * volume.spacing).T, 'space origin': volume.origin})
