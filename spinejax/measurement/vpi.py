"""Masks of ultrasound volume projection images -> UCA, the ultrasound curve angle.

`benchmarks/measure_vpi.py` measures the errors on phantoms.
"""
from typing import NamedTuple

import numpy as np

from spinejax.measurement import (
    curves, find, fit, flags, naming, one_class, pair, posterior, vpi_levels)
from spinejax.measurement.probabilities import check_probabilities
from spinejax.measurement.results import AngleResult, Level, Options
from spinejax.measurement.spacing import NO_SPACING, Spacing, check_spacing
from spinejax.measurement.vpi_levels import LUMP, PROCESS

METHOD = 'uca'
_MOST_PROCESSES, _MOST_LUMPS = 60, 12  # of a spine, with false ones
_SPREAD = curves.Spread(factor=1.1, floor_deg=0.8)
_WIDTHS = 5, 95  # percentiles of the columns of a process
_USUAL = 60  # percentile of the widths of complete processes
_LUMP_SEPARATION = 0.8  # distance of both sides in widths of a lump, without processes


class Candidates(NamedTuple):
  """Processes and lumps in units of the distance between left and right; places are (y, x)."""
  points: np.ndarray  # [n, 2] centers of processes
  lack: np.ndarray  # [n] usual width of a process minus its own width, at least 0
  side: np.ndarray  # [n] first guess of their side, -1 left and 1 right
  lumps: tuple[find.Part, ...]
  level: float  # distance of neighboring levels
  unit: float  # mm
  left: float  # mm, x of the origin


def measure_vpi(mask: np.ndarray, spacing: Spacing, *, process: int = PROCESS, lump: int = LUMP,
                probs: np.ndarray | None = None, options: Options = Options()) -> AngleResult:
  """UCA of a mask: lines through pairs of processes and through lumps, posterior of the midline,
  extremes rule.

  The result has levels, midline and naive_deg. UCA is never converted to a Cobb angle.

  Args:
    mask: class indices [H,W]; classes other than `process` and `lump` are ignored. ValueError for
      another shape.
    spacing: mm per pixel (y, x). One number stands for square pixels.
    process, lump: the two classes; equal if all bones are one class (see `one_class.tell_apart`).
    probs: [H,W,K] probabilities of the classes, background first; they weigh the pixels of a bone
      and tell how sure a lump is. None without them. ValueError for another shape, or for values
      that are not probabilities.
  """
  mask = np.asarray(mask)
  if mask.ndim != 2:
    raise ValueError(f'a VPI mask must be [H,W], got {list(mask.shape)}.')
  probs = check_probabilities(probs, mask.shape, max(process, lump))
  steps = check_spacing(spacing, 2)
  if steps is None:
    return flags.no_angle(METHOD, None, NO_SPACING)
  try:
    found = find_candidates(mask, steps, process, lump, probs)
    spine = vpi_levels.find_spine(found.points, found.lack, found.side, found.lumps, found.level,
                                  is_predicted=probs is not None)
  except flags.NoAngle as reason:
    return flags.no_angle(METHOD, steps, reason)
  levels, midline = spine.levels, spine.posterior.mean
  y = levels.middle[:, 0]
  tilts, rows = midline.tilt(y), y * found.unit / steps[0]
  named = naming.name_levels(y, levels.kind == LUMP)
  sure = curves.find_sure_curves(
      tilts, rows, named.names, spine.posterior.draws.tilt(y), min_deg=options.min_deg,
      spread=_SPREAD)
  line_deg, has_line = np.degrees(np.arctan(levels.slope)), levels.has_line
  naive = curves.largest_swing(line_deg[has_line], options.min_deg)
  notes = [*sure.notes, *flags.flag_gaps(rows, np.diff(y) / np.median(np.diff(y))),
           *_note_lone(levels), *named.notes,
           *flags.flag_scatter(line_deg[has_line], tilts[has_line], naive, sure.curves)]
  at = np.linspace(y[0], y[-1], 65)
  to_mm = found.unit * np.stack([at, midline.position(at)], -1) + (0, found.left)
  return flags.make_result(
      METHOD, steps, sure.curves, notes=notes, options=options, straight=sure.straight,
      levels_found=len(y),
      level_confidence=named.confidence,
      levels=_describe(levels, named, midline, tilts, found, steps), naive_deg=round(naive, 2),
      midline=fit.to_pixels(to_mm, steps),
      midline_sd=posterior.position_sd(spine.posterior.draws, at, steps[1] / found.unit))


def find_candidates(mask: np.ndarray, steps: np.ndarray, process: int, lump: int,
                    probs: np.ndarray | None = None) -> Candidates:
  """The processes and lumps of a mask; raises NoAngle if they are no spine."""
  if process == lump:
    blobs, lumps = one_class.tell_apart(mask == process, steps)
  else:
    blobs = find.find_blobs(mask == process, steps, split=True)
    lumps = find.find_blobs(mask == lump, steps)
  n, m = len(blobs.pixels), len(lumps.pixels)
  flags.require(n + m >= flags.MIN_LEVELS, f'{n} processes and {m} lumps are too few for an angle')
  flags.require(not n or not m or np.median(blobs.centers[:, 0]) <= np.median(lumps.centers[:, 0]),
                'the lumps lie above the processes: the image seems to be upside down')
  flags.require(n <= _MOST_PROCESSES, f'{n} processes where about 24 are expected')
  flags.require(m <= _MOST_LUMPS, f'{m} lumps where five are expected')
  above, below = _find_order(blobs, lumps)
  processes = [_make_part(blobs.pixels[i], steps, probs, process) for i in np.flatnonzero(above)]
  parts = [_make_part(lumps.pixels[i], steps, probs, lump) for i in np.flatnonzero(below)]
  flags.require(len(processes) + len(parts) >= flags.MIN_LEVELS, (
      f'{len(processes)} processes above {len(parts)} lumps are too few for an angle'))
  points = np.reshape([np.average(part.places, axis=0, weights=part.weights)
                       for part in processes], (-1, 2))
  middles = find.box_centers(parts)
  side, _, unit = pair.split_sides(points, middles)
  if not unit:
    unit = _LUMP_SEPARATION * float(np.median([np.ptp(part.places[:, 1]) for part in parts]))
  gaps = np.concatenate([np.diff(np.sort(points[side == s, 0])) for s in (-1, 1)])
  level = np.median(gaps) if len(gaps) else np.median(np.diff(np.sort(middles[:, 0])))
  flags.require(min(unit, level) > 0, 'the bones lie in one row')
  width = np.array([np.ptp(np.percentile(part.places[:, 1], _WIDTHS)) for part in processes])
  lack = (np.percentile(width, _USUAL) - width).clip(0) if len(width) else width
  origin = (0.0, float(np.median(np.append(points[:, 1], middles[:, 1]))))
  return Candidates(
      (points - origin) / unit, lack / unit, side,
      tuple(part._replace(places=(part.places - origin) / unit) for part in parts),
      float(level / unit), unit, origin[1])


def _find_order(blobs: find.Blobs, lumps: find.Blobs) -> tuple[np.ndarray, np.ndarray]:
  """Which processes [n] lie above and which lumps [m] below the level that separates them best.

  The blobs on the wrong side have the smallest sum of areas, each in medians of its kind, lumps
  twice.
  """
  y_process, y_lump = blobs.centers[:, 0], lumps.centers[:, 0]
  if not len(y_process) or not len(y_lump):
    return np.ones(len(y_process), bool), np.ones(len(y_lump), bool)
  share_process, share_lump = (
      areas / np.median(areas) for areas in (np.array(list(map(len, found.pixels)))
                                             for found in (blobs, lumps)))
  every = np.sort(np.concatenate([y_process, y_lump]))
  cuts = np.concatenate([[every[0] - 1], (every[1:] + every[:-1]) / 2, [every[-1] + 1]])
  wrong = [share_process[y_process > cut].sum() + 2 * share_lump[y_lump < cut].sum()
           for cut in cuts]
  cut = cuts[int(np.argmin(wrong))]
  return y_process < cut, y_lump > cut


def _make_part(pixels: np.ndarray, steps: np.ndarray, probs: np.ndarray | None,
               index: int) -> find.Part:
  """A blob with places in mm and probabilities of a class as weights."""
  if probs is None:
    return find.Part(pixels * steps, np.ones(len(pixels)), 1.0)
  weights = probs[pixels[:, 0], pixels[:, 1], index] + 1e-3
  return find.Part(pixels * steps, weights, float(weights.mean()))


def _note_lone(levels: vpi_levels.Levels) -> list[str]:
  lone = int((~levels.has_line).sum())
  return [f'{lone} processes have no partner on the other side'] if lone > 3 else []


def _describe(levels: vpi_levels.Levels, named: naming.Named, midline: fit.Midline,
              tilts: np.ndarray, found: Candidates, steps: np.ndarray) -> tuple[Level, ...]:
  """The levels in pixels of the mask."""
  def to_pixels(places):
    return fit.to_pixels(places * found.unit + (0, found.left), steps)

  y = levels.middle[:, 0]
  centers = to_pixels(np.stack([y, midline.position(y)], -1))
  left, right = (to_pixels(levels.ends[:, side]) for side in (0, 1))
  line_deg = np.degrees(np.arctan(levels.slope))
  return tuple(
      Level(named.names[i], row, column, round(float(tilts[i]), 2), left=left[i], right=right[i],
            kind='process' if levels.kind[i] == PROCESS else 'lump',
            line_deg=round(float(line_deg[i]), 2) if left[i] else None,
            confidence=named.probability[i])
      for i, (row, column) in enumerate(centers))
