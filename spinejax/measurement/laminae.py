"""Laminae of ultrasound volumes -> center-of-lamina angle, axial rotation, plane of curvature.

Axes are (I, L, A): down the spine, to the patient's left, from the skin into the depth. Sides are
those of the patient. A tilt is atan(d left / d down). The rotation of a pair of laminae is
-atan(d deep / d across) from the right lamina to the left one; it is positive where the left side
is nearer to the skin. `benchmarks/measure_laminae.py` measures the errors on phantoms.
"""
import dataclasses

import numpy as np

from spinejax.measurement import curves, find, fit, flags, naming, posterior, proposals
from spinejax.measurement.course import Course, Places, find_course, level_spacing
from spinejax.measurement.posterior import Data, Grid, Posterior, Range, fit_posterior
from spinejax.measurement.results import AngleResult, Curve, Level, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'center of lamina'
UNIT = 2.2  # distances of laminae in the unit of `posterior`, the distance of processes
_PAIR_SD, _LONE_SD, _LINE_DEG = 0.018, 0.03, 5.0  # of places, in units, and of lines, degrees
_GRID = Grid(noise=((0.25, 0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 2.0)))
_SPREAD = curves.Spread(factor=1.2, floor_deg=0.5)


def measure_lamina_volume(probability: np.ndarray, spacing: Spacing, *, threshold: float = 0.5,
                          **options) -> AngleResult:
  """Center-of-lamina angle of a volume [D,H,W], from the centroids of its components.

  The volume holds probabilities in [0, 1] or is a mask, laminae where not 0. Components have at
  least 3 voxels; probabilities weigh their centroids. The spacing is mm per voxel (down, left,
  deep) or one number. The options are those of `measure_laminae`, whose result is returned.
  ValueError unless the volume is [D,H,W] and the spacing fits.
  """
  probability = np.asarray(probability)
  if probability.ndim != 3:
    raise ValueError(f'a volume of laminae must be [D,H,W], got {list(probability.shape)}.')
  steps = check_spacing(spacing, 3)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  is_mask = not np.issubdtype(probability.dtype, np.floating)
  mask = probability != 0 if is_mask else probability > threshold
  if mask.size and mask.all():
    return flags.no_angle(METHOD, steps, 'the volume is all foreground')
  blobs = find.find_blobs(mask, steps, smallest=0, weights=None if is_mask else probability)
  return measure_laminae(blobs.centers / steps, steps, **options)


def measure_laminae(points: np.ndarray, spacing: Spacing, *, options: Options = Options()
                    ) -> AngleResult:
  """Center-of-lamina angle of unordered laminae: best chain, posterior of the midline,
  extremes rule.

  The result has levels, midline, naive_deg, and the laminae of `proposals`: without those that
  belong to no level, and with those that are missing. Every curve has the rotation of its apex, the
  mean of three levels, and its plane of maximum curvature. Levels are named by their number,
  missing ones counted (`naming`). A mirrored volume is not detected. ValueError unless the points
  are [n,3] and the spacing fits.

  Args:
    points: [n,3] (down, left, deep) in voxels; false laminae may be among them.
    spacing: mm per voxel (down, left, deep); 1 for points in mm.
  """
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 3:
    raise ValueError(f'laminae must be rows of (down, left, deep), got {list(points.shape)}.')
  steps = check_spacing(spacing, 3)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    flags.require(np.isfinite(points).all(), 'some laminae have no finite position')
    flags.require(len(points) <= find.MAX_BLOBS, f'{len(points)} laminae where 34 are expected')
    course = find_course(points * steps)
    gaps, half = np.diff(course.places.down), (len(course.pairs) - 1) // 2
    # Spacing grows down the spine. Narrow gaps are compared; missing levels make wide ones.
    flags.require(np.quantile(gaps[:half], 0.25) <= 1.2 * np.quantile(gaps[-half:], 0.25),
                  'the levels lie farther apart at the top than at the bottom: the volume seems to '
                  'be upside down')
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  places = course.places
  found = fit_places(places)
  spine, y, is_pair = found.mean, places.down, places.is_pair
  rows, tilts = y / steps[0], spine.tilt(y)
  line_deg = np.degrees(np.arctan(places.slope))
  spacings = np.diff(y) / level_spacing(y)((y[1:] + y[:-1]) / 2)
  named = naming.name_levels(y)
  sure = curves.find_sure_curves(
      tilts, rows, named.names, found.draws.tilt(y), spread=_SPREAD,
      region_names=curves.levels_by_height(y, y[0], y[-1]), min_deg=options.min_deg)
  kept = tuple(add_depth(curve, course, spine, steps[0]) for curve in sure.curves)
  naive = float(np.ptp(line_deg[is_pair]))
  weak = flags.flag_gaps(rows, spacings)
  if len(y) < 15:
    weak.append(f'{len(y)} levels of 17: curves may be missed, and angles too small')
  if len(y) > 17:
    weak.append(f'{len(y)} levels where 17 are expected')
  unused = len(points) - (course.pairs >= 0).sum()
  if unused > 3:
    weak.append(f'{unused} laminae belong to no level')
  weak += flags.flag_scatter(line_deg[is_pair], tilts[is_pair], naive, kept)
  down = np.linspace(y[0], y[-1], 65)
  path = np.stack([down, spine.position(down), course.deep.position(down)], -1)
  return flags.make_result(
      METHOD, steps, kept, flags=weak, options=options, levels_found=len(y),
      straight=sure.straight, notes=[*sure.notes, *named.notes] + [
          f'only one lamina of the level at row {row:.0f} was found' for row in rows[~is_pair]],
      level_confidence=named.confidence, levels=_describe(course, points, named, tilts, steps),
      midline=fit.to_pixels(path, steps),
      midline_sd=posterior.position_sd(found.draws, down, steps[1]), naive_deg=round(naive, 2),
      laminae=proposals.list_laminae(course, points, spacings, named.names, steps))


def fit_places(places: Places) -> Posterior:
  """Posterior of the midline in mm. The noise of places and of slopes have scales of their own."""
  unit = UNIT * float(np.median(places.apart[places.is_pair]))
  has, left = places.is_pair, float(np.median(places.middle[:, 1]))
  count, y = len(has), places.down / unit
  data = Data.of_levels(
      np.stack([y, (places.middle[:, 1] - left) / unit], -1), np.where(has, _PAIR_SD, _LONE_SD),
      places.slope, np.full(count, _LINE_DEG), has, (np.zeros(count, int), np.ones(count, int)))
  return fit_posterior(data, Range.of(y), _GRID).in_mm(unit, left)


def add_depth(curve: Curve, course: Course, spine: fit.Midline, step: float) -> Curve:
  """The curve with the rotation of its apex, its plane of maximum curvature and patient's side."""
  places, y = course.places, course.places.down
  distance = np.where(places.is_pair, np.abs(y - curve.apex_row * step), np.inf)
  nearest = np.argsort(distance, kind='stable')[:3]
  ends = np.array([curve.upper_row, curve.lower_row]) * step
  slopes = np.stack([spine.slope(ends), course.deep.slope(ends)], -1)
  plane, angle = plane_of_maximum_curvature(*slopes)
  return dataclasses.replace(
      curve, side={'right': 'left', 'left': 'right'}[curve.side], pmc_deg=plane,
      pmc_angle_deg=angle, rotation_deg=round(float(places.rotation[nearest].mean()), 2))


def plane_of_maximum_curvature(upper: np.ndarray, lower: np.ndarray) -> tuple[float, float]:
  """The upright plane in which the directions of two levels a and b differ most,

    argmax_p |atan(x'_a cos p + z'_a sin p) - atan(x'_b cos p + z'_b sin p)|.

  `upper` and `lower` [2] are the slopes x' = d left / d down and z' = d deep / d down of a and b.
  Returns p in (-90, 90] degrees from the coronal plane, to a quarter degree, positive where the
  left half of the plane turns into the depth; and the angle in that plane in degrees.
  """
  planes = np.arange(-89.75, 90.1, 0.25)
  turn = np.stack([np.cos(np.radians(planes)), np.sin(np.radians(planes))])
  seen = np.abs(np.degrees(np.arctan(upper @ turn) - np.arctan(lower @ turn)))
  return float(planes[seen.argmax()]), round(float(seen.max()), 2)


def _describe(course: Course, points: np.ndarray, named: naming.Named, tilts: np.ndarray,
              steps: np.ndarray) -> tuple[Level, ...]:
  """The levels of the result; points [n,3] in voxels."""
  sides = [*fit.to_pixels(points, 1.0), None]  # index -1 is None
  line_deg = np.degrees(np.arctan(course.places.slope))
  line, rotation = ([round(value, 2) if np.isfinite(value) else None for value in array.tolist()]
                    for array in (line_deg, course.places.rotation))
  return tuple(
      Level(named.names[i], row, column, round(float(tilts[i]), 2), depth, line_deg=line[i],
            rotation_deg=rotation[i], right=sides[right], left=sides[left],
            confidence=named.probability[i])
      for i, ((row, column, depth), (right, left)) in enumerate(
          zip(fit.to_pixels(course.places.middle, steps), course.pairs)))
