"""Bytes of files, with one sentence for whatever cannot be read."""
import os
import pathlib
from collections.abc import Iterable


class Refusal(ValueError):
  """A sentence about what a file holds. The caller adds the path."""


class Damaged(Exception):
  """The file is truncated or corrupt."""


def suffix_of(path: str | os.PathLike, suffixes: Iterable[str]) -> str:
  """The first of the suffixes that a file name ends with in any capitals; '' if none."""
  name = pathlib.Path(path).name.lower()
  return next((suffix for suffix in suffixes if name.endswith(suffix)), '')


def read_bytes(path: str | os.PathLike) -> bytes:
  """Content of a file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the path is a folder, or the file cannot be read or is empty.
  """
  try:
    content = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: there is no such file.') from None
  except IsADirectoryError:
    raise ValueError(f'{path}: expected a file, but this is a folder.') from None
  except (OSError, ValueError) as error:  # ValueError: a null byte in the path
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'{path}: the file cannot be read ({reason}).') from None
  if not content:
    raise ValueError(f'{path}: the file is empty.')
  return content
