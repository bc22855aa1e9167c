"""Agreement of two tables of angles, paired by the name of the case."""
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spinejax.measurement.results import BAND_LIMITS, AngleTable
from spinejax.metrics import agreement
from spinejax.metrics.results import Agreement, Smape
from spinejax.version import __version__


@dataclasses.dataclass(frozen=True)
class Source:
  """Where the angles of one measurement come from."""
  path: str  # of the table
  name: str  # of the measurement, to print
  key: str  # column with the names of the cases
  columns: tuple[str, ...]  # columns with the angles


@dataclasses.dataclass(frozen=True)
class TableAgreement:
  """Agreement of two tables of angles."""
  reference: Source
  other: Source
  angles: Mapping[str, Agreement]  # by column of the reference
  case_smape: Smape | None  # over the angles of a case; None for a single angle
  # {case: {'reference' and 'other': an angle per column, None where missing}}
  cases: Mapping[str, Mapping[str, tuple[float | None, ...]]]
  left_out: Mapping[str, tuple[str, ...]]  # {why: cases}, see `_left_out`
  notes: tuple[str, ...]  # sentences a reader must know

  def to_json(self) -> dict[str, Any]:
    """The content of agreement.json."""
    return dataclasses.asdict(self) | {
        'angles': {column: angle.to_json() for column, angle in self.angles.items()},
        'version': __version__, 'notice': 'Research software, not a medical device.'}


def compare_tables(reference: AngleTable, other: AngleTable, *, limit: float = agreement.LIMIT_DEG,
                   bands: Sequence[float] = BAND_LIMITS) -> TableAgreement:
  """Pairs two tables with the same number of columns by case and rates how their angles agree.

  Args:
    reference, other: the tables.
    limit, bands: as in `agreement.agree`.

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
  first, second = (Source(str(table.path), name, table.key, table.columns)
                   for table, name in zip((reference, other), _names(reference, other)))
  methods, notes = sorted(reference.methods | other.methods), []
  if reference.methods and other.methods and len(methods) > 1:
    notes.append(f'The angles are of different methods ({", ".join(methods)}); a bias between them '
                 'is not an error.')
  return TableAgreement(
      first, second, notes=tuple(notes), left_out=_left_out(reference, other, cases),
      angles={column: agreement.agree(*pair, limit=limit, bands=bands)
              for column, *pair in zip(reference.columns, *by_column)},
      case_smape=agreement.smape(*angles) if len(reference.columns) > 1 else None,
      cases={case: {'reference': reference.angles[case], 'other': other.angles[case]}
             for case in cases})


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
