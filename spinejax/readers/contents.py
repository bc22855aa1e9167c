"""Bytes, text and tables of files, with one sentence for whatever cannot be read."""
import csv
import io
import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

_SEPARATORS = '\t;,'
_SPREADSHEETS = b'PK\x03\x04', b'\xd0\xcf\x11\xe0'  # first bytes of XLSX and ODS, and of XLS
_UTF16_MARKS = b'\xff\xfe', b'\xfe\xff'


class Refusal(ValueError):
  """A sentence about what a file holds. The caller adds the path."""


class Damaged(Exception):
  """The file is truncated or corrupt."""


class Table(NamedTuple):
  """A table with a header. There is a cell for every column; a row may have more."""
  path: pathlib.Path
  columns: list[str]  # names in the header; empty if the file has no text
  rows: list[tuple[int, list[str]]]  # (line of the file from 1, cells), without empty rows


def suffix_of(path: str | os.PathLike, suffixes: Iterable[str]) -> str:
  """The first of the suffixes that a file name ends with in any capitals; '' if none."""
  name = pathlib.Path(path).name.lower()
  return next((suffix for suffix in suffixes if name.endswith(suffix)), '')


def read_bytes(path: str | os.PathLike) -> bytes:
  """Reads a file; FileNotFoundError or ValueError if there is none, or it is empty or a folder."""
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


def read_text(path: str | os.PathLike) -> str:
  """Reads UTF-8, UTF-16 with its mark, or else the Western code page of spreadsheets.

  Raises ValueError for a spreadsheet or what is no text, else as `read_bytes`.
  """
  data = read_bytes(path)
  if data.startswith(_SPREADSHEETS):
    raise ValueError(f'{path}: the file is a spreadsheet; save it as CSV.')
  try:
    text = data.decode('utf-16' if data.startswith(_UTF16_MARKS) else 'utf-8-sig')
  except UnicodeDecodeError:
    text = data.decode('cp1252', errors='replace')
  if '\0' in text:
    raise ValueError(f'{path}: the file is not a text table; save it as CSV.')
  return text


def read_table(path: str | os.PathLike) -> Table:
  """Reads a table whose first row names the columns.

  The separator (tab, semicolon or comma) is the one that gives the header the most cells, or what a
  first line such as 'sep=;' says. Cells may be quoted. White space around them and empty rows are
  left out. Raises ValueError for a line that cannot be read as a table, else as `read_text`.
  """
  path = pathlib.Path(path)
  lines = read_text(path).splitlines(keepends=True)
  given = re.fullmatch(r'sep=(.)\s*', lines[0]) if lines else None
  if given:
    rows = _read_rows(path, ''.join(lines[1:]), given[1], 1)
  else:
    candidates = [_read_rows(path, ''.join(lines), separator, 0) for separator in _SEPARATORS]
    rows = max(candidates, key=lambda rows: len(rows[0][1]) if rows else 0)
    rows = rows if rows and len(rows[0][1]) > 1 else candidates[-1]
  if not rows:
    return Table(path, [], [])
  (_, columns), *rows = rows
  return Table(path, columns, [(number, cells + [''] * (len(columns) - len(cells)))
                               for number, cells in rows])


def _read_rows(path: pathlib.Path, text: str, separator: str, skipped: int
               ) -> list[tuple[int, list[str]]]:
  """(line, cells) of the rows that are not empty; empty cells at the end are left out."""
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=separator,
                      skipinitialspace=separator != '\t')
  rows = []
  try:
    for cells in reader:
      cells = [cell.strip() for cell in cells]
      while cells and not cells[-1]:
        cells.pop()
      if cells:
        rows.append((reader.line_num + skipped, cells))
  except csv.Error as error:
    raise ValueError(f'{path} line {reader.line_num + skipped}: the line cannot be read as a table '
                     f'({error}).') from None
  return rows
