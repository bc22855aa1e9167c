"""Checks of the flags of the benchmarks."""
import os
import pathlib
from collections.abc import Sequence


def check_choice(flag: str, values: Sequence[str], known: Sequence[str]) -> None:
  """Raises ValueError unless a list flag has values and all of them are known."""
  unknown = [value for value in values if value not in known]
  if unknown or not values:
    raise ValueError(f'--{flag} takes {", ".join(known)}, not '
                     f'{unknown[0] if unknown else "nothing"!r}.')


def check_file(flag: str, path: str | None) -> pathlib.Path | None:
  """The path of a file to write, None without one.

  Raises ValueError or PermissionError where the file cannot be written.
  """
  if not path:
    return None
  file = pathlib.Path(path)
  if file.is_dir() or not file.parent.is_dir():
    raise ValueError(f'--{flag} must be a file in a folder that exists, not {file}.')
  if not os.access(file if file.exists() else file.parent, os.W_OK):
    raise PermissionError(f'{file} cannot be written to; choose another --{flag}.')
  return file
