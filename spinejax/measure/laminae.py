"""Laminae of ultrasound volumes -> center-of-lamina angle, axial rotation, plane of maximum bend.

Axes are those of `data.orientation`, (I, L, A): down the spine, to the patient's left, from the
skin into the depth. Sides are the patient's. A tilt is atan(d left / d down), and a pair of
laminae is rotated by -atan(d deep / d across) from its right to its left one: positive where the
left side lies nearer the skin.

Mean absolute deviation from the largest Cobb angle of the vertebrae of 240 phantoms, not those by
which the constants were chosen (`python -m tests.measure.benchmark_laminae 40 BASE`, BASE 11 and
14 to 18; chosen by 20 to 29):
0.59 degrees from exact centers (2.35 by the most tilted pair less the least), 0.88 (6.63) at 0.7
voxels of noise, 1.17 (6.30) with 3 laminae missed and 3 false besides. With 8 and 8 all are
flagged; 214 have 15 or more levels and deviate by 2.62, and the 133 of them whose interval is at
most 6 degrees wide by 1.56. Of single bases: exact 0.50 to 0.69, noise 0.75 to 1.07, 3 and 3 0.80
to 1.52, 8 and 8 within 6 degrees 0.93 to 2.74. Where 8 of 34 are missed even the true laminae
alone, each at its level, leave 2.0. Rotation of a pair: 1.0 degrees exact, 2.5 at 0.7 voxels.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spinejax.measure import angles, candidates, midline, pairing

METHOD = 'center of lamina'
LINE_DEG, FLOOR_DEG = 5.0, 0.5
PAIR_SD, LONE_SD = 0.04, 0.06  # of positions, in separations
NUM, LAM = 9, 2.0
ROUGHNESS = 0.6  # third differences squared, in separations, that a straight spine may have
JUMP, LONE = 2.0, 2.5  # for `pairing.best_chain`: cost of a jumped level, reward of a lone lamina
LEFT_SD, DEEP_SD, BEND_SD = 2.0, 2.5, 8.0  # mm and degrees of a lone lamina off the course
BENDS = 0, -10, 10, -20, 20  # degrees a spine may turn beyond its last pair
SHARE = 0.6  # of a lone lamina in the separation
PASSES = 3
GROWTH = 0.72, 1.28  # level spacing at T1 and L5 over its mean
LEVEL = 28.0  # mm, mean height of a level
GAP = 1.7  # level spacings
WIDE = 6.0  # degrees of an interval that is flagged


class Course(NamedTuple):
  """What the levels found so far tell of a spine, in mm.

  Attributes:
    pairs: [n,2] indices (right, left) of the laminae of each level, -1 for none.
    data: [n,6] as of `_pair_data`, NaN for what a lone lamina does not tell.
    left, deep: the midline to the left and into the depth.
    apart: down -> distance between the two laminae of a level.
    lam: smoothing of `left`.
  """
  pairs: np.ndarray
  data: np.ndarray
  left: midline.Midline
  deep: midline.Midline
  apart: Callable[[np.ndarray], np.ndarray]
  lam: float


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
                    min_deg: float = angles.MIN_DEG, lam: float | None = None,
                    replicates: int = midline.REPLICATES, seed: int = 0,
                    bands: Sequence[tuple[str, float]] = angles.BANDS,
                    calibration: Mapping | None = None) -> angles.Result:
  """Center-of-lamina angle of unordered laminae: best chain of pairs, joint spline, extremes.

  A lone lamina that lies on its rail, half a separation beside the midline, adds a position: the
  chain is sought again among pairs and lone laminae, along the midline of the chain before, until
  it stays.

  The plane of maximum curvature of a curve is the upright plane in which the midline x(y) to the
  left and z(y) into the depth shows its largest angle between the end levels a and b,

    pmc = argmax_p |atan(x'_a cos p + z'_a sin p) - atan(x'_b cos p + z'_b sin p)|,

  p in (-90, 90] degrees from the coronal plane, positive where its left half turns into the depth.

  Args:
    points: [n,3] (down, left, deep) in voxels, false ones among them.
    spacing: mm per voxel (down, left, deep), 1 for points in mm; None or NaN is refused by a
      failed result.
    min_deg: smallest swing of a curve, degrees.
    lam: of `midline.fit_joint`; None chooses it by the roughness of the spine.
    replicates, seed: of `midline.fit_joint`.
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
  course = _follow(points, chain, lam)
  for _ in range(PASSES):
    pairs = _extend(points, course)
    if np.array_equal(pairs, course.pairs) or (pairs >= 0).all(1).sum() < angles.MIN_LEVELS:
      break
    course = _follow(points, pairs, lam)
  pairs, data = course.pairs, course.data
  y, whole = data[:, 0], (pairs >= 0).all(1)
  singles = np.setdiff1d(np.arange(len(points)), pairs)
  if _upside_down(y):
    return fail('the levels lie farther apart at the top than at the bottom: the volume seems to '
                'be upside down')

  deep = course.deep
  spine, draws = _fit(data, lam=course.lam, replicates=replicates, seed=seed)
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
  width = max((np.ptp(c['ci95']) for c in curves if c['ci95'] and c['angle_deg'] == major),
              default=0.0)
  if width > WIDE:
    flags.append(f'the interval of the largest angle is {width:.0f} degrees wide')
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


def _fit(data, column=1, **more):
  """`midline.fit_joint` to the left (column 1, with slopes) or into the depth (2, without)."""
  has = np.isfinite(data[:, 3])
  slope = data[:, 3] if column == 1 else np.full(len(data), np.nan)
  return midline.fit_joint(
      data[:, 0], data[:, column], slope, np.full(len(data), LINE_DEG),
      float(np.median(data[has, 4])), position_sd=np.where(has, PAIR_SD, LONE_SD), num=NUM, **more)


def _follow(points, pairs, lam):
  """The Course through levels [n,2], their distances apart quadratic in the height.

  A lone lamina lies half that distance beside the midline; where it does not, both give way. The
  smoothing is chosen by the roughness: the third differences of NUM coefficients c in separations
  are N(0, 1 / lam) with lam of the gamma prior of shape 2 and rate ROUGHNESS / 2, and at its most
  probable lam = (NUM - 1) / (|third difference of c|^2 + ROUGHNESS).
  """
  whole = (pairs >= 0).all(1)
  lone, data = pairs[~whole], _pair_data(points[pairs[whole]])
  known, places, side = data, points[lone.max(1)], np.where(lone[:, 0] < 0, 1, -1)
  scale, smooth = np.median(known[:, 4]), LAM if lam is None else lam
  down, seen = known[:, 0], known[:, 4]
  left = _fit(known, lam=smooth, iterations=5)[0]
  for _ in range(4):
    weights = np.append(np.ones(len(known)), np.full(len(down) - len(known), SHARE))
    quadratic = np.polynomial.Polynomial.fit(down, seen, 2, w=weights)
    apart = lambda y, f=quadratic: f(np.clip(y, *f.domain))
    if not len(lone):
      break
    middle, _ = _middles(places, side, left, apart, known)
    data = np.concatenate([known, np.pad(middle, ((0, 0), (0, 3)), constant_values=np.nan)])
    left, y = _fit(data, lam=smooth, iterations=5)[0], middle[:, 0]
    off = 2 * side * (places[:, 1] - left.position(y)) * np.hypot(1, left.slope(y))
    down, seen = np.append(known[:, 0], y), np.append(known[:, 4], off)
  for _ in range(3 if lam is None else 0):
    rough = (np.diff(left.coefficients / scale, 3)**2).sum()
    smooth = (NUM - 1) / (rough + ROUGHNESS)
    left = _fit(data, lam=smooth, iterations=5)[0]
  order = np.argsort(data[:, 0], kind='stable')
  return Course(np.concatenate([pairs[whole], lone])[order], data[order], left,
                _fit(data, 2, lam=LAM, iterations=5)[0], apart, float(smooth))


def _middles(places, side, left, apart, known, bend=0.0):
  """Middles [n,3] of the levels of lone laminae [n,3] on a side [n], -1 or 1, and slopes [n]."""
  down = places[:, 0]
  for _ in range(3):
    slope = left.slope(down) + bend
    half = side * apart(down) / 2
    down = places[:, 0] + half * slope / np.hypot(1, slope)
  turn = np.tan(np.radians(np.interp(down, known[:, 0], known[:, 5])))
  return np.stack([down, places[:, 1] - half / np.hypot(1, slope), places[:, 2] + half * turn],
                  -1), slope


def _extend(points, course):
  """The best chain of pairs and of lone laminae near the course.

  Beyond the last pair, where nothing tells how the spine goes on, a lone lamina is tried with
  several tilts, each where the bend to it would lead.
  """
  y, known = course.data[:, 0], course.data[np.isfinite(course.data[:, 3])]
  one, side, turn = (grid.ravel() for grid in np.meshgrid(
      np.arange(len(points)), (-1, 1), BENDS, indexing='ij'))
  bend = np.tan(np.radians(turn))
  middle, slope = _middles(points[one], side, course.left, course.apart, known, bend)
  down = middle[:, 0]
  beyond = down - down.clip(y[0], y[-1])
  doubt = 1 + np.abs(beyond) / 10
  off = (middle[:, 1] - course.left.position(down) - bend * beyond / 2) / (LEFT_SD * doubt)
  deep = (middle[:, 2] - course.deep.position(down)) / (DEEP_SD * doubt)
  reward = LONE - (off**2 + deep**2 + (turn / (BEND_SD * (1 + np.abs(beyond) / 30)))**2) / 2
  good = (reward > 0) & ((turn == 0) | (down < known[0, 0]) | (down > known[-1, 0]))
  pairs = np.where(side[:, None] == (-1, 1), one[:, None], -1)
  lone = pairing.Levels(pairs, middle, np.degrees(np.arctan(slope)), course.apart(down), reward)
  chain = pairing.best_chain(points, jump=JUMP, spacing=_level_spacing(y),
                             lone=pairing.Levels(*(array[good] for array in lone)))
  return np.reshape(chain, (-1, 2)).astype(int)


def _level_spacing(y):
  """down -> distance between two levels expected there, from the levels y found so far."""
  y = np.sort(y)
  growth = lambda at: np.interp(at, y[[0, -1]], GROWTH)
  base = float(np.median(np.diff(y) / growth((y[1:] + y[:-1]) / 2)))
  base /= max(1.0, round(base / LEVEL))
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
