"""Angles of many cases, as a table of a user holds them."""
import dataclasses
import pathlib
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class AngleTable:
  """A table with a row for each case.

  Attributes:
    path: of the file.
    key: name of the column with the names of the cases.
    columns: names of the columns with angles.
    angles: {case: an angle in degrees for each column, None where the cell is empty}.
    failed: cases with the status fail; they are not in `angles`.
    methods: entries of the column 'method'; empty without one.
  """
  path: pathlib.Path
  key: str
  columns: tuple[str, ...]
  angles: Mapping[str, tuple[float | None, ...]]
  failed: tuple[str, ...] = ()
  methods: frozenset[str] = frozenset()

  @property
  def cases(self) -> list[str]:
    """All cases, failed ones last."""
    return [*self.angles, *self.failed]
