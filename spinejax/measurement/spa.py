"""VPI images -> SPA, the spinous process angle of the dark column down the middle of the back.

`benchmarks/measure_vpi.py` measures the errors on phantoms.
"""
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.measurement import curves, find, fit, flags, one_class, posterior
from spinejax.measurement.posterior import Grid, fit_sections
from spinejax.measurement.results import AngleResult, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'spa'
_UNIT = 0.1  # of the strip's height, the unit of `posterior`
_SD = 0.04  # of the column in a stretch, in units
_GRID = Grid(noise=((0.25, 0.5, 1.0, 2.0, 4.0), (1.0,)))
_SPREAD = curves.Spread(factor=1.2, floor_deg=0.5)
_REACH_ENDS, _PER_LEVEL = 2, 4  # of 69 points, near an end and between two levels
_ROWS = 257  # of the resampled strip
_REACH, _STEP_COST = 2, 0.05  # of the path: columns per row, and cost of a column
_OUTSIDE = 8.0  # cost of a pixel outside of the strip
_CONTRAST = 0.35  # gray level of the column in its row, 0 to 1, above which it is flagged


class Strip(NamedTuple):
  """The swept strip of an image, resampled to square pixels."""
  y: np.ndarray  # [R] positions of the rows, mm
  x: np.ndarray  # [C] positions of the columns, mm
  inside: np.ndarray  # bool [R,C], the swept pixels
  gray: np.ndarray  # [R,C] smoothed gray levels
  half: float  # half of the strip's width, pixels


def measure_spa(image: np.ndarray, spacing: Spacing, mask: np.ndarray | None = None, *,
                options: Options = Options()) -> AngleResult:
  """SPA of an image: least-cost path along the dark column, smoothing spline, extremes rule.

  The angle lies between the tangents at the inflection points. It is never converted to a Cobb
  angle. Apices and regions are estimated from the height, so `level_confidence` is 'low' and the
  ends have rows only.

  Args:
    image: gray levels [H,W] or [H,W,1], 0 outside of the swept strip. ValueError for other shapes.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    mask: [H,W], bones where not 0, which show the middle of the back; or None.
  """
  image = np.asarray(image)
  image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
  if image.ndim != 2:
    raise ValueError(f'a VPI image must be [H,W], got {list(image.shape)}.')
  if mask is not None and np.shape(mask) != image.shape:
    raise ValueError(f'image and mask must be of one size, not {list(image.shape)} and '
                     f'{list(np.shape(mask))}.')
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  bones = None if mask is None else np.nan_to_num(np.asarray(mask, np.float64)) > 0
  try:
    strip = sample_strip(np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0).clip(0), steps)
    light = normalize_rows(strip)
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  column, shade = find_column(strip, light, find_middle(strip, bones, steps))
  unit = _UNIT * float(np.ptp(strip.y))
  found = fit_sections(strip.y, column, unit, _SD, _GRID)
  midline = found.mean
  at = np.linspace(strip.y[0], strip.y[-1], 69)
  sure = curves.find_sure_curves(
      midline.tilt(at), at / steps[0], [None] * len(at), found.draws.tilt(at), spread=_SPREAD,
      reach=_REACH_ENDS, per_level=_PER_LEVEL,
      apex_names=curves.levels_by_height(at, at[0], at[-1]), min_deg=options.min_deg)
  weak = []
  if bones is not None and not bones.any():
    weak.append('the mask is empty: the column was sought near the middle of the strip')
  if shade > _CONTRAST:
    weak.append('the column is hardly darker than its neighborhood')
  return flags.make_result(
      METHOD, steps, sure.curves, flags=weak, notes=sure.notes, options=options,
      level_confidence='low',
      straight=sure.straight,
      midline=fit.to_pixels(np.stack([at, midline.position(at)], -1), steps),
      midline_sd=posterior.position_sd(found.draws, at, steps[1]))


def sample_strip(image: np.ndarray, steps: np.ndarray) -> Strip:
  """The swept strip of an image [H,W]; raises NoAngle if there is none."""
  swept = ndimage.binary_closing(np.pad(image > 0, 2), np.ones((5, 5)))[2:-2, 2:-2]
  width = swept.sum(1)
  rows = np.flatnonzero(width > 0.5 * width.max(initial=0))
  flags.require(len(rows) >= 64 and width.max() >= 16, 'the image holds no swept strip')
  step = (rows[-1] - rows[0]) * steps[0] / (_ROWS - 1)
  y = rows[0] * steps[0] + step * np.arange(_ROWS)
  left, right = np.flatnonzero(swept.any(0))[[0, -1]] * steps[1]
  x = np.arange(left, right + step / 2, step)
  grid = np.meshgrid(y / steps[0], x / steps[1], indexing='ij')
  inside = ndimage.map_coordinates(swept.astype(float), grid, order=1) > 0.5
  gray = ndimage.map_coordinates(image, grid, order=1)
  half = 0.5 * float(np.median(inside.sum(1)))
  sigma = half / 12, half / 20
  weight = ndimage.gaussian_filter(inside.astype(float), sigma)
  gray = ndimage.gaussian_filter(gray * inside, sigma) / weight.clip(1e-6)
  return Strip(y, x, inside, gray, half)


def normalize_rows(strip: Strip) -> np.ndarray:
  """Gray levels [R,C] from 0 for the darkest 2 % of each row to 1 for the brightest 20 %."""
  shades = np.sort(np.where(strip.inside, strip.gray, np.inf), axis=1)
  count = strip.inside.sum(1)[:, None]
  dark, bright = (
      np.where(count, np.take_along_axis(shades, (share * (count - 1)).astype(int).clip(0), 1), 0.0)
      for share in (0.02, 0.8))
  flags.require(np.median(bright - dark) > 0.1 * np.median(bright),
                'the image shows no dark column')
  return ((strip.gray - dark) / (bright - dark).clip(1e-6)).clip(0, 1)


def find_middle(strip: Strip, bones: np.ndarray | None, steps: np.ndarray) -> np.ndarray:
  """x [R] in mm near which the column is sought: the middle of the bones, else of the strip."""
  if bones is not None and bones.any():
    return one_class.rough_midline(bones, steps, max(1, len(bones) // 16))(strip.y)
  middle = np.where(strip.inside, strip.x, 0).sum(1) / strip.inside.sum(1).clip(1)
  return ndimage.uniform_filter1d(middle, _ROWS // 8, mode='nearest')


def find_column(strip: Strip, light: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, float]:
  """x [R] in mm of the dark column, and the median gray level along it.

  The cost of a pixel is its gray level plus the squared distance from the middle in quarters of
  the strip's width. The least-cost path is refined to the centroid of the darkness around it.
  """
  off = (strip.x - middle[:, None]) / (strip.half * (strip.y[1] - strip.y[0]))
  cost = np.where(strip.inside, light + 4 * off**2, _OUTSIDE)
  path = find.cheapest_path(cost, _REACH, _STEP_COST)
  near = np.abs(np.arange(len(strip.x)) - path[:, None]) < strip.half / 5
  weight = np.where(near & strip.inside, 1 - light, 1e-9)
  shade = float(np.median(np.take_along_axis(light, path[:, None], 1)))
  return (weight @ strip.x) / weight.sum(1), shade
