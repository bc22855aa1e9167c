"""Former names, until all callers use `curves`, `flags`, `results` and `spacing`."""
import dataclasses
import math

from spinejax.measure import curves as _curves
from spinejax.measure import flags as _flags
from spinejax.measure.curves import LEVEL_HEIGHTS, LEVELS, extremes  # noqa: F401
from spinejax.measure.flags import band_of  # noqa: F401
from spinejax.measure.results import BAND_LIMITS, BAND_NAMES, MIN_DEG, Calibration, Curve, Level
from spinejax.measure.spacing import NO_SPACING, Numbers, Spacing, check_spacing  # noqa: F401

BANDS = tuple(zip(BAND_NAMES, (*BAND_LIMITS, math.inf)))


def find_curves(tilts, names, rows, samples=None, min_deg=MIN_DEG):
  profile = _curves.Profile(tilts, rows, names, samples)
  return [curve.to_json() for curve in _curves.find_curves(profile, min_deg)]


def make_result(method, *, spacing, curves=(), failure=None, calibration=None, levels=(),
                midline=(), **entries):
  if failure is not None:
    return _flags.no_angle(method, spacing, failure).to_json()
  missing = dict.fromkeys(('upper_row', 'lower_row', 'apex_row'), 0.0)
  result = _flags.make_result(
      method, spacing, [Curve(**{**missing, **curve}) for curve in curves], **entries)
  if calibration:
    calibration = Calibration(**calibration)
    result = dataclasses.replace(
        result, calibration=calibration, calibrated_deg=calibration.apply(result.major_deg))
  found = result.to_json()
  return found | ({'levels': list(levels)} if levels else {}) | (
      {'midline': list(midline)} if midline else {})
