"""Phantom ultrasound volume projection images (VPI) of the spine with exact truth.

Everything is laid out on the scanner's grid of 2560 x 640 pixels of 0.2 mm and evaluated at the
centers of the pixels asked for. Anatomy, texture, speckle and sweep come from four separate
random streams, and only speckle and sweep are drawn per pixel: one seed is one patient at every
resolution and difficulty. Shapes, depths and textures were fitted to one public image with an
expert's labels. A phantom is not clinical data.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, drawing

SCANNER_SHAPE = (2560, 640)
SCANNER_SPACING = 0.2
MIN_SHAPE = (64, 16)
BACKGROUND, RIB, PROCESS, LUMP = range(4)

Case = dict[str, Any]

# Standard deviation of the log amplitude and its scale (y, x) in scanner pixels.
MOTTLING = ((0.06, (6, 8)), (0.11, (15, 17)), (0.12, (36, 36)), (0.06, (75, 75)))
FALSE_BONES = 14
GAPS = 1.3
FAINT = {RIB: 0.0, PROCESS: 0.05, LUMP: 0.10}

_H, _W = SCANNER_SHAPE
_ROWS = np.arange(_H) + 0.5
_POWER = {RIB: 2.4, PROCESS: 2.4, LUMP: 3.2}


class Bone(NamedTuple):
  """A dark shape in scanner pixels; its own axes a, b run outward (or right) and downward.

  Attributes:
    kind: RIB, PROCESS or LUMP.
    side: -1 left, 1 right or middle.
    center: (y, x).
    half_height, half_width: a rib has no outer end.
    turn: degrees from horizontal, positive where the outer end is lower.
    depth: fraction of the amplitude lost inside.
    soft: relative width of the boundary.
    rank: uniform in [0, 1]; the lowest nearly vanish in difficult pictures.
    bend, roof: drop of the wings and height of the middle of a lump, in half heights.
  """
  kind: int
  side: int
  center: tuple[float, float]
  half_height: float
  half_width: float
  turn: float
  depth: float
  soft: float
  rank: float = 1.0
  bend: float = 0.0
  roof: float = 0.0


class Stamp(NamedTuple):
  """A bone on the picture: its window, implicit shape f (below 1 inside) and relative depth."""
  bone: Bone
  window: tuple[slice, ...]
  f: np.ndarray
  depth: np.ndarray | np.floating


class Anatomy(NamedTuple):
  """One patient and one sweep in scanner pixels; profiles are sampled at _ROWS.

  Attributes:
    spine: the curve.
    axis: [2560] column of the midline.
    edges: [2, 2560] columns of the strip's left and right edges.
    cuts: (row at the middle column, slope) of the strip's top and bottom.
    vertebrae: [17, 2] centers (y, x).
    bones: in the order they are drawn.
    processes: [12, 2, 2] centers of the thoracic processes, NaN for those that are absent.
    beads: [17, 2] relative depth and width of the spinous shadow at each level.
    contact: [2, 2560] width over which the amplitude fades at the left and right edges.
    gain: [2560] relative amplitude of the rows.
  """
  spine: curves.Spine
  axis: np.ndarray
  edges: np.ndarray
  cuts: np.ndarray
  vertebrae: np.ndarray
  bones: tuple[Bone, ...]
  processes: np.ndarray
  beads: np.ndarray
  contact: np.ndarray
  gain: np.ndarray


class Sweep(NamedTuple):
  """Where the frames of a sweep cross the picture, in pixels of that picture.

  Attributes:
    rows: [n] row of each frame at the middle column.
    slopes: [n] rows per column.
    sparse: whether some frames lie further apart than usual.
    gray: what is left of the amplitude between them.
  """
  rows: np.ndarray
  slopes: np.ndarray
  sparse: bool
  gray: float


def vpi(seed: int | Sequence[int], shape: tuple[int, ...] = (1024, 256),
        difficulty: float = 1.0, *, family: str | None = None,
        speckle: drawing.Speckle | None = None) -> Case:
  """Draws one VPI phantom: dark bones on bright muscle inside a swept strip.

  Gray levels are equalized inside the strip, image = 255 CDF(amplitude), because the histogram
  of the scanner's own pictures is flat there.

  Args:
    seed: a non-negative integer or several, such as (base, split, index); trailing zeros do not
      count, (7, 0, 0) is 7.
    shape: (H, W) of the picture, at least 64 x 16.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. Scales speckle, gain and mottling, and the
      numbers of false bones, nearly invisible bones and sweep gaps; anatomy and truth stay.
    family: curve pattern, a key of curves.FAMILIES; drawn by probability when None.
    speckle: `speckle(rng, amplitude, spacing) -> amplitude` in place of `projection_speckle`;
      amplitude is float32 [H,W], spacing mm per pixel (y, x).

  Returns:
    image: uint8 [H,W], 0 outside the strip.
    clean: uint8 [H,W], the same tissue without speckle, gain and holes.
    label: uint8 [H,W], 0 background, 1 rib, 2 thoracic process, 3 lump.
    fov: bool [H,W], the swept strip.
    truth: positions are (row, column) in pixels with pixel centers at integers; angles are
      degrees signed as in `curves`; levels run T1..T12, L1..L5.
      family, levels [17], tilts [17]; cobb and uca: lists of curves.Curve by the extremes rule,
      from the tilts and from the pair lines of the exact landmarks; ends (levels) and requested
      (angles) as drawn; vertebrae [17,2]; processes [12,2,2] (level, left/right, position), NaN
      out of view; lumps [5,2] and lump_halves [5,2,2], centroids of the whole and of its left and
      right half; spacing (y, x) mm per pixel; hole_fraction of the strip; seed, difficulty, shape.

  Raises:
    ValueError: an argument outside the above.
  """
  seeds = drawing.check_seed(seed)
  shape = drawing.check_shape(shape, MIN_SHAPE, 'two integers, height and width')
  difficulty = drawing.check_difficulty(difficulty)
  streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seeds).spawn(4)]
  spacing = (SCANNER_SPACING * _H / shape[0], SCANNER_SPACING * _W / shape[1])
  y = ((np.arange(shape[0]) + 0.5) * (_H / shape[0]))[:, None]
  x = ((np.arange(shape[1]) + 0.5) * (_W / shape[1]))[None, :]

  anatomy = _draw_anatomy(streams[0], family)
  fov = _in_view(anatomy, y, x)
  stamps = [_stamp(bone, y, x) for bone in anatomy.bones]
  label = _draw_label(stamps, fov)
  amplitude = _draw_tissue(streams[1], anatomy, stamps, y, x, difficulty)
  sweep = _draw_sweep(streams[3], shape, difficulty)
  tone = _tone_curve(amplitude[fov])
  clean = np.where(fov, tone(amplitude), 0).astype(np.uint8)

  noisy = amplitude
  if speckle is not None:
    noisy = drawing.apply_speckle(speckle, streams[2], amplitude, spacing)
  elif difficulty:
    noisy = projection_speckle(streams[2], amplitude, spacing, difficulty)
  if difficulty:
    noisy = noisy * _row_gain(streams[3], sweep, shape, difficulty)
  holes = _holes(sweep, shape) & fov
  image = np.where(fov, tone(noisy), 0).astype(np.uint8)
  image[holes] = (sweep.gray * image[holes]).astype(np.uint8)
  truth = _truth(anatomy, shape) | {
      'spacing': spacing, 'hole_fraction': float(holes.sum() / max(1, fov.sum())),
      'seed': seed, 'difficulty': difficulty, 'shape': shape}
  return {'image': image, 'clean': clean, 'label': label, 'fov': fov, 'truth': truth}


def mirror(case: Case) -> Case:
  """The case seen in a mirror: columns reversed, left and right swapped, angles negated."""
  truth, last = case['truth'], case['image'].shape[1] - 1
  reflect = lambda points: np.array([0, last]) + np.array([1, -1]) * points
  negate = lambda found: [curve._replace(angle=-curve.angle) for curve in found]
  mirrored = {
      'tilts': -truth['tilts'], 'requested': -truth['requested'],
      'cobb': negate(truth['cobb']), 'uca': negate(truth['uca']),
      'vertebrae': reflect(truth['vertebrae']), 'lumps': reflect(truth['lumps']),
      'processes': reflect(truth['processes'])[:, ::-1],
      'lump_halves': reflect(truth['lump_halves'])[:, ::-1]}
  arrays = {name: np.ascontiguousarray(array[:, ::-1])
            for name, array in case.items() if name != 'truth'}
  return arrays | {'truth': truth | mirrored}


def projection_speckle(rng: np.random.Generator, amplitude: np.ndarray,
                       spacing: tuple[float, float], strength: float = 1.0) -> np.ndarray:
  """Speckle left by averaging about 16 looks: amplitude * max(0, 1 + strength n / 9.5).

  n is Gaussian of variance 1, half of it smooth over 2.7 scanner pixels both ways, half fresh in
  every row and smooth over 1.4 along it; with gain and mottling the picture reaches the texture
  of a real one. Pixels coarser than the scanner's keep its contrast, as after resizing by
  sampling.

  Args:
    rng: source of randomness.
    amplitude: float32 [H,W].
    spacing: mm per pixel (y, x).
    strength: 0 for none, 1 as in a real image.

  Returns:
    float32 [H,W].
  """
  sy, sx = (SCANNER_SPACING / s for s in spacing)
  white = rng.standard_normal(amplitude.shape, dtype=np.float32)
  noise = drawing.smooth(drawing.smooth(white, 2.6 * sx, 1), 2.8 * sy, 0)
  noise = drawing.smooth(white, 1.4 * sx, 1) + noise
  noise *= np.float32(strength / 9.5 / max(noise.std(), 1e-6))
  return amplitude * np.maximum(noise + 1, 0)


def _draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  spine = curves.sample_curve(rng, family)
  ends = _H * rng.uniform((0.025, 0.97), (0.045, 0.99))
  cuts = np.stack([ends, np.tan(np.radians(rng.normal(2, 1.5, 2)))], -1)
  cranial, caudal = ends[0] + 0.012 * _H, _H * rng.uniform(0.915, 0.94)
  length = caudal - cranial
  path = length * np.interp((_ROWS - cranial) / length, spine.path_u, spine.path_x)
  strip = path
  for _ in range(2):
    strip = ndimage.uniform_filter1d(strip, 290, mode='nearest')
  strip = rng.uniform(0.55, 0.9) * strip + 10 * _wander(rng, 90)
  middle = (strip.max() + strip.min()) / 2
  center = _W / 2 + rng.normal(0, 10)
  axis = center + path - middle + rng.normal(0, 8)
  strip = center + 120 * np.tanh((strip - middle) / 120)
  half = rng.uniform(190, 205)
  edges = np.stack([strip + side * half + 3.5 * _wander(rng, 26) + 1.2 * _wander(rng, 1)
                    for side in (-1, 1)])
  rows = cranial + spine.u * length
  vertebrae = np.stack([rows, np.interp(rows, _ROWS, axis)], -1)

  bones: list[Bone] = []
  processes = np.full((12, 2, 2), np.nan)
  first = int(rng.random() < 0.5)
  for level in range(12):
    spread = rng.normal(1, 0.03)
    for i, side in enumerate((-1, 1)):
      pair = _draw_process(rng, level, side, spread, vertebrae[level], spine.tilts[level])
      if level >= first:
        bones += pair
        processes[level, i] = pair[0].center
  for level in range(12, 17):
    bones.append(_draw_lump(rng, level - 12, vertebrae[level], spine.tilts[level]))
  bones.sort(key=lambda bone: -bone.kind)

  beads = rng.normal(0, (0.08, 0.15), (17, 2))
  beads[rng.integers(10, 14)] += (rng.choice([0.0, 0.2]), 0.3)
  fade = np.interp(_ROWS / _H, [0.03, 0.09, 0.13, 0.72, 0.88, 1.0], [1, 0.6, 0, 0, 0.5, 1])
  contact = np.stack([4 * np.exp(0.5 * _wander(rng, 80)) + 45 * rng.random() * fade
                      for _ in range(2)])
  gain = np.exp(0.08 * _wander(rng, 60))
  return Anatomy(spine, axis, edges, cuts, vertebrae, tuple(bones), processes, beads, contact,
                 gain)


def _draw_process(rng, level, side, spread, vertebra, tilt) -> tuple[Bone, Bone]:
  """A thoracic process and the rib that leaves it."""
  reach = side * spread * np.interp(level, [0, 4, 9, 10, 11], [212, 240, 226, 215, 190]) / 2
  y = vertebra[0] - reach * np.sin(np.radians(tilt)) + rng.normal(0, 5)
  x = vertebra[1] + reach * np.cos(np.radians(tilt)) + rng.normal(0, 5)
  process = Bone(
      PROCESS, side, (float(y), float(x)), drawing.normal(rng, 45, 5, 28, 60),
      drawing.normal(rng, 38, 5, 24, 52),
      turn=float(rng.normal(12, 10) - side * tilt),
      depth=drawing.normal(rng, 0.40, 0.12, 0.12, 0.70) * (0.75 if level < 2 else 1.0),
      soft=rng.uniform(0.20, 0.34), rank=rng.random())
  rise = np.interp(level, [2, 3, 8, 9, 10, 11], [-22, -12, -12, 0, 0, 30]) + rng.normal(0, 7)
  rib = Bone(
      RIB, side, (float(y) - 8, float(x) + 22 * side), drawing.normal(rng, 36, 4, 24, 48),
      30.0, turn=float(rise - side * tilt), depth=drawing.normal(rng, 0.58, 0.13, 0.20, 0.85),
      soft=rng.uniform(0.16, 0.30))
  return process, rib


def _draw_lump(rng, index, vertebra, tilt) -> Bone:
  return Bone(
      LUMP, 1, tuple((vertebra + rng.normal(0, 4, 2)).tolist()),
      drawing.normal(rng, (42, 43, 45, 43, 41)[index], 2, 40, 46),
      drawing.normal(rng, (130, 134, 137, 138, 137)[index], 3, 128, 140),
      turn=float(rng.normal(0, 1.5) - tilt), depth=drawing.normal(rng, 0.84, 0.07, 0.50, 0.94),
      soft=rng.uniform(0.16, 0.28), rank=rng.random(), bend=rng.uniform(0.45, 0.8),
      roof=rng.uniform(0.35, 0.6))


def _outline(bone: Bone, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Implicit shape f of a bone, the power _POWER of a radius, below 1 inside."""
  power = _POWER[bone.kind]
  a, b = a / bone.half_width, b / bone.half_height
  if bone.kind == RIB:
    return np.abs(b)**power + np.maximum(-a, 0)**power
  q = np.abs(a)
  if bone.kind == LUMP:
    b = b + bone.bend * (0.25 - np.minimum(q, 1.3)**2)
    b = np.where(b < 0, b / (1 + bone.roof * (1 - np.minimum(q, 1))), b)
  return q**power + np.abs(b)**power


def _stamp(bone: Bone, y: np.ndarray, x: np.ndarray) -> Stamp:
  low, high = (-60, 220) if bone.kind == RIB else (-1.8 * bone.half_width, 1.8 * bone.half_width)
  tall = bone.half_height * (2.8 if bone.kind == LUMP else 1.9)
  cos, sin = np.cos(np.radians(bone.turn)), np.sin(np.radians(bone.turn))
  middle = (bone.center[0] + sin * (low + high) / 2,
            bone.center[1] + bone.side * cos * (low + high) / 2)
  reach = (abs(sin) * (high - low) / 2 + abs(cos) * tall,
           abs(cos) * (high - low) / 2 + abs(sin) * tall)
  window, (dy, dx) = drawing.window(bone.center, middle, reach, (y, x))
  a, b = drawing.rotate(dy, bone.side * dx, bone.turn)
  depth = np.float32(bone.depth)
  if bone.kind == RIB:
    depth = depth * (0.7 + 0.4 * (a / 60).clip(0, 1))
  if bone.kind == LUMP:
    depth = depth * (0.9 + 0.1 * (b / bone.half_height).clip(-1, 1))
  return Stamp(bone, window, _outline(bone, a, b), depth)


def _draw_label(stamps: Sequence[Stamp], fov: np.ndarray) -> np.ndarray:
  label = np.zeros(fov.shape, np.uint8)
  for stamp in stamps:
    inside = (stamp.f < 1) & fov[stamp.window]
    if stamp.bone.kind == RIB:
      inside &= label[stamp.window] == BACKGROUND
    label[stamp.window][inside] = stamp.bone.kind
  return label


def _draw_tissue(rng: np.random.Generator, anatomy: Anatomy, stamps: Sequence[Stamp],
                 y: np.ndarray, x: np.ndarray, difficulty: float) -> np.ndarray:
  """Amplitude float32 [H,W] of muscle, spinous column, bones and false bones, before noise."""
  mottle = sum(sd * drawing.texture(rng, (y, x), sigma, SCANNER_SHAPE) for sd, sigma in MOTTLING)
  lumbar = np.interp(y, [0.62 * _H, 0.8 * _H], [1, 1.6]).astype(np.float32)
  mottle = np.exp(difficulty * lumbar * mottle)
  amplitude = mottle * _muscle(anatomy, y, x)
  for _ in range(rng.poisson(FALSE_BONES * difficulty)):
    row, column = rng.uniform((0.04 * _H, -180), (0.97 * _H, 180)).tolist()
    column += float(np.interp(row, _ROWS, anatomy.edges.mean(0)))
    blob = Bone(PROCESS, 1, (row, column), rng.uniform(8, 26), rng.uniform(8, 30),
                turn=rng.uniform(-40, 40), depth=rng.uniform(0.10, 0.35), soft=0.3)
    stamps = [_stamp(blob, y, x), *stamps]
  for bone, window, f, depth in stamps:
    if bone.rank < FAINT[bone.kind] * difficulty:
      depth = 0.35 * depth
    radius = (f * mottle[window])**(1 / _POWER[bone.kind])
    t = (0.5 + (0.95 - radius) / (4.4 * bone.soft)).clip(0, 1)
    amplitude[window] *= 1 - depth * (t * t * (3 - 2 * t))
  return amplitude


def _muscle(anatomy: Anatomy, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Bright muscle along the strip with the spinous column and the fading edges, float32 [H,W]."""
  v = _ROWS / _H
  envelope = np.interp(v, [0, 0.15, 0.45, 0.6, 0.72, 0.84, 0.93, 1.0],
                       [0.55, 0.86, 1.02, 0.95, 0.82, 0.62, 0.36, 0.10]) * anatomy.gain
  depth = np.interp(v, [0, 0.1, 0.35, 0.6, 0.75, 1], [0.88, 0.84, 0.62, 0.74, 0.86, 0.90])
  width = np.interp(v, [0, 0.1, 0.3, 0.6, 0.75, 1], [36, 34, 26, 28, 32, 40])
  near = np.exp(-((_ROWS[:, None] - anatomy.vertebrae[:, 0]) / 32)**2)
  depth = (depth * (1 + near @ anatomy.beads[:, 0])).clip(0, 0.96)
  width = width * (1 + near @ anatomy.beads[:, 1])

  at = lambda profile: np.interp(y, _ROWS, profile).astype(np.float32)
  x = x.astype(np.float32)
  off = np.abs(x - at(anatomy.axis))
  muscle = 1 + 0.12 * np.exp(-((off - 60) / 55)**2) - 0.10 * (off / 200)**2
  muscle *= at(envelope) * (1 - at(depth) * np.exp(-0.5 * (off / at(width))**2))
  for side, edge, width in zip((1, -1), anatomy.edges, anatomy.contact):
    muscle /= 1 + (at(width) / np.maximum(side * (x - at(edge)), 1))**2
  return muscle


def _draw_sweep(rng: np.random.Generator, shape: tuple[int, ...], difficulty: float) -> Sweep:
  """Frames 0.62 px apart with 15 % jitter, further apart in Poisson(1.3 difficulty) episodes."""
  height, width = shape
  episodes = rng.poisson(GAPS * difficulty)
  centers, lengths = rng.uniform(0.08, 0.95, episodes), rng.uniform(5, 28, episodes)
  gaps, gray = rng.uniform(0.3, 1.0, episodes), rng.uniform(0, 0.08)
  tilt = rng.choice([-1, 1]) * rng.uniform(0.8, 3) + rng.uniform(0.3, 1) * _wander(rng, 150)

  rows = np.arange(height) + 0.5
  distance = (rows[:, None] * (_H / height) - centers * _H) / lengths
  spacing = 0.62 + np.exp(-0.5 * distance**2) @ gaps
  count = np.append(0, np.cumsum(1 / spacing))
  steps = np.cumsum(1 + 0.15 * rng.standard_normal(int(count[-1])))
  frames = np.interp(steps, count, np.arange(height + 1) - 0.5)
  slopes = np.interp(frames * (_H / height), _ROWS, np.tan(np.radians(tilt)))
  return Sweep(frames, slopes * (_W / width) / (_H / height), episodes > 0, gray)


def _holes(sweep: Sweep, shape: tuple[int, ...]) -> np.ndarray:
  """Pixels that no frame's line rounds to, bool [H,W]."""
  holes = np.zeros(shape, bool)
  if not sweep.sparse:
    return holes
  apart = np.flatnonzero(np.diff(sweep.rows) > 0.75)
  columns = np.arange(shape[1]) - (shape[1] - 1) / 2
  line = lambda i: np.rint(sweep.rows[i, None] + sweep.slopes[i, None] * columns).astype(int)
  above, missed = line(apart), line(apart + 1) - line(apart) - 1
  for k in range(1, 1 + missed.max(initial=0)):
    frame, column = np.nonzero((missed >= k) & (above + k >= 0) & (above + k < shape[0]))
    holes[above[frame, column] + k, column] = True
  return holes


def _row_gain(rng: np.random.Generator, sweep: Sweep, shape: tuple[int, ...],
              difficulty: float) -> np.ndarray:
  """Gain along the frames, float32 [H,W]: 2 % a row and 4.5 % in streaks, more where sparse."""
  height, width = shape
  spacing = np.interp(np.arange(height), sweep.rows[1:], np.diff(sweep.rows)).astype(np.float32)
  gain = 0.02 * rng.standard_normal((height, 1), dtype=np.float32)
  streaks = drawing.spline((np.arange(width) + 0.5) * (_W / width), 40, _W)
  streaks = rng.standard_normal((height, streaks.shape[1]), dtype=np.float32) @ streaks.T
  gain = 1 + (gain + 0.045 * streaks) * (spacing[:, None] * np.float32(difficulty / 0.62))
  slope = np.interp(np.arange(height), sweep.rows, sweep.slopes)[:, None]
  rows = np.arange(height)[:, None] - slope * (np.arange(width) - (width - 1) / 2)
  return np.take_along_axis(gain, np.rint(rows).astype(int).clip(0, height - 1), 0)


def _tone_curve(amplitude: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """Histogram equalization to 0..255 by the distribution of a sample of amplitudes."""
  step = max(1, amplitude.size // 20000)
  levels = np.quantile(amplitude[::step], np.linspace(0, 1, 129))
  top = max(float(levels[-1]), 1e-6)
  table = np.interp(np.linspace(0, top, 4096), levels, np.linspace(0, 255, 129))
  table = np.rint(table).astype(np.uint8)
  return lambda a: table[(a * np.float32(4095 / top)).clip(0, 4095).astype(np.int32)]


def _in_view(anatomy: Anatomy, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Whether positions lie in the swept strip; bool, of their broadcast shape."""
  left, right = (np.interp(y, _ROWS, edge) for edge in anatomy.edges)
  top, bottom = (row + slope * (x - _W / 2) for row, slope in anatomy.cuts)
  return (x > left) & (x < right) & (y > top) & (y < bottom)


def _truth(anatomy: Anatomy, shape: tuple[int, ...]) -> dict[str, Any]:
  """The part of the truth that the anatomy decides, in pixels of `shape`."""
  spine = anatomy.spine
  seen = _in_view(anatomy, *np.moveaxis(anatomy.processes, -1, 0))
  processes = np.where(seen[..., None], anatomy.processes, np.nan)
  lumps = np.stack([_lump_halves(bone) for bone in anatomy.bones if bone.kind == LUMP])
  pairs = np.concatenate([processes, lumps])
  dy, dx = np.moveaxis(pairs[:, 1] - pairs[:, 0], -1, 0)
  found = np.flatnonzero(np.isfinite(dy))
  lines = -np.degrees(np.arctan2(dy, dx))[found]
  to_pixels = lambda points: points * (np.array(shape) / SCANNER_SHAPE) - 0.5
  return {
      'family': spine.family, 'levels': curves.LEVELS, 'tilts': spine.tilts,
      'cobb': curves.curve_angles(spine.tilts),
      'uca': curves.curve_angles(lines, [curves.LEVELS[i] for i in found]),
      'ends': tuple(curves.LEVELS[i] for i in spine.ends), 'requested': spine.angles,
      'vertebrae': to_pixels(anatomy.vertebrae), 'processes': to_pixels(processes),
      'lumps': to_pixels(lumps.mean(1)), 'lump_halves': to_pixels(lumps)}


def _lump_halves(bone: Bone) -> np.ndarray:
  """Centroids (y, x) of the left and right half of a lump, [2, 2] in scanner pixels."""
  b, a = np.mgrid[-110:110:2, 1:170:2].astype(np.float32)
  inside = _outline(bone, a, b) < 1
  a, b = a[inside].mean(dtype=float), b[inside].mean(dtype=float)
  angle = np.radians(bone.turn)
  return np.array(bone.center) + np.array([
      (s * a * np.sin(angle) + b * np.cos(angle), s * a * np.cos(angle) - b * np.sin(angle))
      for s in (-1, 1)])


def _wander(rng: np.random.Generator, sigma: float) -> np.ndarray:
  """Smooth noise of variance 1 along the scanner's rows, [2560]."""
  if sigma < 10:
    return drawing.smooth(rng.standard_normal(_H), sigma, 0)
  basis = drawing.spline(_ROWS, sigma * 3**0.5, _H)
  return basis.astype(float) @ rng.standard_normal(basis.shape[1])
