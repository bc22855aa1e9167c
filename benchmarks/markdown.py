"""Markdown tables of the rows in launch/results."""
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'launch' / 'results'


def read(name: str) -> list[dict[str, Any]]:
  """Rows of a file in launch/results."""
  return [json.loads(line) for line in (RESULTS / name).read_text().splitlines() if line]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], source: str) -> str:
  """A Markdown table with its source below."""
  lines = ['| ' + ' | '.join(row) + ' |' for row in (header, ['---'] * len(header), *rows)]
  return '\n'.join(lines) + f'\n\n{source}\n'


def number(value: float | None, digits: int, unit: str = '') -> str:
  """A rounded number, '–' for None; a value that rounds to zero has no sign.

  Sums of floats differ in the last bit from machine to machine. They are cut off first, so that a
  mean that lies between two printed numbers gives the same one everywhere.
  """
  if value is None:
    return '–'
  exact = round(float(value), 9)
  return f'{round(exact, digits) + 0.0:.{digits}f}{unit}'.replace('-', '−')


def source_of(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """The sentence below a table: file, device, versions and dates."""
  if not rows:
    return f'`launch/results/{name}`'
  row = rows[-1]
  dates = sorted({each['date'][:10] for each in rows})
  days = dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'
  return (f'`launch/results/{name}`; {row["cores"]} cores of {row["device"]}, jax '
          f'{row["versions"]["jax"]}, {days}.')
