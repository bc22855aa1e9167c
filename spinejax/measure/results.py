"""Options and results of angle measurements.

An `AngleResult` is what every measurement returns. `AngleResult.to_json` gives the dict that is
stored as NAME_angle.json.
"""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spinejax import __version__

SCHEMA = 'spinejax.measure/1'
BAND_NAMES = ('none', 'mild', 'moderate', 'severe')
BAND_LIMITS = (10.0, 25.0, 40.0)  # degrees between the bands
MIN_DEG = 5.0  # degrees; a smaller change of tilt is not a curve

# Keys of a level in JSON, in their order, by method.
_LEVEL_KEYS = {
    'uca': ('name', 'kind', 'row', 'column', 'tilt_deg', 'line_deg', 'left', 'right'),
    'center of lamina': ('name', 'row', 'column', 'depth', 'tilt_deg', 'line_deg', 'rotation_deg',
                         'right', 'left'),
    'landmark Cobb': ('name', 'row', 'column', 'tilt_deg')}


@dataclasses.dataclass(frozen=True)
class Calibration:
  """A user's own conversion of angles: calibrated = slope * measured + intercept.

  Attributes:
    slope, intercept: numbers; the intercept in degrees.
    source: where the conversion comes from.
  """
  slope: float
  intercept: float
  source: str

  def apply(self, angle: float) -> float:
    """The calibrated angle in degrees, rounded to two decimals."""
    return round(self.slope * angle + self.intercept, 2)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of every measurement.

  Attributes:
    min_deg: degrees; a smaller change of tilt is not a curve.
    bands: three rising limits in degrees between none, mild, moderate and severe.
    calibration: (slope, intercept, source), or () for none. The calibrated angle is reported
      beside the measured angle and does not replace it.

  Raises:
    ValueError: an option is out of its range.
  """
  min_deg: float = MIN_DEG
  bands: Sequence[float] = BAND_LIMITS
  calibration: Sequence[Any] = ()

  def __post_init__(self):
    if not 0 < self.min_deg < math.inf:
      raise ValueError(f'min_deg must be degrees above 0, not {self.min_deg}.')
    limits = [0.0, *self.bands, math.inf]
    if len(self.bands) != len(BAND_NAMES) - 1 or not all(
        low < high for low, high in zip(limits, limits[1:])):
      raise ValueError(f'bands must be {len(BAND_NAMES) - 1} rising limits in degrees, not '
                       f'{tuple(self.bands)}.')
    self.get_calibration()

  def get_calibration(self) -> Calibration | None:
    """The calibration, or None if there is none."""
    if not len(self.calibration):
      return None
    try:
      slope, intercept, source = self.calibration
      calibration = Calibration(float(slope), float(intercept), str(source))
      is_finite = math.isfinite(calibration.slope + calibration.intercept)
    except (TypeError, ValueError):
      is_finite = False
    if not is_finite:
      raise ValueError('calibration must be (slope, intercept, source), such as '
                       f"(1.1, 2.0, 'our hospital, 2024'), not {tuple(self.calibration)}.")
    return calibration


@dataclasses.dataclass(frozen=True)
class Curve:
  """A curve between two levels of opposite tilt.

  Attributes:
    angle_deg: degrees between the tilts of the two ends.
    ci95: (low, high) degrees of the 95 % interval; None without replicates.
    upper, lower, apex: names of the levels, T1..L5; None where unknown.
    upper_row, lower_row, apex_row: positions along the first axis in pixels.
    side: 'left' or 'right', to which the spine is convex; of the image, or of the patient in
      volumes.
    region: 'thoracic', 'thoracolumbar', 'lumbar', or None where unknown.
    truncated: an end is the first or last level found, so that the angle is a lower bound.
    rotation_deg: volumes only: axial rotation of the apex in degrees.
    pmc_deg, pmc_angle_deg: volumes only: plane of maximum curvature, in degrees from the coronal
      plane, and the angle in that plane.
  """
  angle_deg: float
  ci95: tuple[float, float] | None
  upper: str | None
  lower: str | None
  apex: str | None
  upper_row: float
  lower_row: float
  apex_row: float
  side: str
  region: str | None
  truncated: bool
  rotation_deg: float | None = None
  pmc_deg: float | None = None
  pmc_angle_deg: float | None = None

  def to_json(self) -> dict[str, Any]:
    """The fields as JSON values; those of volumes are left out where they are None."""
    entries = {key: _to_list(value) for key, value in vars(self).items()}
    return {key: value for key, value in entries.items()
            if value is not None or key not in ('rotation_deg', 'pmc_deg', 'pmc_angle_deg')}


@dataclasses.dataclass(frozen=True)
class Level:
  """A level of the spine. Positions are in pixels of the mask.

  Attributes:
    name: T1..L5; None where unknown.
    row, column: of the center.
    tilt_deg: degrees of the fitted midline at the level.
    depth: third coordinate of the center; volumes only.
    kind: 'process' or 'lump'; VPI images only.
    line_deg: degrees of the line through the two sides; None where only one side was found.
    rotation_deg: axial rotation in degrees; volumes only, None where only one side was found.
    left, right: positions of the two sides; None where a side was not found.
  """
  name: str | None
  row: float
  column: float
  tilt_deg: float | None
  depth: float | None = None
  kind: str | None = None
  line_deg: float | None = None
  rotation_deg: float | None = None
  left: tuple[float, ...] | None = None
  right: tuple[float, ...] | None = None

  def to_json(self, method: str) -> dict[str, Any]:
    """The fields that `method` gives, as JSON values."""
    keys = _LEVEL_KEYS.get(method) or [field.name for field in dataclasses.fields(self)]
    return {key: _to_list(getattr(self, key)) for key in keys}


@dataclasses.dataclass(frozen=True)
class AngleResult:
  """The angles of one case. An angle always comes with its status, interval and flags.

  Attributes:
    method: 'uca', 'spa', 'center of lamina', 'centerline Cobb' or 'landmark Cobb'.
    status: 'ok', 'partial' (a flag weakens the angle) or 'fail' (no angle).
    curves: top to bottom.
    major_deg: the largest angle in degrees, 0 without a curve, None on failure.
    band: severity of the largest angle; two names joined by ' or ' where its interval crosses a
      limit; None on failure.
    levels_found: number of levels.
    level_confidence: 'high', 'low' or 'none': how sure the names of the levels are.
    flags: what a reader must know, in words; on failure the reason comes first.
    spacing: mm per pixel in array order, None where unknown.
    model, checkpoint: network and step that made the mask; None for other masks.
    version: of this package.
    levels: top to bottom; empty where the method has none.
    midline: points (row, column) or (row, column, depth) in pixels, top to bottom.
    naive_deg: the largest angle between the lines themselves, without a fitted midline.
    cross_check_deg: the largest angle by a second fit; X-ray masks only.
    rule: 'extremes' or 'challenge'; landmarks only.
    pt_mt_tl_deg: proximal thoracic, main and thoracolumbar angle in degrees; landmarks only.
    calibration, calibrated_deg: the user's calibration and the angle by it.
  """
  method: str
  status: str
  curves: tuple[Curve, ...] = ()
  major_deg: float | None = None
  band: str | None = None
  levels_found: int = 0
  level_confidence: str = 'none'
  flags: tuple[str, ...] = ()
  spacing: tuple[float, ...] | None = None
  model: str | None = None
  checkpoint: int | None = None
  version: str = __version__
  levels: tuple[Level, ...] = ()
  midline: tuple[tuple[float, ...], ...] = ()
  naive_deg: float | None = None
  cross_check_deg: float | None = None
  rule: str | None = None
  pt_mt_tl_deg: tuple[float, ...] | None = None
  calibration: Calibration | None = None
  calibrated_deg: float | None = None

  @property
  def major_curve(self) -> Curve | None:
    """The curve with the largest angle, the upper one of two equal ones; None without a curve."""
    return max(self.curves, key=lambda curve: curve.angle_deg, default=None)

  def to_json(self) -> dict[str, Any]:
    """The result as JSON values.

    The entries up to `version` are always there. The others, which only some methods give, are
    left out where they are None or empty.
    """
    entries = {key: _to_list(value) for key, value in vars(self).items()}
    entries['curves'] = [curve.to_json() for curve in self.curves]
    entries['levels'] = [level.to_json(self.method) for level in self.levels]
    if self.calibration is not None:
      entries['calibration'] = dataclasses.asdict(self.calibration)
    names = [field.name for field in dataclasses.fields(self)]
    optional = names[names.index('version') + 1:]
    return {'schema': SCHEMA} | {key: value for key, value in entries.items()
                                 if key not in optional or value not in (None, [])}

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> 'AngleResult':
    """The result that `to_json` wrote.

    Raises:
      ValueError: entries of another schema, or incomplete ones.
    """
    if not isinstance(entries, Mapping) or entries.get('schema') != SCHEMA:
      raise ValueError(f'expected an angle result with "schema": "{SCHEMA}".')
    values = {key: value for key, value in entries.items() if key != 'schema'}
    try:
      values['curves'] = [Curve(**_to_tuples(curve)) for curve in values['curves']]
      values['levels'] = [Level(**_to_tuples(level)) for level in values.get('levels', ())]
      if values.get('calibration') is not None:
        values['calibration'] = Calibration(**values['calibration'])
      return cls(**_to_tuples(values))
    except (AttributeError, KeyError, TypeError) as error:
      raise ValueError(f'the angle result is not complete: {error}.') from None


def _to_list(value: Any) -> Any:
  """The value with its tuples, nested ones too, as lists."""
  return [_to_list(item) for item in value] if isinstance(value, tuple) else value


def _to_tuples(entries: Mapping[str, Any]) -> dict[str, Any]:
  """The entries with their lists, nested ones too, as tuples."""
  return {key: _to_tuple(value) for key, value in entries.items()}


def _to_tuple(value: Any) -> Any:
  return tuple(_to_tuple(item) for item in value) if isinstance(value, list) else value
