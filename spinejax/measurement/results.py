"""Options and results of angle measurements, and tables of angles."""
import dataclasses
import math
import pathlib
from collections.abc import Container, Mapping, Sequence
from typing import Any

from spinejax.version import __version__

SCHEMA = 'spinejax.measure/1'
MIN_DEG = 5.0  # degrees; a smaller change of tilt is not a curve
BAND_NAMES = ('none', 'mild', 'moderate', 'severe')
BAND_LIMITS = (10.0, 25.0, 40.0)  # degrees between the bands

# Keys of a level in JSON by method. They are the same for all levels of a result.
_LEVEL_KEYS = {
    'uca': ('name', 'kind', 'row', 'column', 'tilt_deg', 'line_deg', 'left', 'right',
            'confidence'),
    'center of lamina': ('name', 'row', 'column', 'depth', 'tilt_deg', 'line_deg', 'rotation_deg',
                         'right', 'left', 'confidence'),
    'landmark Cobb': ('name', 'row', 'column', 'tilt_deg', 'left', 'right', 'corners',
                      'confidence')}
_VOLUME_KEYS = ('rotation_deg', 'pmc_deg', 'pmc_angle_deg')  # of a curve; left out where None


@dataclasses.dataclass(frozen=True)
class Calibration:
  """A user's own conversion of angles: slope * degrees + intercept, and where it comes from."""
  slope: float
  intercept: float
  source: str

  def apply(self, angle: float) -> float:
    """The calibrated angle in degrees, rounded to two decimals."""
    return round(self.slope * angle + self.intercept, 2)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of all methods; ValueError if one of them is out of its range.

  Attributes:
    min_deg: degrees; a smaller change of tilt is not a curve.
    bands: three rising limits in degrees between none, mild, moderate and severe.
    calibration: (slope, intercept, source), or () for none. The calibrated angle is reported
      beside the measured angle.
  """
  min_deg: float = MIN_DEG
  bands: Sequence[float] = BAND_LIMITS
  calibration: Sequence[Any] = ()

  def __post_init__(self):
    if not 0 < self.min_deg < math.inf:
      raise ValueError(f'min_deg must be degrees above 0, not {self.min_deg}.')
    limits = [0.0, *self.bands, math.inf]
    if len(limits) != 5 or not all(low < high for low, high in zip(limits, limits[1:])):
      raise ValueError('bands must be 3 rising limits in degrees, not '
                       f'{tuple(self.bands)}.')
    self.get_calibration()

  def get_calibration(self) -> Calibration | None:
    """The calibration, or None without one."""
    if not len(self.calibration):
      return None
    try:
      slope, intercept, source = self.calibration
      calibration = Calibration(float(slope), float(intercept), str(source))
      if math.isfinite(calibration.slope + calibration.intercept):
        return calibration
    except (TypeError, ValueError):
      pass
    raise ValueError('calibration must be (slope, intercept, source), such as '
                     f"(1.1, 2.0, 'our hospital, 2024'), not {tuple(self.calibration)}.")


@dataclasses.dataclass(frozen=True)
class Curve:
  """A curve of the spine."""
  angle_deg: float  # between the tilts of the two ends
  ci95: tuple[float, float] | None  # 95 % interval of the angle; None without replicates
  upper: str | None  # name of the level as in `Level`; None where unknown
  lower: str | None
  apex: str | None
  upper_row: float  # positions along the first axis, pixels
  lower_row: float
  apex_row: float
  side: str  # 'left' or 'right', to which the spine is convex; of the patient in volumes
  region: str | None  # 'thoracic', 'thoracolumbar' or 'lumbar'; None where unknown
  truncated: bool  # an end is the first or last level found, so the true angle may be larger
  expected_error_deg: float | None = None  # standard error of the angle; None if unknown
  lower_bound_deg: float | None = None  # the angle is larger in 95 % of such cases
  rotation_deg: float | None = None  # axial rotation of the apex; volumes only, like the next two
  pmc_deg: float | None = None  # plane of maximum curvature, degrees from the coronal plane
  pmc_angle_deg: float | None = None  # angle in that plane


@dataclasses.dataclass(frozen=True)
class Level:
  """A level of the spine. Positions are in pixels of the mask."""
  name: str | None  # T1..L5, 'level 4' from the top where uncertain, None where unknown
  row: float  # of the center
  column: float
  tilt_deg: float | None  # of the fitted midline
  depth: float | None = None  # of the center; volumes only
  kind: str | None = None  # 'process' or 'lump'; VPI images only
  line_deg: float | None = None  # tilt of the line through both sides; None if one was not found
  rotation_deg: float | None = None  # axial rotation, of a pair in a volume
  left: tuple[float, ...] | None = None  # None if not found
  right: tuple[float, ...] | None = None
  confidence: float | None = None  # probability of the most probable name; None if unknown
  corners: tuple[tuple[float, ...], ...] | None = None  # of the body; landmarks only


@dataclasses.dataclass(frozen=True)
class Lamina:
  """A lamina of a volume, found or proposed where one is missing. Positions are in voxels."""
  level: str | None  # T1..L5; None where unknown
  side: str  # 'right' or 'left' of the patient
  row: float
  column: float
  depth: float
  confidence: float  # share of such laminae that are within 3 mm of a true one, on phantoms
  found: bool  # False if it is proposed


@dataclasses.dataclass(frozen=True)
class AngleResult:
  """The angles of a case.

  Attributes:
    method: 'uca', 'spa', 'center of lamina', 'centerline Cobb' or 'landmark Cobb'.
    status: 'ok', 'partial' (a flag weakens the angle) or 'fail' (no angle).
    curves, levels: top to bottom; no levels if the method has none.
    major_deg: the largest angle, degrees; 0 without a curve, None on failure. On X-ray masks a
      curve that touches no end comes before a slightly larger one that does.
    band: severity of the largest angle; two names joined by ' or ' if its interval crosses a
      limit; None on failure.
    ci95: 95 % interval of the largest angle; None if unknown.
    expected_error_deg: standard error of the largest angle; None if unknown.
    lower_bound_deg: the largest angle is above it in 95 % of such cases; None if unknown.
    level_confidence: how sure the names of the levels are: 'high', 'low' or 'none'.
    flags: what a reader must know, in words; on failure the reason.
    spacing: mm per pixel in array order; None where unknown.
    model, checkpoint: network and step of a predicted mask, else None.
    midline: points (row, column[, depth]) in pixels, top to bottom.
    midline_sd: standard deviation of the column of each of them, in pixels.
    laminae: of a volume, without false ones and with missing ones, top to bottom.
    naive_deg: largest angle between the lines of the levels, without a fitted midline.
    cross_check_deg: largest angle by a second fit; X-ray masks only.
    rule: 'extremes' or 'challenge'; landmarks only.
    pt_mt_tl_deg: proximal thoracic, main and thoracolumbar angle; landmarks only.
    calibration, calibrated_deg: the user's calibration, and the largest angle by it.
  """
  method: str
  status: str
  curves: tuple[Curve, ...] = ()
  major_deg: float | None = None
  band: str | None = None
  ci95: tuple[float, float] | None = None
  expected_error_deg: float | None = None
  lower_bound_deg: float | None = None
  levels_found: int = 0
  level_confidence: str = 'none'
  flags: tuple[str, ...] = ()
  spacing: tuple[float, ...] | None = None
  model: str | None = None
  checkpoint: int | None = None
  version: str = __version__
  levels: tuple[Level, ...] = ()
  midline: tuple[tuple[float, ...], ...] = ()
  midline_sd: tuple[float, ...] = ()
  laminae: tuple[Lamina, ...] = ()
  naive_deg: float | None = None
  cross_check_deg: float | None = None
  rule: str | None = None
  pt_mt_tl_deg: tuple[float, ...] | None = None
  calibration: Calibration | None = None
  calibrated_deg: float | None = None

  @property
  def major_curve(self) -> Curve | None:
    """The curve whose angle is `major_deg`; None without a curve."""
    return next((curve for curve in self.curves if curve.angle_deg == self.major_deg), None)

  def to_json(self) -> dict[str, Any]:
    """The result as JSON values; what only some methods give is left out if None or empty."""
    names = [field.name for field in dataclasses.fields(self)]
    entries = _to_json(self, names[names.index('version') + 1:])
    entries['curves'] = [_to_json(curve, _VOLUME_KEYS) for curve in self.curves]
    if self.levels:
      keys = _LEVEL_KEYS.get(self.method, vars(self.levels[0]))
      entries['levels'] = [{key: _to_list(getattr(level, key)) for key in keys}
                           for level in self.levels]
    if self.laminae:
      entries['laminae'] = [vars(lamina).copy() for lamina in self.laminae]
    if self.calibration:
      entries['calibration'] = vars(self.calibration).copy()
    return {'schema': SCHEMA} | entries

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> 'AngleResult':
    """The result that `to_json` wrote; ValueError for other or incomplete entries."""
    if not isinstance(entries, Mapping) or entries.get('schema') != SCHEMA:
      raise ValueError(f'expected an angle result with "schema": "{SCHEMA}".')
    try:
      values = {key: _to_tuple(value) for key, value in entries.items() if key != 'schema'}
      values['curves'] = tuple(Curve(**curve) for curve in values['curves'])
      values['levels'] = tuple(Level(**level) for level in values.get('levels', ()))
      values['laminae'] = tuple(Lamina(**lamina) for lamina in values.get('laminae', ()))
      if values.get('calibration'):
        values['calibration'] = Calibration(**values['calibration'])
      return cls(**values)
    except (KeyError, TypeError) as error:
      raise ValueError(f'the angle result is not complete: {error}.') from None


def _to_json(record: Any, optional: Container[str] = ()) -> dict[str, Any]:
  """The fields of a dataclass with lists for tuples; optional ones only if not None or empty."""
  return {key: _to_list(value) for key, value in vars(record).items()
          if key not in optional or value not in (None, ())}


def _to_list(value: Any) -> Any:
  return [_to_list(item) for item in value] if isinstance(value, tuple) else value


def _to_tuple(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _to_tuple(item) for key, item in value.items()}
  return tuple(_to_tuple(item) for item in value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class AngleTable:
  """A user's table of angles with a row for each case."""
  path: pathlib.Path
  key: str  # name of the column with the names of the cases
  columns: tuple[str, ...]  # names of the columns with angles
  angles: Mapping[str, tuple[float | None, ...]]  # of each case in degrees; None for empty cells
  failed: tuple[str, ...] = ()  # cases with the status fail; they are not in `angles`
  methods: frozenset[str] = frozenset()  # entries of the column 'method'; empty without one

  @property
  def cases(self) -> list[str]:
    """All cases, failed ones last."""
    return [*self.angles, *self.failed]
