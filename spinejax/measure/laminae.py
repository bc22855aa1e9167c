"""Laminae of ultrasound volumes -> center-of-lamina angle, axial rotation, plane of maximum bend.

Axes are those of `data.orientation`, (I, L, A): down the spine, to the patient's left, from the
skin into the depth. Sides are the patient's. A tilt is atan(d left / d down), and a pair of
laminae is rotated by -atan(d deep / d across) from its right to its left one: positive where the
left side lies nearer the skin.

Mean absolute deviation from the largest Cobb angle of the vertebrae of 40 phantoms: 0.49 degrees
from exact centers (2.73 by the most tilted pair less the least), 0.84 (6.52) at 0.7 voxels of
noise, 1.58 (6.37) with 3 laminae missed and 3 false besides. With 8 and 8 all 40 are flagged; 18
have 15 or more levels and deviate by 2.94. Rotation of a pair: 0.9 degrees exact, 2.4 at 0.7
voxels. `python -m tests.measure.benchmark_laminae`; with other seeds (`... 40 14`) 0.67, 1.17,
1.65, and 5.72 of 19.
"""
from collections.abc import Mapping, Sequence

import numpy as np

from spinejax.measure import angles, candidates, midline, pairing

METHOD = 'center of lamina'
LINE_DEG, FLOOR_DEG = 4.0, 0.5
NUM, LAM = 9, 2.0
JUMP = 1.5  # of `pairing.best_chain`
RAIL, DEEP = 3.5, 8.0  # mm between a lone lamina and its rail, and the depth of the midline
END_RAIL, END_LONE = 6.0, 2.0  # mm beyond the ends, with a partner and without
PARTNER = 5.0  # mm between a lamina and where the one beside it should be
REACH = 1.4  # level spacings beyond the ends
PASSES = 6
GROWTH = 0.72, 1.28  # level spacing at T1 and L5 over its mean
GAP = 1.7  # level spacings


def measure_lamina_volume(probability: np.ndarray, spacing: angles.Spacing, *,
                          threshold: float = 0.5, **options) -> angles.Result:
  """Center-of-lamina angle of a segmented volume by the centroids of its components.

  Components over faces, edges and corners of at least 3 voxels count; each voxel weighs as much as
  its probability, so that centroids fall between voxels.

  Args:
    probability: [D,H,W] of a lamina in [0, 1], or a mask, laminae where not 0.
    spacing: mm per voxel (down, left, deep); one number for cubes; None or NaN is refused by a
      failed result.
    threshold: of the probability; a mask needs none.
    **options: of `measure_laminae`.

  Returns:
    `measure_laminae`; empty, full and hostile volumes give a failed result with its reason.

  Raises:
    ValueError: a volume that is not [D,H,W], a spacing of another length.
  """
  probability = np.asarray(probability)
  if probability.ndim != 3:
    raise ValueError(f'a volume of laminae must be [D,H,W], got {list(probability.shape)}.')
  steps = angles.check_spacing(spacing, 3)
  if steps is None:
    return measure_laminae(np.zeros((0, 3)), None, **options)
  if np.issubdtype(probability.dtype, np.floating):
    mask, weights = probability > threshold, probability
  else:
    mask, weights = probability != 0, None
  if mask.size and mask.all():
    return angles.make_result(METHOD, spacing=steps, failure='the volume is all foreground')
  blobs = candidates.find_blobs(mask, steps, smallest=0, weights=weights)
  return measure_laminae(blobs.centers / steps, steps, **options)


def measure_laminae(points: np.ndarray, spacing: angles.Spacing, *,
                    min_deg: float = angles.MIN_DEG, lam: float = LAM,
                    replicates: int = midline.REPLICATES, seed: int = 0,
                    bands: Sequence[tuple[str, float]] = angles.BANDS,
                    calibration: Mapping | None = None) -> angles.Result:
  """Center-of-lamina angle of unordered laminae: best chain of pairs, joint spline, extremes.

  A lone lamina that lies on its rail, half a separation beside the midline, adds a position.

  The plane of maximum curvature of a curve is the upright plane in which the midline x(y) to the
  left and z(y) into the depth shows its largest angle between the end levels a and b,

    pmc = argmax_p |atan(x'_a cos p + z'_a sin p) - atan(x'_b cos p + z'_b sin p)|,

  p in (-90, 90] degrees from the coronal plane, positive where its left half turns into the depth.

  Args:
    points: [n,3] (down, left, deep) in voxels, false ones among them.
    spacing: mm per voxel (down, left, deep), 1 for points in mm; None or NaN is refused by a
      failed result.
    min_deg: smallest swing of a curve, degrees.
    lam, replicates, seed: of `midline.fit_joint`.
    bands, calibration: of `angles.make_result`.

  Returns:
    `angles.make_result`; its curves have rotation_deg (of the apex, mean of three levels),
    pmc_deg and pmc_angle_deg (the angle in that plane) as well. levels [{name, row, column, depth,
    tilt_deg, line_deg, rotation_deg, left, right}] (positions in voxels; line_deg, rotation_deg
    and one side None for a lone lamina), midline [[row, column, depth]] and naive_deg, the most
    tilted pair less the least. Names need 17 levels, gaps filled. Hostile points give a failed
    result with its reason. A mirrored volume cannot be told.

  Raises:
    ValueError: points that are not [n,3], a spacing of another length.
  """
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 3:
    raise ValueError(f'laminae must be rows of (down, left, deep), got {list(points.shape)}.')
  steps = angles.check_spacing(spacing, 3)
  if steps is None:
    return angles.make_result(METHOD, spacing=None, failure=angles.NO_SPACING)
  fail = lambda why: angles.make_result(METHOD, spacing=steps, failure=why)
  if not np.isfinite(points).all():
    return fail('some laminae have no finite position')
  if len(points) > candidates.MAX_BLOBS:
    return fail(f'{len(points)} laminae where 34 are expected')
  points = points * steps
  chain = np.reshape(pairing.best_chain(points, jump=JUMP), (-1, 2)).astype(int)
  if len(chain) < angles.MIN_LEVELS:
    return fail(f'{len(points)} laminae make {len(chain)} levels of pairs; {angles.MIN_LEVELS} '
                'are needed')
  data, pairs = _pair_data(points[chain]), chain
  scale = float(np.median(data[:, 4]))
  fit = lambda data, column=1, **more: midline.fit_joint(
      data[:, 0], data[:, column], data[:, 3] if column == 1 else np.full(len(data), np.nan),
      np.full(len(data), LINE_DEG), scale,
      position_sd=np.where(np.isfinite(data[:, 3]), 0.04, 0.08), num=NUM, lam=lam, **more)
  for _ in range(PASSES):
    singles = np.setdiff1d(np.arange(len(points)), pairs)
    found, at = _rescue(points, singles, data, fit(data)[0])
    if not len(found):
      break
    data, pairs = np.concatenate([data, at]), np.concatenate([pairs, found])
    order = np.argsort(data[:, 0], kind='stable')
    data, pairs = data[order], pairs[order]
  y, whole = data[:, 0], (pairs >= 0).all(1)
  if _upside_down(y):
    return fail('the levels lie farther apart at the top than at the bottom: the volume seems to '
                'be upside down')

  (spine, draws), deep = fit(data, replicates=replicates, seed=seed), fit(data, 2)[0]
  rows, tilts = y / steps[0], spine.tilt(y)
  line_deg, rotation = np.degrees(np.arctan(data[:, 3])), data[:, 5]
  ratio = np.diff(y) / _level_spacing(y)((y[1:] + y[:-1]) / 2)
  names, confidence = _name_levels(ratio, whole)
  curves = angles.find_curves(tilts, names, rows, None if draws is None else draws.tilt(y), min_deg,
                              region_names=angles.levels_by_height((y - y[0]) / np.ptp(y)),
                              floor_deg=FLOOR_DEG)
  bends = np.stack([spine.slope(y), deep.slope(y)])
  for curve in curves:
    a, b, apex = (int(np.abs(rows - curve[f'{end}_row']).argmin()) for end in
                  ('upper', 'lower', 'apex'))
    nearest = np.argsort(np.where(whole, np.abs(y - y[apex]), np.inf), kind='stable')[:3]
    plane, angle = plane_of_maximum_curvature(bends[:, a], bends[:, b])
    curve['side'] = {'right': 'left', 'left': 'right'}[curve['side']]
    curve |= {'rotation_deg': round(float(rotation[nearest].mean()), 2),
              'pmc_deg': plane, 'pmc_angle_deg': angle}

  naive, major = float(np.ptp(line_deg[whole])), max((c['angle_deg'] for c in curves), default=0.0)
  flags = [f'a level seems to be missing between rows {rows[i]:.0f} and {rows[i + 1]:.0f}'
           for i in np.flatnonzero(ratio > GAP)]
  if len(y) < 15:
    flags.append(f'{len(y)} levels of 17: curves may be missed, and angles too small')
  if len(y) > 17:
    flags.append(f'{len(y)} levels where 17 are expected')
  if len(singles) > 3:
    flags.append(f'{len(singles)} laminae belong to no level')
  residual = 1.4826 * float(np.median(np.abs(line_deg - tilts)[whole]))
  if residual > 8 or abs(naive - major) > 10:
    flags.append(f'the lines scatter about the fitted spine: {residual:.1f} degrees; largest angle '
                 f'between the lines themselves {naive:.1f}')
  partial = bool(flags)
  flags += [f'only one lamina of the level at row {row:.0f} was found' for row in rows[~whole]]

  number = lambda value: round(float(value), 2) if np.isfinite(value) else None
  pixel = lambda point: [round(float(v), 2) for v in point / steps]
  levels = [
      {'name': name} | dict(zip(('row', 'column', 'depth'), pixel(at[:3])))
      | {'tilt_deg': number(tilt), 'line_deg': number(line), 'rotation_deg': number(at[5])}
      | {side: pixel(points[i]) if i >= 0 else None for side, i in zip(('right', 'left'), pair)}
      for name, at, tilt, line, pair in zip(names, data, tilts, line_deg, pairs)]
  down = np.linspace(y[0], y[-1], 65)
  path = np.stack([down, spine.position(down), deep.position(down)], -1)
  return angles.make_result(
      METHOD, spacing=steps, curves=curves, flags=flags, partial=partial, levels_found=len(y),
      level_confidence=confidence, bands=bands, calibration=calibration, levels=levels,
      midline=[pixel(point) for point in path], naive_deg=round(naive, 2))


def plane_of_maximum_curvature(upper: np.ndarray, lower: np.ndarray) -> tuple[float, float]:
  """The plane (degrees from the coronal one) in which two directions differ most, and that angle.

  Args:
    upper, lower: [2] slopes d left / d down and d deep / d down at the ends of a curve.

  Returns:
    pmc in (-90, 90] and the angle in that plane, both in degrees; the plane to a quarter degree.
  """
  planes = np.arange(-89.75, 90.1, 0.25)
  turn = np.stack([np.cos(np.radians(planes)), np.sin(np.radians(planes))])
  seen = np.abs(np.degrees(np.arctan(upper @ turn) - np.arctan(lower @ turn)))
  return float(planes[seen.argmax()]), round(float(seen.max()), 2)


def _pair_data(pairs):
  """[n,6] of pairs [n,2,3]: middle (down, left, deep), slope, distance in mm, rotation, degrees."""
  across = pairs[:, 1] - pairs[:, 0]
  apart = np.hypot(across[:, 0], across[:, 1])
  return np.column_stack([pairs.mean(1), -across[:, 0] / across[:, 1], apart,
                          -np.degrees(np.arctan2(across[:, 2], apart))])


def _rescue(points, singles, data, fit):
  """Laminae without a level that lie on their rail, nearest first, with their partners.

  At least 0.55 level spacings from every other level, at most REACH beyond the ends.

  Returns:
    pairs [k,2] of indices (right, left), -1 for none, and their data [k,6], NaN without a partner.
  """
  spacing, options = _level_spacing(data[:, 0]), []
  along = lambda down, column: float(np.interp(down, data[:, 0], data[:, column]))
  has = np.isfinite(data[:, 4])
  for i in singles:
    wide = np.interp(points[i, 0], data[has, 0], data[has, 4])
    for side in (-1, 1):
      down = points[i, :1]
      for _ in range(2):
        slope = fit.slope(down)[0]
        across = side * wide / 2 * np.array([-slope, 1]) / np.hypot(1, slope)
        down = points[i, :1] - across[0]
      left = points[i, 1] - across[1]
      off, down = abs(left - float(fit.position(down)[0])), float(down[0])
      depth = along(down, 2)
      outside = not data[0, 0] < down < data[-1, 0]
      if off < (END_RAIL if outside else RAIL) and abs(points[i, 2] - depth) < DEEP:
        options.append((off, int(i), side, down, left, depth, across))
  pairs: list[list[int]] = []
  found: list[Sequence[float]] = []
  for off, i, side, down, left, depth, across in sorted(options, key=lambda option: option[:3]):
    taken = np.append(data[:, 0], [row[0] for row in found])
    beyond = max(data[0, 0] - down, down - data[-1, 0])
    if (i in np.ravel(pairs) or np.abs(taken - down).min() < 0.55 * spacing(down)
        or beyond > REACH * spacing(down)):
      continue
    row = [down, left, depth, np.nan, np.nan, np.nan]
    others = [j for j in singles if j != i and j not in np.ravel(pairs)]
    apart = np.linalg.norm(points[others, :2] - (points[i, :2] - 2 * across), axis=1)
    partner = others[int(apart.argmin())] if len(others) and apart.min() < PARTNER else -1
    if partner < 0 and beyond > 0 and off > END_LONE:
      continue
    pair = [i, partner] if side < 0 else [partner, i]
    if partner >= 0:
      row = _pair_data(points[[pair]])[0]
    pairs.append(pair)
    found.append(row)
  return np.reshape(pairs, (-1, 2)).astype(int), np.reshape(found, (-1, 6))


def _level_spacing(y):
  """down -> distance between two levels expected there, from the levels y found so far."""
  y = np.sort(y)
  growth = lambda at: np.interp(at, y[[0, -1]], GROWTH)
  base = float(np.median(np.diff(y) / growth((y[1:] + y[:-1]) / 2)))
  return lambda at: base * growth(at)


def _name_levels(ratio, whole):
  """T1..L5 where the levels are 17, missing ones counted; 'high' confidence for 17 pairs."""
  places = np.cumsum(np.append(0, np.where(ratio > GAP, np.rint(ratio), 1))).astype(int)
  if places[-1] != 16:
    return [None] * len(places), 'low'
  return [angles.LEVELS[p] for p in places], 'high' if len(places) == 17 and whole.all() else 'low'


def _upside_down(y):
  """Whether even the narrow gaps are clearly wider in the upper half than in the lower one."""
  gaps, half = np.diff(y), (len(y) - 1) // 2
  return np.quantile(gaps[:half], 0.25) > 1.2 * np.quantile(gaps[-half:], 0.25)
