"""VPI images -> SPA, the spinous process angle of the dark column down the middle of the back.

On 40 phantoms of difficulty 1 against the Cobb angle of the vertebrae, whose centers the column
joins there (python -m tests.measure.benchmark 40 11, and 40 31): mean absolute deviation 1.4 and
0.9 degrees, r 0.995 and 0.998 with the exact mask; 2.0 and 3.1 degrees, r 0.986 and 0.962 without.
"""
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from spinejax.measure import angles, candidates, midline

ROWS = 257
FLOOR_DEG = 0.5


def measure_spa(image: np.ndarray, spacing: angles.Spacing,
                mask: np.ndarray | None = None, *, min_deg: float = angles.MIN_DEG,
                lam: float = 3e-4, replicates: int = midline.REPLICATES, seed: int = 0,
                bands: Sequence[tuple[str, float]] = angles.BANDS,
                calibration: Mapping | None = None) -> angles.Result:
  """SPA of an image: a minimal-cost path along the dark column, a smoothing spline, extremes.

  The strip is sampled in ROWS rows of square pixels. The cost of a pixel is its smoothed gray level
  among those of its row, from 0 to 1, and the square of its distance, in quarters of the strip's
  width, from the middle: of the bones where a mask is given, of the strip otherwise. The path is
  refined to the centroid of the darkness about it. The angle lies between the tangents at the
  inflection points, where the tilt is extreme; it is never turned into a Cobb angle.

  Args:
    image: gray levels [H,W] or [H,W,1], 0 outside the swept strip.
    spacing: mm per pixel (y, x); one number for square pixels; None or NaN is refused by a
      failed result.
    mask: [H,W] bones where not 0, or None.
    min_deg: smallest swing of a curve, degrees.
    lam, replicates, seed: of `midline.fit_smooth`.
    bands, calibration: of `angles.make_result`.

  Returns:
    `angles.make_result` with midline [[row, column]] in pixels. Regions and apices are told from
    the share of the height, so `level_confidence` is 'low' and upper and lower have rows only.
    An image without a strip or without a dark column gives a failed result with its reason.

  Raises:
    ValueError: an image that is not [H,W] or [H,W,1], a mask of another size, a spacing of
      another length.
  """
  image = np.asarray(image)
  image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
  if image.ndim != 2:
    raise ValueError(f'a VPI image must be [H,W], got {list(image.shape)}.')
  if mask is not None and np.shape(mask) != image.shape:
    raise ValueError(f'image and mask must be of one size, not {list(image.shape)} and '
                     f'{list(np.shape(mask))}.')
  steps = angles.check_spacing(spacing, 2)
  if steps is None:
    return angles.make_result('spa', spacing=None, failure=angles.NO_SPACING)
  fail = lambda why: angles.make_result('spa', spacing=steps, failure=why)
  image = np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0).clip(0)
  strip = ndimage.binary_closing(np.pad(image > 0, 2), np.ones((5, 5)))[2:-2, 2:-2]
  width = strip.sum(1)
  swept = np.flatnonzero(width > 0.5 * width.max(initial=0))
  if len(swept) < 64 or width.max() < 16:
    return fail('the image holds no swept strip')
  step = (swept[-1] - swept[0]) * steps[0] / (ROWS - 1)
  y = swept[0] * steps[0] + step * np.arange(ROWS)
  left, right = np.flatnonzero(strip.any(0))[[0, -1]] * steps[1]
  x = np.arange(left, right + step / 2, step)
  sample = lambda array: ndimage.map_coordinates(
      array, np.meshgrid(y / steps[0], x / steps[1], indexing='ij'), order=1)
  strip, gray = sample(strip.astype(float)) > 0.5, sample(image)
  half = 0.5 * float(np.median(strip.sum(1)))
  blur = lambda array: ndimage.gaussian_filter(array, (half / 12, half / 20))
  gray = blur(gray * strip) / blur(strip.astype(float)).clip(1e-6)
  shades, count = np.sort(np.where(strip, gray, np.inf), axis=1), strip.sum(1)[:, None]
  dark, bright = (np.take_along_axis(shades, (share * (count - 1)).astype(int).clip(0), 1)
                  for share in (0.02, 0.8))
  dark, bright = (np.where(count, shade, 0.0) for shade in (dark, bright))
  if np.median(bright - dark) <= 0.1 * np.median(bright):
    return fail('the image shows no dark column')

  flags = []
  middle = np.where(strip, x, 0).sum(1) / strip.sum(1).clip(1)
  middle = ndimage.uniform_filter1d(middle, ROWS // 8, mode='nearest')
  bones = None if mask is None else np.nan_to_num(np.asarray(mask, np.float64)) > 0
  if bones is not None and bones.any():
    middle = candidates.rough_midline(bones, steps, max(1, len(bones) // 16))(y)
  elif bones is not None:
    flags.append('the mask is empty: the column was sought near the middle of the strip')
  light = ((gray - dark) / (bright - dark).clip(1e-6)).clip(0, 1)
  off = (x - middle[:, None]) / (half * step)
  path = shortest_path(np.where(strip, light + 4 * off**2, 8.0))
  near = np.abs(np.arange(len(x)) - path[:, None]) < half / 5
  weight = np.where(near & strip, 1 - light, 1e-9)
  column = (weight @ x) / weight.sum(1)
  fit, draws = midline.fit_smooth(y, column, lam=lam, replicates=replicates, seed=seed)

  at = np.linspace(y[0], y[-1], 69)
  tilts, names = fit.tilt(at), angles.levels_by_height((at - y[0]) / np.ptp(y))
  rows = at / steps[0]
  curves = angles.find_curves(tilts, [None] * len(at), rows, None if draws is None else
                              draws.tilt(at), min_deg, region_names=names, floor_deg=FLOOR_DEG)
  for curve in curves:
    curve['apex'] = names[int(np.abs(rows - curve['apex_row']).argmin())]
  contrast = float(np.median(np.take_along_axis(light, path[:, None], 1)))
  if contrast > 0.35:
    flags.append('the column is hardly darker than its neighborhood')
  line = np.stack([rows, fit.position(at) / steps[1]], -1)
  return angles.make_result(
      'spa', spacing=steps, curves=curves, flags=flags, partial=bool(flags), levels_found=0,
      level_confidence='low', bands=bands, calibration=calibration,
      midline=np.round(line, 2).tolist())


def shortest_path(cost: np.ndarray, reach: int = 2, turn: float = 0.05) -> np.ndarray:
  """Columns [H] of the path from top to bottom of least sum of cost [H,W] + turn |step|.

  It moves at most `reach` columns a row.
  """
  height, width = cost.shape
  total, steps = cost[0], np.zeros((height, width), int)
  shifts = np.arange(-reach, reach + 1)
  before = np.arange(width) + shifts[:, None]
  outside = (before < 0) | (before >= width)
  before = before.clip(0, width - 1)
  for row in range(1, height):
    choices = total[before] + turn * np.abs(shifts)[:, None] + np.where(outside, np.inf, 0)
    best = choices.argmin(0)
    steps[row] = shifts[best]
    total = cost[row] + choices[best, np.arange(width)]
  path = [int(total.argmin())]
  for row in range(height - 1, 0, -1):
    path.append(path[-1] + int(steps[row, path[-1]]))
  return np.array(path[::-1])
