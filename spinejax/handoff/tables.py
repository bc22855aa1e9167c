"""Angles of many cases as CSV tables (RFC 4180, UTF-8).

A cell is empty where the value is unknown. A text that a spreadsheet would run as a formula gets an
apostrophe in front; numbers do not.
"""
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spinejax import runs
from spinejax.measurement.results import AngleResult, Curve

SUMMARY_COLUMNS = (
    'case', 'method', 'status', 'major_deg', 'ci_low', 'ci_high', 'expected_error_deg',
    'lower_bound_deg', 'band', 'upper', 'lower', 'apex', 'side', 'region', 'truncated',
    'calibrated_deg', 'levels_found', 'level_confidence', 'curves', 'flags', 'spacing_y_mm',
    'spacing_x_mm', 'spacing_z_mm', 'model', 'checkpoint', 'version')
CURVE_COLUMNS = (
    'case', 'method', 'status', 'curve', 'angle_deg', 'ci_low', 'ci_high', 'expected_error_deg',
    'lower_bound_deg', 'upper', 'lower', 'apex', 'upper_row', 'lower_row', 'apex_row', 'side',
    'region', 'truncated')


def write_summary(path: str | os.PathLike, results: Mapping[str, AngleResult]) -> None:
  """Writes a table of one row per case, with its largest curve; see `SUMMARY_COLUMNS`.

  `curves` holds all angles of a case in degrees from top to bottom, joined by '; ', and `flags` its
  flags, joined by ' | '. Raises OSError if the file cannot be written.
  """
  rows = []
  for case, result in results.items():
    steps = dict(zip(('spacing_y_mm', 'spacing_x_mm', 'spacing_z_mm'), result.spacing or ()))
    rows.append(_curve_cells(result.major_curve) | vars(result) | steps | _interval(result.ci95) | {
        'case': case, 'curves': '; '.join(f'{curve.angle_deg:g}' for curve in result.curves),
        'flags': ' | '.join(result.flags)})
  _write_table(path, SUMMARY_COLUMNS, rows)


def write_curves(path: str | os.PathLike, results: Mapping[str, AngleResult]) -> None:
  """Writes a table of one row per curve, top to bottom, like `write_summary`; rows in pixels."""
  _write_table(path, CURVE_COLUMNS, (
      _curve_cells(curve) | {'case': case, 'method': result.method, 'status': result.status,
                             'curve': number}
      for case, result in results.items() for number, curve in enumerate(result.curves, 1)))


def _curve_cells(curve: Curve | None) -> dict[str, Any]:
  """The fields of a curve, with the ends of its interval as `ci_low` and `ci_high`."""
  if curve is None:
    return {}
  return vars(curve) | _interval(curve.ci95)


def _interval(ci95: tuple[float, float] | None) -> dict[str, float]:
  return dict(zip(('ci_low', 'ci_high'), ci95 or ()))


def _write_table(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
                 ) -> None:
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, extrasaction='ignore')
  writer.writeheader()
  writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
  runs.write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
  """A value as a cell that no spreadsheet runs as a formula."""
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, str) and (value[:1] in ('\t', '\r', '\n') or value.lstrip()[:1] in (
      '=', '+', '-', '@')):
    return f"'{value}"
  return value
