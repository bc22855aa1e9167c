"""Masks of ultrasound volume projection images -> UCA, the ultrasound curve angle.

`benchmarks/measure_vpi.py` measures the errors on phantoms.
"""
from typing import NamedTuple

import numpy as np

from spinejax.measurement import curves, find, fit, flags, one_class, pair
from spinejax.measurement.results import AngleResult, Level, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'uca'
PROCESS, LUMP = 2, 3  # classes
_PROCESS_DEG, _LUMP_DEG = 4.5, 2.5  # degrees, standard deviations of the tilts of lines
_PAIR_SD, _LONE_SD = 0.03, 0.06  # of positions, in separations
_MOST_PROCESSES, _MOST_LUMPS = 60, 12  # of a spine, with false ones
_RAIL = 0.08  # separations from its rail within which a lone process counts (3.5 mm of 44)
_PASSES = 3  # of the search for lone processes


class Levels(NamedTuple):
  """Levels of the spine in mm."""
  ends: np.ndarray  # [n, 2, 2] left and right end (y, x) of each line; NaN for a lone process
  middle: np.ndarray  # [n, 2] (y, x)
  kind: np.ndarray  # [n] PROCESS or LUMP


class Pairs(NamedTuple):
  """Pairs of processes and lumps, and the processes without a partner."""
  levels: Levels  # in any order
  lone: np.ndarray  # [k, 2] centers (y, x) of the processes without a partner, mm
  side: np.ndarray  # [k] their sides, -1 left and 1 right
  scale: float  # usual separation of a pair, mm


def measure_vpi(mask: np.ndarray, spacing: Spacing, *, process: int = PROCESS, lump: int = LUMP,
                replicates: int = fit.REPLICATES, options: Options = Options()) -> AngleResult:
  """UCA of a mask: lines through pairs of processes and through lumps, joint spline, extremes rule.

  The result has levels, midline and naive_deg. UCA is never converted to a Cobb angle.

  Args:
    mask: class indices [H,W]; classes other than `process` and `lump` are ignored. ValueError for
      another shape.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    process, lump: the two classes; equal if all bones are one class (see `one_class.tell_apart`).
    replicates: of the bootstrap; 0 gives no intervals.
  """
  mask = np.asarray(mask)
  if mask.ndim != 2:
    raise ValueError(f'a VPI mask must be [H,W], got {list(mask.shape)}.')
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    pairs = pair_processes(*find_candidates(mask, steps, process, lump))
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  levels = add_lone_processes(pairs)
  data = _fit_data(levels, pairs.scale)
  midline = fit.fit_joint(data)
  draws = fit.resample_joint(data, midline, replicates=replicates)
  tilts, line_deg = midline.tilt(data.y), np.degrees(np.arctan(data.slope))
  rows = data.y / steps[0]
  names, confidence = name_levels(levels.kind)
  found = curves.find_curves(tilts, rows, names, draws.tilt(data.y), floor_deg=curves.FLOOR_DEG,
                             min_deg=options.min_deg)
  has_line = np.isfinite(line_deg)
  naive = curves.largest_swing(line_deg[has_line], options.min_deg)
  gaps = np.diff(data.y)
  weak = flags.flag_gaps(rows, gaps / np.median(gaps))
  if len(pairs.lone) > 3:
    weak.append(f'{len(pairs.lone)} processes have no partner on the other side')
  weak += flags.flag_scatter(line_deg[has_line], tilts[has_line], naive, found)
  notes = []
  if confidence == 'low':
    counts = [(levels.kind == kind).sum() for kind in (PROCESS, LUMP)]
    notes.append(f'{counts[0]} levels of processes and {counts[1]} of lumps instead of 12 and 5: '
                 'the names of the levels are uncertain')
  left, right = (fit.to_pixels(levels.ends[:, side], steps) for side in (0, 1))
  described = tuple(
      Level(names[i], row, column, round(float(tilts[i]), 2), left=left[i], right=right[i],
            kind='process' if levels.kind[i] == PROCESS else 'lump',
            line_deg=round(float(line_deg[i]), 2) if left[i] else None)
      for i, (row, column) in enumerate(fit.to_pixels(levels.middle, steps)))
  y = np.linspace(data.y[0], data.y[-1], 65)
  return flags.make_result(
      METHOD, steps, found, flags=weak, notes=notes, options=options, levels_found=len(tilts),
      level_confidence=confidence, levels=described, naive_deg=round(naive, 2),
      midline=fit.to_pixels(np.stack([y, midline.position(y)], -1), steps))


def find_candidates(mask: np.ndarray, steps: np.ndarray, process: int,
                    lump: int) -> tuple[np.ndarray, np.ndarray]:
  """Centers [n, 2] (y, x) of processes and centers [m, 2, 2] of the halves of lumps, in mm."""
  if process == lump:
    processes, blobs = one_class.tell_apart(mask == process, steps)
  else:
    processes = find.find_blobs(mask == process, steps, split=True).centers
    blobs = find.find_blobs(mask == lump, steps).pixels
  halves = [find.half_centers(blob, steps) for blob in blobs]
  lumps = np.reshape([half for half in halves if half is not None], (-1, 2, 2))
  n, m = len(processes), len(lumps)
  flags.require(n + m >= flags.MIN_LEVELS, f'{n} processes and {m} lumps are too few for an angle')
  flags.require(not n or not m or np.median(processes[:, 0]) <= np.median(lumps[..., 0]),
                'the lumps lie above the processes: the image seems to be upside down')
  flags.require(n <= _MOST_PROCESSES, f'{n} processes where about 24 are expected')
  flags.require(m <= _MOST_LUMPS, f'{m} lumps where five are expected')
  return processes, lumps


def pair_processes(processes: np.ndarray, lumps: np.ndarray) -> Pairs:
  """Pairs the processes of both sides by their order; raises NoAngle for few levels."""
  side, slope, separation = pair.split_sides(processes, lumps.mean(1))
  order = np.argsort(processes[:, 0], kind='stable')
  left, right = order[side[order] < 0], order[side[order] > 0]
  gaps = np.concatenate([np.diff(processes[rows, 0]) for rows in (left, right)])
  level = float(np.median(gaps)) if len(gaps) else 1.0
  matches = pair.align(processes[left], processes[right], slope[left], 0.45 * level, separation)
  matched = np.reshape([(left[i], right[j]) for i, j in matches], (-1, 2)).astype(int)
  ends = np.concatenate([processes[matched], lumps])
  flags.require(len(ends) >= flags.MIN_LEVELS, (
      f'{len(left)} processes on the left, {len(right)} on the right and {len(lumps)} lumps make '
      f'{len(ends)} levels; {flags.MIN_LEVELS} are needed'))
  kind = np.array([PROCESS] * len(matched) + [LUMP] * len(lumps))
  width = np.hypot(*(ends[:, 1] - ends[:, 0]).T)
  scale = np.median(width[kind == PROCESS]) if len(matched) else 2 * np.median(width)
  lone = np.setdiff1d(np.arange(len(processes)), matched)
  return Pairs(Levels(ends, ends.mean(1), kind), processes[lone], side[lone], float(scale))


def add_lone_processes(pairs: Pairs) -> Levels:
  """The levels and those of the lone processes that lie on their rail, top to bottom."""
  levels, lone, side, scale = pairs
  for _ in range(_PASSES):
    midline = fit.fit_joint(_fit_data(levels, scale))
    used, middle = _find_on_rails(lone, side, midline, levels.middle[:, 0], scale)
    if not used:
      break
    levels = Levels(np.concatenate([levels.ends, np.full((len(used), 2, 2), np.nan)]),
                    np.concatenate([levels.middle, middle]),
                    np.append(levels.kind, [PROCESS] * len(used)))
    lone, side = np.delete(lone, used, 0), np.delete(side, used)
  return pair.take(levels, np.argsort(levels.middle[:, 0], kind='stable'))


def _find_on_rails(lone: np.ndarray, side: np.ndarray, midline: fit.Midline, known: np.ndarray,
                   scale: float) -> tuple[list[int], np.ndarray]:
  """Indices [k] of the lone processes on their rail, and their places [k, 2] on the midline.

  They lie half a separation beside the midline. They keep 0.55 level spacings from all others and
  from the levels at y = known, and lie at most 1.3 spacings beyond the ends.
  """
  level, y = float(np.median(np.diff(np.sort(known)))), lone[:, 0]
  for _ in range(2):
    slope = midline.slope(y)
    length = np.hypot(1, slope)
    y = lone[:, 0] + side * scale / 2 * slope / length
  x = lone[:, 1] - side * scale / 2 / length
  near = np.abs(x - midline.position(y)) < _RAIL * scale
  near &= (known.min() - 1.3 * level < y) & (y < known.max() + 1.3 * level)
  used: list[int] = []
  for i in np.flatnonzero(near):
    if np.abs(np.append(known, y[used]) - y[i]).min() > pair.NEAR * level:
      used.append(int(i))
  return used, np.stack([y, x], -1)[used]


def _fit_data(levels: Levels, scale: float) -> fit.LevelData:
  across = levels.ends[:, 1] - levels.ends[:, 0]
  slope = -across[:, 0] / across[:, 1].clip(1e-6)
  return fit.LevelData(
      levels.middle[:, 0], levels.middle[:, 1], slope,
      slope_deg=np.where(levels.kind == PROCESS, _PROCESS_DEG, _LUMP_DEG),
      position_sd=np.where(np.isfinite(slope), _PAIR_SD, _LONE_SD), scale=scale)


def name_levels(kind: np.ndarray) -> tuple[curves.Names, str]:
  """Names of levels of a kind [n] from top to bottom, and the confidence in them.

  The last process above the first lump is T12. Names above T1 and below L5 are None, and all are
  None without both kinds. The confidence is 'high' for 12 processes and 5 lumps, else 'low'.
  """
  first = int((kind == LUMP).argmax()) if (kind == LUMP).any() else None
  if not first:
    return [None] * len(kind), 'low'
  places = 12 + np.arange(len(kind)) - first
  names = [curves.LEVELS[p] if 0 <= p < 17 else None for p in places]
  exact = len(kind) == 17 and first == 12 and (kind[12:] == LUMP).all()
  return names, 'high' if exact else 'low'
