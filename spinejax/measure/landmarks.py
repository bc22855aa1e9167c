"""68 corners of vertebral bodies on an X-ray -> Cobb angles, by our rule or the challenge's."""
from collections.abc import Sequence

import numpy as np

from spinejax.measure import angles


def measure_landmarks(points: np.ndarray, spacing: Sequence[float] | float | None, *,
                      min_deg: float = angles.MIN_DEG,
                      bands: Sequence[tuple[str, float]] = angles.BANDS) -> angles.Result:
  """Cobb angles from the tilts of the bodies' mid lines, by the extremes rule.

  The mid line of a body joins the middles of its left and right sides.

  Args:
    points: [68, 2] (row, column) in pixels in the order of AASCE: T1..L5, each top left, top
      right, bottom left, bottom right.
    spacing: mm per pixel (y, x); one number for square pixels; None or NaN is refused by a
      failed result.
    min_deg: smallest swing of a curve, degrees.
    bands: of `angles.make_result`.

  Returns:
    `angles.make_result` with levels [{name, row, column, tilt_deg}] and pt_mt_tl_deg: the major
    curve (MT) between the swing above it (PT) and the one below (TL), 0 where there is none. There
    is no interval: `ci95` is None. Points that are not finite give a failed result.

  Raises:
    ValueError: points that are not [68, 2], a spacing of another length.
  """
  points = np.asarray(points, np.float64)
  if points.shape != (68, 2):
    raise ValueError(f'landmarks must be 68 rows of (row, column), got {list(points.shape)}.')
  steps = angles.check_spacing(spacing, 2)
  name = 'landmark Cobb'
  if steps is None:
    return angles.make_result(name, spacing=None, failure=angles.NO_SPACING)
  if not np.isfinite(points).all():
    return angles.make_result(name, spacing=steps, failure='some landmarks are not finite')
  corners = (points * steps).reshape(17, 2, 2, 2)
  across = corners[:, :, 1].mean(1) - corners[:, :, 0].mean(1)
  centers = points.reshape(17, 4, 2).mean(1)
  if (across[:, 1] <= 0).any() or (np.diff(centers[:, 0]) <= 0).any():
    return angles.make_result(name, spacing=steps, failure=(
        'the landmarks are not in order: top to bottom, and left before right'))
  tilts = -np.degrees(np.arctan2(across[:, 0], across[:, 1]))
  curves = angles.find_curves(tilts, angles.LEVELS, centers[:, 0], None, min_deg)
  size = [0.0, *(curve['angle_deg'] for curve in curves), 0.0]
  most = int(np.argmax(size[1:-1])) + 1 if curves else 0
  levels = [{'name': level, 'row': round(float(c[0]), 2), 'column': round(float(c[1]), 2),
             'tilt_deg': round(float(tilt), 2)}
            for level, c, tilt in zip(angles.LEVELS, centers, tilts)]
  return angles.make_result(
      name, spacing=steps, curves=curves, levels_found=17, level_confidence='high', bands=bands,
      flags=['no interval: landmarks are taken as they are'], levels=levels,
      pt_mt_tl_deg=size[most - 1:most + 2] if curves else [0.0, 0.0, 0.0])
