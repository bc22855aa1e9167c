"""A volume file as stored, and the checks that all formats share."""
import gzip
import io
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spinejax.readers import memory

NO_SPACING = np.full(3, np.nan)

_LARGEST = 2.0 ** 50  # bytes; a header that asks for more is damaged
_SURPLUS = 1 << 20  # bytes that may follow the voxels
_ORTHOGONAL = 1e-3  # largest cosine between axes at right angles


class Stored(NamedTuple):
  """A file as stored.

  Attributes:
    array: along the axes (i, j, k) of the file.
    spacing: float64 [3] mm along these axes; NaN if the file has none.
    origin: float64 [3] mm, LPS position of the first voxel.
    direction: float64 [3,3], columns are the LPS directions of the axes.
    extra: all arrays of an NPZ file; empty for other formats.
  """
  array: np.ndarray
  spacing: np.ndarray
  origin: np.ndarray
  direction: np.ndarray
  extra: Mapping[str, np.ndarray] = {}


def damaged(path: str | os.PathLike, kind: str) -> ValueError:
  """The error of a file that cannot be read as a format."""
  return ValueError(f'{path}: the file is truncated or corrupt, or it is not {kind} as its suffix '
                    'says.')


def check_shape(path: str | os.PathLike, shape: Sequence[int], kind: str = '') -> None:
  """Raises ValueError unless there are 3 axes; `kind` says what else the file holds."""
  if kind or len(shape) != 3:
    raise ValueError(f'{path}: expected one gray volume of 3 axes, but the file has '
                     f'{kind or f"{len(shape)} axes"}; save each volume in a file of its own.')


def check_spacing(path: str | os.PathLike, spacing: Sequence[float] | np.ndarray) -> None:
  """Raises ValueError unless the spacing is positive and finite."""
  if not all(math.isfinite(size) and size > 0 for size in spacing):
    raise ValueError(f'{path}: the spacing is {tuple(map(float, spacing))} mm; it must be positive '
                     'along every axis.')


def check_place(path: str | os.PathLike, origin: np.ndarray, direction: np.ndarray) -> None:
  """Raises ValueError unless origin and direction place every voxel."""
  lengths = np.linalg.norm(direction, axis=0)
  if not (np.isfinite(origin).all() and np.allclose(lengths, 1, atol=1e-3)
          and abs(np.linalg.det(direction)) > 1e-3):
    raise ValueError(f'{path}: origin must be finite and direction three independent unit columns.')


def is_orthogonal(direction: np.ndarray) -> bool:
  """Whether the columns of a finite [3,3] are unit vectors at right angles."""
  return bool(np.allclose(direction.T @ direction, np.eye(3), atol=_ORTHOGONAL))


def require_memory(path: str | os.PathLike, kind: str, num_bytes: float) -> None:
  """Raises ValueError if what a header asks for cannot be, or exceeds the memory that is left."""
  if not 0 < num_bytes < _LARGEST:
    raise damaged(path, kind)
  memory.require(num_bytes, f'{path}: the volume', 'save a part of it, or a coarser one')


def unpack_gzip(path: str | os.PathLike, kind: str, content: bytes, num_bytes: float) -> bytes:
  """Unpacks gzip data up to a little more than `num_bytes`, whatever more the file holds.

  The data is read to its end where possible because that compares the checksum.
  """
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
      return file.read(int(num_bytes) + _SURPLUS)
  except (OSError, EOFError, zlib.error):
    raise damaged(path, kind) from None
