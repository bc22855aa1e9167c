"""Masks of the spine on X-rays -> centerline Cobb angle.

The angle of a centerline is not that of the end plates; docs/angles.md has a comparison.
`benchmarks/measure_laminae.py` measures the errors on phantoms.
"""
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.measurement import curves, fit, flags, posterior
from spinejax.measurement.posterior import Grid, fit_sections
from spinejax.measurement.results import AngleResult, Curve, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'centerline Cobb'
_SMOOTHING = 1.5e-7  # for a smooth centerline
_MAX_FACTOR = 40.0  # largest factor to _SMOOTHING for a rough centerline
_NOISE = 3.8e-4  # of the height: rms residual up to which _SMOOTHING serves
_SMALLEST = 0.05  # of the largest component; smaller components are dropped
_POINTS = 257  # sections along the spine
_PASSES = 3  # of sections perpendicular to the centerline
_FULL, _CUT = 0.93, 0.8  # widths of whole sections at the ends and elsewhere, of the usual width
_CROSS_CHECK_DEG = 3.0  # degrees; difference to the polynomial that is flagged
_SECTION_SD = 0.02  # of a midpoint, in usual widths
_GRID = Grid(curvature=(0.03, 0.06, 0.12, 0.2), noise=((0.15, 0.25, 0.5, 1.0, 2.0, 4.0), (1.0,)))
_SPREAD = curves.Spread(factor=1.2, floor_deg=0.5)
_PER_LEVEL = 4  # of the 69 tilts
_SHORTEST = 0.1  # of the spine; shorter curves are flagged


class Rows(NamedTuple):
  """The spine of a mask, row by row."""
  mask: np.ndarray  # bool [H,W] without small components
  filled: np.ndarray  # [n] rows that hold the spine
  y: np.ndarray  # [n] mm
  x: np.ndarray  # [n] midpoints of these rows, mm
  width: np.ndarray  # [n] mm

  @property
  def usual_width(self) -> float:
    """Median width in mm."""
    return float(np.median(self.width))


def measure_xray(mask: np.ndarray, spacing: Spacing, *, options: Options = Options()
                 ) -> AngleResult:
  """Centerline Cobb angle of a mask: midpoints of its sections, posterior, extremes rule.

  The result has midline and cross_check_deg. Apices and regions are estimated from the height, so
  `level_confidence` is 'low' and the ends have rows only.

  Args:
    mask: [H,W], the spine where not 0. ValueError for another shape.
    spacing: mm per pixel (y, x). One number stands for square pixels.
  """
  mask = np.asarray(mask) != 0
  if mask.ndim != 2:
    raise ValueError(f'an X-ray mask must be [H,W], got {list(mask.shape)}.')
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    rows = find_rows(mask, steps)
    y, x = find_centerline(rows, steps)
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  unit = rows.usual_width
  found = fit_sections(y, x, unit, _SECTION_SD, _GRID)
  midline = found.mean
  at = np.linspace(y[0], y[-1], 69)
  sure = curves.find_sure_curves(
      midline.tilt(at), at / steps[0], [None] * len(at), found.draws.tilt(at), spread=_SPREAD,
      reach=0, per_level=_PER_LEVEL,
      apex_names=curves.levels_by_height(at, rows.y[0], rows.y[-1]), min_deg=options.min_deg)
  v = 2 * (y - y[0]) / np.ptp(y) - 1
  derivative = np.polynomial.Chebyshev.fit(v, x, 7, domain=[-1, 1]).deriv()
  cross_check = curves.largest_swing(
      np.degrees(np.arctan(derivative(v) * 2 / np.ptp(y))), options.min_deg)
  return flags.make_result(
      METHOD, steps, sure.curves, flags=_flag(rows, sure.curves, cross_check), notes=sure.notes,
      inner_first=True, options=options, straight=sure.straight,
      level_confidence='low', cross_check_deg=round(cross_check, 2),
      midline=fit.to_pixels(np.stack([at, midline.position(at)], -1), steps),
      midline_sd=posterior.position_sd(found.draws, at, steps[1]))


def find_rows(mask: np.ndarray, steps: np.ndarray) -> Rows:
  """The spine of a mask; raises NoAngle if the mask is not long and narrow."""
  flags.require(mask.any(), 'the mask is empty')
  flags.require(not mask.all(), 'the mask is all foreground')
  labels, _ = ndimage.label(mask, np.ones((3, 3)))
  areas = np.bincount(labels.reshape(-1))
  areas[0] = 0
  mask = (areas > _SMALLEST * areas.max())[labels]
  counts = mask.sum(1)
  filled = np.flatnonzero(counts)
  columns = mask @ np.arange(mask.shape[1]) / np.maximum(counts, 1)
  rows = Rows(mask, filled, filled * steps[0], columns[filled] * steps[1],
              counts[filled] * steps[1])
  flags.require(len(filled) >= 24 and np.ptp(rows.y) >= 4 * rows.usual_width,
                'the mask is not a spine: it is less than four times as long as wide')
  return rows


def find_centerline(rows: Rows, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Midpoints y, x [n] in mm of perpendicular sections.

  The first centerline joins the midpoints of the rows without both ends of the spine, because an
  oblique end would bend it. Every pass replaces the points by the midpoints of the sections
  perpendicular to the centerline before. The smoothing of a centerline is
  _SMOOTHING clip((rms residual / height / _NOISE)^3, 1, _MAX_FACTOR). Raises NoAngle if fewer than
  half of the sections are whole.
  """
  top, bottom, tenth = rows.y[0], rows.y[-1], len(rows.y) // 10
  y = np.linspace(top + rows.width[:tenth].mean(), bottom - rows.width[-tenth:].mean(), _POINTS)
  x, smoothing = np.interp(y, rows.y, rows.x), _SMOOTHING
  for _ in range(_PASSES):
    midline = fit.fit_smooth(y, x, smoothing=smoothing)
    noise = np.sqrt(np.mean((x - midline.position(y))**2)) / np.ptp(y)
    smoothing = _SMOOTHING * float(np.clip((noise / _NOISE)**3, 1, _MAX_FACTOR))
    y, x = _section_centers(rows.mask, steps, np.linspace(top, bottom, _POINTS), midline,
                            float(np.quantile(rows.width, 0.9)))
    flags.require(len(y) >= _POINTS // 2 and np.ptp(y) >= 4 * rows.usual_width,
                  'the mask is not a spine: fewer than half of its sections are whole')
  return y, x


def _section_centers(mask: np.ndarray, steps: np.ndarray, grid: np.ndarray, midline: fit.Midline,
                     width: float) -> tuple[np.ndarray, np.ndarray]:
  """Midpoints (y, x) in mm of the sections perpendicular to the centerline at y = grid, by y.

  The usual width is a quadratic fit to the widths of all sections. Narrower sections, which an end
  or a gap of the mask cuts, and sections beyond the outermost whole ones are left out.
  """
  slope, middle = midline.slope(grid), midline.position(grid)
  length = np.hypot(1, slope)
  off = np.linspace(-width, width, 121)
  y = grid[:, None] - off * (slope / length)[:, None]
  x = middle[:, None] + off * (1 / length)[:, None]
  inside = ndimage.map_coordinates(mask.astype(np.float32), [y / steps[0], x / steps[1]], order=1)
  total = inside.sum(1)
  shift = inside @ off / total.clip(1e-6)
  usual = np.polynomial.Polynomial.fit(grid[20:-20], total[20:-20], 2)(grid)
  full = np.flatnonzero(total > _FULL * usual)
  at = np.arange(len(grid))
  kept = (total > _CUT * usual) & (at >= full.min(initial=len(grid))) & (at <= full.max(initial=0))
  y, x = (grid - shift * slope / length)[kept], (middle + shift / length)[kept]
  order = np.argsort(y, kind='stable')
  return y[order], x[order]


def _flag(rows: Rows, found: tuple[Curve, ...], cross_check: float) -> list[str]:
  """Flags of gaps, parts side by side, wide rows, another angle by the polynomial, short curves."""
  weak, filled, width = [], rows.filled, rows.width
  holes = np.flatnonzero(np.diff(filled) > 1)
  if len(holes):
    spans = ', '.join(f'{filled[i] + 1} to {filled[i + 1] - 1}' for i in holes[:5])
    weak.append(f'the mask has gaps, bridged in rows {spans}')
  runs = (np.diff(rows.mask[filled].astype(np.int8), axis=1, prepend=0) > 0).sum(1)
  if (runs > 1).mean() > 0.05:
    weak.append(f'{int((runs > 1).sum())} rows of the mask hold several parts side by side')
  if width.max() > 3 * rows.usual_width:
    weak.append(f'the mask is {width.max():.0f} mm wide in row {filled[width.argmax()]}, usually '
                f'{rows.usual_width:.0f} mm')
  if abs(cross_check - max((curve.angle_deg for curve in found), default=0.0)) > _CROSS_CHECK_DEG:
    weak.append(f'a polynomial of degree 7 through the same centerline gives {cross_check:.1f} '
                'degrees')
  shortest = _SHORTEST * np.ptp(filled)
  short = [curve for curve in found if curve.lower_row - curve.upper_row < shortest]
  if short:
    weak.append(f'the curve at row {short[0].apex_row:.0f} is shorter than a tenth of the spine: '
                'the mask may end obliquely there and the next angle be wrong')
  return weak
