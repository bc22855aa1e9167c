"""68 corners of vertebral bodies on an X-ray -> Cobb angles, by our rule or the challenge's."""
import dataclasses

import numpy as np

from spinejax.measurement import curves, fit, flags
from spinejax.measurement.results import AngleResult, Level, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'landmark Cobb'
RULES = ('extremes', 'challenge')


def measure_landmarks(points: np.ndarray, spacing: Spacing, *, rule: str = 'extremes',
                      height: int | None = None, options: Options = Options()) -> AngleResult:
  """Cobb angles from the tilts of the mid-lines of the bodies, without intervals.

  A mid-line joins the middles of the left and right side. The result has levels, rule and
  pt_mt_tl_deg: the largest angle (MT) between that of the curve above it (PT) and that of the curve
  below it (TL), 0 without one. It is a failed one if the points are not finite or not in order.

  Args:
    points: [68, 2] (row, column) in pixels in the order of AASCE: T1..L5, each top left, top right,
      bottom left, bottom right. ValueError for another shape.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    rule: 'extremes', or 'challenge' to compare pt_mt_tl_deg with published numbers (see
      `challenge_angles`). The curves and major_deg are those of the extremes rule in both cases.
    height: rows of the image; needed by the rule of the challenge.
  """
  if rule not in RULES:
    raise ValueError(f'the rule must be one of {", ".join(RULES)}, not {rule!r}.')
  if rule == 'challenge' and not (height and height > 0):
    raise ValueError("the challenge's rule depends on the height of the image; give `height` in "
                     'pixels.')
  points = np.asarray(points, np.float64)
  if points.shape != (68, 2):
    raise ValueError(f'landmarks must be 68 rows of (row, column), got {list(points.shape)}.')
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    flags.require(np.isfinite(points).all(), 'some landmarks are not finite')
    corners = (points * steps).reshape(17, 2, 2, 2)
    across = corners[:, :, 1].mean(1) - corners[:, :, 0].mean(1)
    flags.require((across[:, 1] > 0).all() and (np.diff(corners.mean((1, 2))[:, 0]) > 0).all(),
                  'the landmarks are not in order: top to bottom, and left before right')
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  tilts = -np.degrees(np.arctan2(across[:, 0], across[:, 1]))
  centers = points.reshape(17, 4, 2).mean(1)
  found = curves.find_curves(tilts, centers[:, 0], curves.LEVELS, min_deg=options.min_deg)
  sizes = [0.0, *(curve.angle_deg for curve in found), 0.0]
  major = int(np.argmax(sizes[1:-1])) if found else 0
  triple = (*sizes, 0.0)[major:major + 3]
  notes = ['no interval: landmarks are taken as they are']
  levels = tuple(Level(name, row, column, round(float(tilt), 2)) for name, (row, column), tilt in
                 zip(curves.LEVELS, fit.to_pixels(centers, 1.0), tilts))
  result = flags.make_result(
      METHOD, steps, found, notes=notes, options=options, levels_found=17,
      level_confidence='high', levels=levels, rule=rule, pt_mt_tl_deg=triple)
  if rule == 'extremes':
    return result
  triple = tuple(round(angle, 2) for angle in challenge_angles(points * steps, height * steps[0]))
  note = ("PT, MT and TL are by the challenge's rule, which depends on where the image is cropped; "
          f'MT {triple[1]:.1f} degrees')
  return dataclasses.replace(result, pt_mt_tl_deg=triple, flags=(*result.flags, note))


def challenge_angles(points: np.ndarray, height: float) -> tuple[float, float, float]:
  """PT, MT and TL in degrees as in the widely copied evaluation code of AASCE 2019.

  With v_i the vectors along the mid-lines of points [68, 2] (row, column) with square pixels,
  height the rows of the image in their unit, and a_ij = acos(clip(cos(v_i, v_j), 0, 1)):

    MT = a_ij, the largest angle of all pairs; i is the upper level and j the lower one.
    C-shaped spine: PT = a_0i, TL = a_16,j.
    S-shaped spine, and the rows of the middles of the top edges of i and j sum to less than
      `height`: PT = max a_ik over k <= i, TL = max a_jk over k >= j.
    Other S-shaped spines: PT = max a_ik over k <= i, found at level k, TL = max a_km over m <= k.

  A spine is C-shaped if the middles of all edges except the last two lie on one side of the chord
  from the first to the last middle. A chord that is exactly upright counts as S-shaped. Shifts and
  crops of the image may change PT and TL.
  """
  edges = np.asarray(points, np.float64).reshape(34, 2, 2).mean(1)
  corners = np.asarray(points, np.float64).reshape(17, 2, 2, 2).mean(1)
  across = corners[:, 1] - corners[:, 0]
  across /= np.linalg.norm(across, axis=1, keepdims=True)
  between = np.degrees(np.arccos((across @ across.T).clip(0, 1)))
  upper, lower = np.unravel_index(between.argmax(), between.shape)
  most = between[upper, lower]
  chord = edges[0] - edges[-1]
  s_shaped = True  # the code of the challenge divides by 0 and continues with NaN
  if chord.all():
    # All products of two signed distances from the chord are positive without a crossing.
    share = np.subtract(*((edges[:-2] - edges[-1]) / chord).T)
    products = np.outer(share, share)
    s_shaped = abs(products.sum() - np.abs(products).sum()) >= 1e-4
  if not s_shaped:
    return float(between[0, upper]), float(most), float(between[16, lower])
  above = between[upper, :upper + 1]
  if edges[2 * upper, 0] + edges[2 * lower, 0] < height:
    return float(above.max()), float(most), float(between[lower, lower:].max())
  first = int(above.argmax())
  return float(above.max()), float(most), float(between[first, :first + 1].max())
