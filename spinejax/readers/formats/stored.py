"""A volume file as stored, and the checks that all formats share.

A format raises `Refusal`, or for a damaged file any other exception of whatever library. `volumes`
adds the path.
"""
import gzip
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spinejax.readers import memory
from spinejax.readers.contents import Damaged, Refusal

NO_SPACING = np.full(3, np.nan)

_LARGEST = 2.0 ** 50  # bytes; a header that asks for more is damaged
_SURPLUS = 1 << 20  # bytes that may follow the voxels


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


def check_shape(shape: Sequence[int], kind: str = '') -> None:
  """Refuses other than 3 axes; `kind` says what else the file holds."""
  if kind or len(shape) != 3:
    raise Refusal(f'expected one gray volume of 3 axes, but the file has '
                  f'{kind or f"{len(shape)} axes"}; save each volume in a file of its own.')


def check_place(spacing: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> None:
  """Refuses a spacing that is neither NaN nor positive, and a place that is none."""
  if not np.isnan(spacing).all():
    check_spacing(spacing)
  lengths = np.linalg.norm(direction, axis=0)
  if not (np.isfinite(origin).all() and np.allclose(lengths, 1, atol=1e-3)
          and abs(np.linalg.det(direction)) > 1e-3):
    raise Refusal('origin must be finite and direction three independent unit columns.')


def check_spacing(spacing: np.ndarray) -> None:
  """Refuses a spacing that is not positive and finite."""
  if not all(math.isfinite(size) and size > 0 for size in spacing):
    raise Refusal(f'the spacing is {tuple(map(float, spacing))} mm; it must be positive along '
                  'every axis.')


def check_memory(num_bytes: float) -> None:
  """Refuses what a header asks for if it cannot be or exceeds the memory that is left."""
  if not 0 < num_bytes < _LARGEST:
    raise Damaged
  try:
    memory.require(num_bytes, 'the volume', 'save a part of it, or a coarser one')
  except ValueError as error:
    raise Refusal(str(error)) from None


def unpack_gzip(content: bytes, num_bytes: float) -> bytes:
  """Unpacks gzip data up to a little more than `num_bytes`, whatever more the file holds.

  The data is read to its end where possible because that compares the checksum.
  """
  with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
    return file.read(int(num_bytes) + _SURPLUS)
