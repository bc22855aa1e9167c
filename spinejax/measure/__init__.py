"""From masks to angles, on numpy and scipy only.

`measure_mask` takes a mask of any of our networks, or of any other program; beneath it stands one
function for each kind of image.
"""
from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from spinejax.measure import angles
from spinejax.measure.angles import Result
from spinejax.measure.laminae import measure_lamina_volume, measure_laminae
from spinejax.measure.landmarks import measure_landmarks
from spinejax.measure.spa import measure_spa
from spinejax.measure.vpi import measure_vpi
from spinejax.measure.xray import measure_xray

__all__ = ['METHODS', 'make_options', 'measure_lamina_volume', 'measure_laminae',
           'measure_landmarks', 'measure_mask', 'measure_spa', 'measure_vpi', 'measure_xray']

METHODS = ('uca', 'center_of_lamina', 'centerline_cobb')


def measure_mask(mask: np.ndarray, spacing: angles.Spacing, *, method: str,
                 classes: Sequence[str], probs: np.ndarray | None = None,
                 points: np.ndarray | None = None, min_deg: float = angles.MIN_DEG,
                 bands: Sequence[float] = (10.0, 25.0, 40.0), calibration: Sequence[Any] = ()
                 ) -> Result:
  """The angles of a mask, as `angles.make_result`.

  Args:
    mask: whole numbers [H,W], or [D,H,W] of laminae, in the axes of `method`.
    spacing: mm per pixel along each axis; NaN, (), or None where unknown: a failed result.
    method: 'uca' (masks of VPI: `measure_vpi`), 'center_of_lamina' (of volumes:
      `measure_lamina_volume`) or 'centerline_cobb' (of X-rays: `measure_xray`).
    classes: names by index, background first. UCA is measured on the class whose name holds
      'process' and the one whose name holds 'lump'; with one class of bone it tells them apart,
      with other classes it fails.
    probs: [..., K] or None: of laminae, the probabilities that weigh their centroids.
    points: [n,3] pixels or None: of laminae, their centroids in place of those of the mask.
    min_deg: smallest swing of a curve, degrees.
    bands: limits in degrees between none, mild, moderate and severe.
    calibration: (slope, intercept, source) or (): a second angle beside the first, which stays.

  Raises:
    ValueError: an unknown method, settings of another kind, a mask or a spacing with another
      number of axes.
  """
  if method not in METHODS:
    raise ValueError(f'the method must be one of {", ".join(METHODS)}, not {method!r}.')
  spacing = None if spacing is None or not np.size(spacing) else spacing
  options = make_options(min_deg, bands, calibration)
  if method == 'uca':
    process, lump = (1, 1) if len(classes) == 2 else (
        next((i for i, name in enumerate(classes) if i and word in name), None)
        for word in ('process', 'lump'))
    if process is None or lump is None:
      return angles.make_result('uca', spacing=None, failure=(
          'UCA needs a class named after thoracic processes and one after lumps; the classes are '
          + ', '.join(classes)))
    return measure_vpi(mask, spacing, process=process, lump=lump, **options)
  if method == 'center_of_lamina' and points is not None:
    return measure_laminae(points, spacing, **options)
  if method == 'center_of_lamina':
    return measure_lamina_volume(
        mask if probs is None else np.where(mask == 1, probs[..., 1], 0), spacing, **options)
  return measure_xray(np.asarray(mask) > 0, spacing, **options)


def make_options(min_deg: float = angles.MIN_DEG, bands: Sequence[float] = (10.0, 25.0, 40.0),
                 calibration: Sequence[Any] = ()) -> dict[str, Any]:
  """Settings of `measure_mask` as the functions beneath it take them.

  Raises ValueError naming the setting that is wrong.
  """
  if not 0 < min_deg < math.inf:
    raise ValueError(f'min_deg must be degrees above 0, not {min_deg}.')
  if len(bands) != len(angles.BANDS) - 1 or not all(
      low < high for low, high in zip([0.0, *bands], [*bands, math.inf])):
    raise ValueError(f'bands must be {len(angles.BANDS) - 1} rising limits in degrees, not '
                     f'{tuple(bands)}.')
  named = tuple(zip([name for name, _ in angles.BANDS], [*bands, math.inf]))
  return {'min_deg': min_deg, 'bands': named, 'calibration': _calibration(calibration)}


def _calibration(calibration: Sequence[Any]) -> Mapping[str, Any] | None:
  if not len(calibration):
    return None
  try:
    slope, intercept, source = calibration
    entries: Result = {'slope': float(slope), 'intercept': float(intercept), 'source': str(source)}
  except (TypeError, ValueError):
    entries = {}
  if not entries or not math.isfinite(entries['slope'] + entries['intercept']):
    raise ValueError('calibration must be (slope, intercept, source), such as '
                     f"(1.1, 2.0, 'our hospital, 2024'), not {tuple(calibration)}.")
  return entries

