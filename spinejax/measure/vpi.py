"""Masks of ultrasound volume projection images -> UCA, the ultrasound curve angle.

`benchmarks/measure_vpi.py` measures the errors on phantoms.
"""
import dataclasses

import numpy as np

from spinejax.measure import curves, find, fit, flags, one_class, pair
from spinejax.measure.results import AngleResult, Level, Options
from spinejax.measure.spacing import NO_SPACING, Spacing, check_spacing

METHOD = 'uca'
PROCESS, LUMP = 2, 3  # classes
SMOOTHING = 10.0
_PROCESS_DEG, _LUMP_DEG = 4.5, 2.5  # degrees, standard deviations of the tilts of lines
_PAIR_SD, _LONE_SD = 0.03, 0.06  # of positions, in separations
_FLOOR_DEG = 0.5  # degrees, error of a tilt that the replicates do not show
_MOST_PROCESSES, _MOST_LUMPS = 60, 12  # of a spine, with false ones
_GAP = 1.7  # level spacings without a level that are flagged
_RAIL = 0.08  # separations from its rail within which a lone process counts (3.5 mm of 44)
_PASSES = 3  # of the search for lone processes


@dataclasses.dataclass(frozen=True)
class Found:
  """Candidates on a mask, in mm.

  Attributes:
    processes: [n, 2] centers (y, x).
    lumps: [m, 2, 2] centers (y, x) of the left and right half of each lump.
  """
  processes: np.ndarray
  lumps: np.ndarray


@dataclasses.dataclass(frozen=True)
class Levels:
  """Levels of the spine, from top to bottom, in mm.

  Attributes:
    ends: [n, 2, 2] left and right end (y, x) of each line; NaN for a lone process.
    middle: [n, 2] (y, x).
    kind: [n] PROCESS or LUMP.
  """
  ends: np.ndarray
  middle: np.ndarray
  kind: np.ndarray

  @property
  def slope(self) -> np.ndarray:
    """dx/dy [n] of the spine perpendicular to each line; NaN for a lone process."""
    across = self.ends[:, 1] - self.ends[:, 0]
    return -across[:, 0] / across[:, 1].clip(1e-6)

  def sort(self) -> 'Levels':
    """The levels from top to bottom."""
    order = np.argsort(self.middle[:, 0], kind='stable')
    return Levels(self.ends[order], self.middle[order], self.kind[order])


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Levels by pairs of processes and by lumps, and the processes without a partner.

  Attributes:
    levels: in any order.
    lone: [k, 2] centers (y, x) in mm of the processes without a partner.
    lone_side: [k] their sides, -1 left and 1 right.
    scale: mm, the usual separation of a pair.
  """
  levels: Levels
  lone: np.ndarray
  lone_side: np.ndarray
  scale: float


def measure_vpi(mask: np.ndarray, spacing: Spacing, *, process: int = PROCESS, lump: int = LUMP,
                smoothing: float = SMOOTHING, replicates: int = fit.REPLICATES, seed: int = 0,
                options: Options = Options()) -> AngleResult:
  """UCA of a mask: lines through pairs of processes and through lumps, joint spline, extremes rule.

  Args:
    mask: class indices [H,W]; classes other than `process` and `lump` are ignored.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    process, lump: the two classes. If they are equal, all bones are one class and
      `one_class.tell_apart` tells them apart.
    smoothing: of `fit.fit_joint`.
    replicates, seed: of the bootstrap.
    options: curves, bands and calibration. UCA is never converted to a Cobb angle.

  Returns:
    The result with levels, midline and naive_deg. It fails, with a reason, if the spacing is
    unknown or the mask shows no spine.

  Raises:
    ValueError: the mask is not [H,W], or the spacing has another length.
  """
  mask = np.asarray(mask)
  if mask.ndim != 2:
    raise ValueError(f'a VPI mask must be [H,W], got {list(mask.shape)}.')
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    pairs = pair_processes(find_candidates(mask, steps, process, lump))
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  levels = add_lone_processes(pairs, smoothing)
  data = _fit_data(levels, pairs.scale)
  midline = fit.fit_joint(data, smoothing=smoothing)
  draws = fit.resample_joint(data, midline, smoothing=smoothing, replicates=replicates, seed=seed)
  tilts, line_deg = midline.tilt(data.y), np.degrees(np.arctan(data.slope))
  names, confidence = name_levels(levels.kind)
  found = curves.find_curves(curves.Profile(
      tilts, data.y / steps[0], names, None if draws is None else draws.tilt(data.y),
      floor_deg=_FLOOR_DEG), options.min_deg)
  has_line = np.isfinite(line_deg)
  naive = curves.largest_swing(line_deg[has_line], options.min_deg)
  notes = flag_levels(data.y, steps[0], len(pairs.lone))
  notes += flags.flag_scatter(line_deg[has_line], tilts[has_line], naive, found)
  partial = bool(notes)
  if confidence == 'low':
    notes.append(f'{(levels.kind == PROCESS).sum()} levels of processes and '
                 f'{(levels.kind == LUMP).sum()} of lumps instead of 12 and 5: the names of the '
                 'levels are uncertain')
  y = np.linspace(data.y[0], data.y[-1], 65)
  return flags.make_result(
      METHOD, steps, found, flags=notes, partial=partial, options=options,
      levels_found=len(tilts), level_confidence=confidence,
      levels=_describe(levels, names, tilts, line_deg, steps),
      midline=fit.to_pixels(np.stack([y, midline.position(y)], -1), steps),
      naive_deg=round(naive, 2))


def find_candidates(mask: np.ndarray, steps: np.ndarray, process: int, lump: int) -> Found:
  """Processes and halves of lumps of a mask; raises NoAngle if they cannot be those of a spine."""
  if process == lump:
    bones = one_class.tell_apart(mask == process, steps)
    if bones is None:
      raise flags.NoAngle('the bones of one class do not lie as processes beside a spine and lumps '
                          'on it')
    processes, blobs = bones
  else:
    processes = find.find_blobs(mask == process, steps, split=True).centers
    blobs = find.find_blobs(mask == lump, steps).pixels
  halves = [find.half_centers(blob, steps) for blob in blobs]
  lumps = np.reshape([half for half in halves if half is not None], (-1, 2, 2))
  if len(processes) + len(lumps) < flags.MIN_LEVELS:
    raise flags.NoAngle(f'{len(processes)} processes and {len(lumps)} lumps are too few for an '
                        'angle')
  if len(processes) and len(lumps) and np.median(processes[:, 0]) > np.median(lumps[..., 0]):
    raise flags.NoAngle('the lumps lie above the processes: the image seems to be upside down')
  if len(processes) > _MOST_PROCESSES:
    raise flags.NoAngle(f'{len(processes)} processes where about 24 are expected')
  if len(lumps) > _MOST_LUMPS:
    raise flags.NoAngle(f'{len(lumps)} lumps where five are expected')
  return Found(processes, lumps)


def pair_processes(found: Found) -> Pairs:
  """Pairs the processes of both sides by their order; raises NoAngle if there are few levels."""
  processes, lumps = found.processes, found.lumps
  side, slope, separation = pair.split_sides(processes, lumps.mean(1))
  order = np.argsort(processes[:, 0], kind='stable')
  left, right = order[side[order] < 0], order[side[order] > 0]
  gaps = np.concatenate([np.diff(processes[rows, 0]) for rows in (left, right)])
  level = float(np.median(gaps)) if len(gaps) else 1.0
  matches = pair.align(processes[left], processes[right], slope[left], 0.45 * level, separation)
  matched = np.reshape([(left[i], right[j]) for i, j in matches], (-1, 2)).astype(int)
  ends = np.concatenate([processes[matched], lumps])
  if len(ends) < flags.MIN_LEVELS:
    raise flags.NoAngle(
        f'{len(left)} processes on the left, {len(right)} on the right and {len(lumps)} lumps make '
        f'{len(ends)} levels; {flags.MIN_LEVELS} are needed')
  kind = np.array([PROCESS] * len(matched) + [LUMP] * len(lumps))
  width = np.hypot(*(ends[:, 1] - ends[:, 0]).T)
  scale = np.median(width[kind == PROCESS]) if len(matched) else 2 * np.median(width)
  lone = np.setdiff1d(np.arange(len(processes)), matched)
  return Pairs(Levels(ends, ends.mean(1), kind), processes[lone], side[lone], float(scale))


def add_lone_processes(pairs: Pairs, smoothing: float) -> Levels:
  """The levels with those of the lone processes that lie on their rail, top to bottom."""
  levels, lone, side = pairs.levels, pairs.lone, pairs.lone_side
  for _ in range(_PASSES):
    midline = fit.fit_joint(_fit_data(levels, pairs.scale), smoothing=smoothing)
    used, middle = _find_on_rails(lone, side, midline, levels.middle[:, 0], pairs.scale)
    if not len(used):
      break
    levels = Levels(np.concatenate([levels.ends, np.full((len(used), 2, 2), np.nan)]),
                    np.concatenate([levels.middle, middle]),
                    np.append(levels.kind, [PROCESS] * len(used)))
    lone, side = np.delete(lone, used, 0), np.delete(side, used)
  return levels.sort()


def _find_on_rails(lone: np.ndarray, side: np.ndarray, midline: fit.Midline, known: np.ndarray,
                   scale: float) -> tuple[list[int], np.ndarray]:
  """Lone processes [n, 2] on their rail, half a separation beside the midline.

  Args:
    lone: (y, x) mm.
    side: [n] -1 or 1.
    midline: the fit of the levels so far.
    known: [m] y of the levels so far, mm.
    scale: separation of a pair, mm.

  Returns:
    Indices [k] of the processes, and the positions [k, 2] (y, x) of their levels on the midline.
    They keep 0.55 level spacings from every other level and lie at most 1.3 spacings beyond the
    ends.
  """
  level = float(np.median(np.diff(np.sort(known))))
  used: list[int] = []
  middle: list[tuple[float, float]] = []
  for i, (point, sign) in enumerate(zip(lone, side)):
    y = point[0]
    for _ in range(2):
      slope = float(midline.slope(np.array([y]))[0])
      length = np.hypot(1, slope)
      y = point[0] + sign * scale / 2 * slope / length
    x = point[1] - sign * scale / 2 / length
    taken = np.concatenate([known, [at[0] for at in middle]])
    if (abs(x - float(midline.position(np.array([y]))[0])) < _RAIL * scale
        and np.abs(taken - y).min() > pair.NEAR * level
        and known.min() - 1.3 * level < y < known.max() + 1.3 * level):
      used.append(i)
      middle.append((y, x))
  return used, np.reshape(middle, (-1, 2))


def _fit_data(levels: Levels, scale: float) -> fit.LevelData:
  slope = levels.slope
  return fit.LevelData(
      levels.middle[:, 0], levels.middle[:, 1], slope,
      slope_deg=np.where(levels.kind == PROCESS, _PROCESS_DEG, _LUMP_DEG),
      position_sd=np.where(np.isfinite(slope), _PAIR_SD, _LONE_SD), scale=scale)


def name_levels(kind: np.ndarray) -> tuple[list[str | None], str]:
  """Names of the levels and the confidence in them.

  The last process above the first lump is T12. The confidence is 'high' for 12 processes and 5
  lumps, and 'low' otherwise.

  Args:
    kind: [n] PROCESS or LUMP from top to bottom.

  Returns:
    n names, and the confidence. Names above T1 and below L5 are None; all are None without lumps.
  """
  first = int((kind == LUMP).argmax()) if (kind == LUMP).any() else None
  if not first:
    return [None] * len(kind), 'low'
  places = 12 + np.arange(len(kind)) - first
  names = [curves.LEVELS[p] if 0 <= p < 17 else None for p in places]
  exact = len(kind) == 17 and first == 12 and (kind[12:] == LUMP).all()
  return names, 'high' if exact else 'low'


def flag_levels(y: np.ndarray, step: float, num_lone: int) -> list[str]:
  """Flags of missing levels and of processes without a partner; y [n] in mm."""
  gaps = np.diff(y)
  notes = flags.flag_gaps(y / step, gaps > _GAP * np.median(gaps))
  if num_lone > 3:
    notes.append(f'{num_lone} processes have no partner on the other side')
  return notes


def _describe(levels: Levels, names: list[str | None], tilts: np.ndarray, line_deg: np.ndarray,
              steps: np.ndarray) -> tuple[Level, ...]:
  """The levels of the result."""
  described = []
  for i, (row, column) in enumerate(fit.to_pixels(levels.middle, steps)):
    has_line = np.isfinite(line_deg[i])
    left, right = fit.to_pixels(levels.ends[i], steps) if has_line else (None, None)
    described.append(Level(
        names[i], row, column, round(float(tilts[i]), 2), left=left, right=right,
        kind='process' if levels.kind[i] == PROCESS else 'lump',
        line_deg=round(float(line_deg[i]), 2) if has_line else None))
  return tuple(described)
