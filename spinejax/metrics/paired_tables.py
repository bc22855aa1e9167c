"""Agreement of two tables of angles, paired by the name of the case."""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spinejax.version import __version__
from spinejax.measurement.results import BAND_LIMITS, BAND_NAMES, AngleTable
from spinejax.metrics import agreement
from spinejax.metrics.results import Agreement, Smape


@dataclasses.dataclass(frozen=True)
class Source:
  """Where the angles of one measurement come from.

  Attributes:
    path: of the table.
    name: of the measurement, to print.
    key: column with the names of the cases.
    columns: columns with the angles.
  """
  path: str
  name: str
  key: str
  columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TableAgreement:
  """Agreement of two tables of angles.

  Attributes:
    reference, other: the two measurements.
    angles: {column of the reference: agreement}.
    case_smape: SMAPE over the angles of a case; None for a single angle.
    cases: {case: {'reference' and 'other': an angle per column, None where missing}}.
    left_out: {why: cases}, with the keys 'only_in_reference', 'only_in_other',
      'failed_in_reference', 'failed_in_other' and 'without_angle'.
    notes: sentences a reader must know.
  """
  reference: Source
  other: Source
  angles: Mapping[str, Agreement]
  case_smape: Smape | None
  cases: Mapping[str, Mapping[str, tuple[float | None, ...]]]
  left_out: Mapping[str, tuple[str, ...]]
  notes: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """The content of agreement.json."""
    return dataclasses.asdict(self) | {
        'angles': {column: angle.to_json() for column, angle in self.angles.items()},
        'version': __version__, 'notice': 'Research software, not a medical device.'}


def compare_tables(reference: AngleTable, other: AngleTable, *,
                   limit: float = agreement.LIMIT_DEG,
                   bands: Sequence[float] = BAND_LIMITS) -> TableAgreement:
  """Pairs two tables by case and rates how their angles agree.

  Args:
    reference, other: tables with the same number of columns.
    limit: degrees that a difference may have to count as within, see `agreement.agree`.
    bands: rising limits in degrees between the bands of severity.

  Raises:
    ValueError: the tables are the same or have no case in common, or the bands do not rise.
  """
  if reference.path.resolve() == other.path.resolve() and reference.columns == other.columns:
    raise ValueError(f'{reference.path} would be compared with itself; give two tables, or choose '
                     'other columns of one with --columns and --columns_b.')
  if not set(reference.cases) & set(other.cases):
    counts = [f'{len(table.cases)} such as {table.cases[0]!r}' for table in (reference, other)]
    raise ValueError(f'{reference.path} and {other.path} have no case in common; '
                     f'{counts[0]} against {counts[1]}.')
  cases = [case for case in reference.angles if case in other.angles]
  angles = [[table.angles[case] for case in cases] for table in (reference, other)]
  by_column = [list(zip(*values)) or [()] * len(reference.columns) for values in angles]
  names = _names(reference, other)
  methods = sorted(reference.methods | other.methods)
  sources = [Source(str(table.path), name, table.key, table.columns)
             for table, name in zip((reference, other), names)]
  return TableAgreement(
      sources[0], sources[1],
      angles={column: agreement.agree(*pair, limit=limit, bands=name_bands(bands))
              for column, *pair in zip(reference.columns, *by_column)},
      case_smape=agreement.smape(*angles) if len(reference.columns) > 1 else None,
      cases={case: {'reference': reference.angles[case], 'other': other.angles[case]}
             for case in cases},
      left_out=_left_out(reference, other, cases),
      notes=(f'The angles are of different methods ({", ".join(methods)}); a bias between them is '
             'not an error.',) if reference.methods and other.methods and len(methods) > 1 else ())


def name_bands(limits: Sequence[float]) -> list[tuple[str, float]]:
  """(name, upper limit) of the bands between rising limits: none to severe if there are three.

  Raises:
    ValueError: the limits are not positive and rising.
  """
  limits = list(limits)
  if not limits or not all(0 < low < high for low, high in zip(limits, [*limits[1:], math.inf])):
    raise ValueError('bands must be rising positive degrees such as 10,25,40, got '
                     f'{",".join(f"{limit:g}" for limit in limits) or "none"}.')
  names = list(BAND_NAMES)
  if len(limits) + 1 != len(names):
    names = [f'below {limits[0]:g}°', *(f'{a:g} to {b:g}°' for a, b in zip(limits, limits[1:])),
             f'{limits[-1]:g}° and more']
  return list(zip(names, [*limits, math.inf]))


def _left_out(reference: AngleTable, other: AngleTable, paired: Sequence[str]
              ) -> dict[str, tuple[str, ...]]:
  first, second = set(reference.cases), set(other.cases)
  return {
      'only_in_reference': tuple(case for case in reference.cases if case not in second),
      'only_in_other': tuple(case for case in other.cases if case not in first),
      'failed_in_reference': tuple(case for case in reference.failed if case in second),
      'failed_in_other': tuple(case for case in other.failed if case in first),
      'without_angle': tuple(case for case in paired
                             if None in (*reference.angles[case], *other.angles[case]))}


def _names(reference: AngleTable, other: AngleTable) -> tuple[str, str]:
  """A name for each measurement: its file, else folder and file, else its columns."""
  paths = [table.path.resolve() for table in (reference, other)]
  for first, second in ([path.stem for path in paths],
                        [f'{path.parent.name}/{path.stem}' for path in paths],
                        [', '.join(table.columns) for table in (reference, other)]):
    if first != second:
      return first, second
  return 'A', 'B'
