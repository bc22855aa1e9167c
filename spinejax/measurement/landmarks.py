"""Corners of vertebral bodies on an X-ray -> Cobb angles, by our rule or the challenge's."""
import dataclasses

import numpy as np

from spinejax.measurement import curves, fit, flags
from spinejax.measurement.results import AngleResult, Level, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'landmark Cobb'
RULES = ('extremes', 'challenge')
CORNER_SD = 0.03  # error of a corner in each direction, in widths of a body


def measure_landmarks(points: np.ndarray, spacing: Spacing, *, rule: str = 'extremes',
                      height: int | None = None, options: Options = Options()) -> AngleResult:
  """Cobb angles from the tilts of the mid-lines of the bodies.

  A mid-line joins the middles of the left and right side. The expected error follows from corners
  that are off by CORNER_SD of the width of their body in each direction, about 1.2 mm of 40 mm. The
  result has levels, rule and pt_mt_tl_deg: the largest angle (MT) between that of the curve above
  it (PT) and that of the curve below it (TL), 0 without one. It is a failed one if the points are
  not finite or not in order.

  Args:
    points: [4n, 2] (row, column) in pixels of n >= 6 bodies from top to bottom, each top left, top
      right, bottom left, bottom right, as in AASCE. 17 bodies are T1 to L5; of others the levels
      are numbered. ValueError for another shape.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    rule: 'extremes', or 'challenge' to compare pt_mt_tl_deg with published numbers (see
      `challenge_angles`); it needs 17 bodies. The curves and major_deg are those of the extremes
      rule in both cases.
    height: rows of the image; needed by the rule of the challenge.
  """
  if rule not in RULES:
    raise ValueError(f'the rule must be one of {", ".join(RULES)}, not {rule!r}.')
  if rule == 'challenge' and not (height and height > 0):
    raise ValueError("the challenge's rule depends on the height of the image; give `height` in "
                     'pixels.')
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or len(points) % 4 or len(points) < 24:
    raise ValueError('landmarks must be rows of (row, column), four for each of 6 or more '
                     f'vertebrae, got {list(points.shape)}.')
  count = len(points) // 4
  if rule == 'challenge' and count != 17:
    raise ValueError(f"the challenge's rule needs 17 vertebrae, not {count}.")
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  corners = (points * steps).reshape(count, 2, 2, 2)
  sides = corners.mean(1)  # left and right end of each mid-line
  across = sides[:, 1] - sides[:, 0]
  try:
    flags.require(np.isfinite(points).all(), 'some landmarks are not finite')
    flags.require((across[:, 1] > 0).all() and (np.diff(corners.mean((1, 2))[:, 0]) > 0).all(),
                  'the landmarks are not in order: top to bottom, and left before right')
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  tilts = -np.degrees(np.arctan2(across[:, 0], across[:, 1]))
  centers = points.reshape(count, 4, 2).mean(1)
  names = curves.LEVELS if count == 17 else [f'level {i + 1}' for i in range(count)]
  # The end of a mid-line is the mean of two corners, and its tilt has the errors of both ends.
  error = float(np.sqrt(2) * np.degrees(np.arctan(CORNER_SD)))
  found = curves.find_curves(tilts, centers[:, 0], names, error_deg=error,
                             min_deg=options.min_deg)
  sizes = [0.0, *(curve.angle_deg for curve in found), 0.0]
  major = int(np.argmax(sizes[1:-1])) if found else 0
  triple = (*sizes, 0.0)[major:major + 3]
  left, right = (fit.to_pixels(sides[:, side], steps) for side in (0, 1))
  levels = tuple(
      Level(name, row, column, round(float(tilt), 2), left=left[i], right=right[i],
            confidence=1.0 if count == 17 else None,
            corners=fit.to_pixels(points[4 * i:4 * i + 4], 1.0))
      for i, (name, (row, column), tilt) in enumerate(
          zip(names, fit.to_pixels(centers, 1.0), tilts)))
  result = flags.make_result(
      METHOD, steps, found, options=options, levels_found=count,
      straight=((0.0, round(float(np.ptp(tilts)) + 1.96 * error, 2)), round(error, 2)),
      level_confidence='high' if count == 17 else 'none', levels=levels, rule=rule,
      pt_mt_tl_deg=triple, midline=fit.to_pixels(centers, 1.0))
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
