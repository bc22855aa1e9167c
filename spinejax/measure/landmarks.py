"""68 corners of vertebral bodies on an X-ray -> Cobb angles, by our rule or the challenge's."""
from collections.abc import Mapping, Sequence

import numpy as np

from spinejax.measure import angles

RULES = ('extremes', 'challenge')


def measure_landmarks(points: np.ndarray, spacing: angles.Spacing, *,
                      rule: str = 'extremes', height: int | None = None,
                      min_deg: float = angles.MIN_DEG,
                      bands: Sequence[tuple[str, float]] = angles.BANDS,
                      calibration: Mapping | None = None) -> angles.Result:
  """Cobb angles from the tilts of the bodies' mid lines, by the extremes rule or the challenge's.

  The mid line of a body joins the middles of its left and right sides.

  Args:
    points: [68, 2] (row, column) in pixels in the order of AASCE: T1..L5, each top left, top
      right, bottom left, bottom right.
    spacing: mm per pixel (y, x); one number for square pixels; None or NaN is refused by a
      failed result.
    rule: 'extremes', or 'challenge' for pt_mt_tl_deg as `challenge_angles` has it, to compare
      with published numbers; curves and major_deg are by the extremes rule with both.
    height: rows of the image, for the rule of the challenge.
    min_deg: smallest swing of a curve, degrees.
    bands, calibration: of `angles.make_result`.

  Returns:
    `angles.make_result` with rule, levels [{name, row, column, tilt_deg}] and pt_mt_tl_deg: the
    major curve (MT) between the swing above it (PT) and the one below (TL), 0 where there is none.
    There is no interval: `ci95` is None. Points that are not finite, mirrored, upside down or out
    of order give a failed result.

  Raises:
    ValueError: points that are not [68, 2], a spacing of another length, an unknown rule, or the
      challenge's without a height.
  """
  if rule not in RULES:
    raise ValueError(f'the rule must be one of {", ".join(RULES)}, not {rule!r}.')
  if rule == 'challenge' and not (height and height > 0):
    raise ValueError("the challenge's rule depends on the height of the image; give `height` in "
                     'pixels.')
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
  flags = ['no interval: landmarks are taken as they are']
  result = angles.make_result(
      name, spacing=steps, curves=curves, levels_found=17, level_confidence='high', bands=bands,
      calibration=calibration, flags=flags, levels=levels, rule=rule,
      pt_mt_tl_deg=size[most - 1:most + 2] if curves else [0.0, 0.0, 0.0])
  if rule == 'challenge':
    triple = [round(angle, 2) for angle in challenge_angles(points * steps, height * steps[0])]
    result['pt_mt_tl_deg'] = triple
    result['flags'].append(
        "PT, MT and TL are by the challenge's rule, which depends on where the image is cropped; "
        f'MT {triple[1]:.1f} degrees')
  return result


def challenge_angles(points: np.ndarray, height: float) -> tuple[float, float, float]:
  """PT, MT and TL as the widely copied evaluation code of AASCE 2019 has them.

  With v_i the vectors along the mid lines and a_ij = acos(clip(cos(v_i, v_j), 0, 1)):

    MT = a_ij, the largest of all pairs, of level i the upper and j the lower one.
    A C-shaped spine: PT = a_0i, TL = a_16,j.
    An S-shaped one whose top edges i and j have middles of rows that sum to less than `height`:
      PT = max a_ik over k <= i, TL = max a_jk over k >= j;
    otherwise PT = max a_ik over k <= i, found at level k, and TL = max a_km over m <= k.

  A spine is C-shaped where all middles of top and bottom edges but the last two lie on one side of
  the chord from the first to the last, measured as
  (x - x_last) / (x_first - x_last) - (y - y_last) / (y_first - y_last), of which all products of
  two are positive: the sums of the products and of their magnitudes differ by less than 1e-4.

  Shifts and crops of the image may change PT and TL; angles have no direction, and MT may lie
  anywhere. A chord that is exactly upright counts as S-shaped, as in that code.

  Args:
    points: [68, 2] (row, column) in the order of AASCE; square pixels.
    height: rows of the image, in the unit of the points.

  Returns:
    Degrees.
  """
  edges = np.asarray(points, np.float64).reshape(34, 2, 2).mean(1)
  corners = np.asarray(points, np.float64).reshape(17, 2, 2, 2).mean(1)
  across = corners[:, 1] - corners[:, 0]
  across /= np.linalg.norm(across, axis=1, keepdims=True)
  between = np.degrees(np.arccos((across @ across.T).clip(0, 1)))
  upper, lower = np.unravel_index(between.argmax(), between.shape)
  most = between[upper, lower]
  if not _is_s_shaped(edges):
    return float(between[0, upper]), float(most), float(between[16, lower])
  above = between[upper, :upper + 1]
  if edges[2 * upper, 0] + edges[2 * lower, 0] < height:
    return float(above.max()), float(most), float(between[lower, lower:].max())
  first = int(above.argmax())
  return float(above.max()), float(most), float(between[first, :first + 1].max())


def _is_s_shaped(edges):
  """Whether the middles of the edges [34,2] (row, column) cross the chord from first to last."""
  chord = edges[0] - edges[-1]
  if not chord.all():  # that code divides by 0 and goes on with NaN
    return True
  share = np.subtract(*((edges[:-2] - edges[-1]) / chord).T)
  products = np.outer(share, share)
  return bool(abs(products.sum() - np.abs(products).sum()) >= 1e-4)
