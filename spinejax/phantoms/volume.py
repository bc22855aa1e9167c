"""Phantom 3-D ultrasound volumes of the spine with exact truth.

Everything is laid out in millimeters from the corner of the volume and evaluated at the centers
of the voxels asked for. Axis 0 runs down the spine, axis 1 towards the patient's left, axis 2
from the skin of the back into the depth. Anatomy, tissue, speckle, sweep and annotation come from
five separate random streams: one seed is one patient at every resolution and difficulty. Laminae
are bright plates with a shadow behind, in pairs beside the dark column of the spinous processes.
A phantom is not clinical data.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, ndtr

from spinejax.phantoms import curves, drawing

SHAPE = (384, 96, 48)
SPACING = (1.20, 0.90, 0.95)
MIN_SHAPE = (48, 16, 8)
THORACIC, LUMBAR = 0, 1

Case = dict[str, Any]

ANNOTATION_NOISE = 0.5  # voxels
LOOKS = 3
POINT_SPREAD = (0.0, 0.68, 0.43)  # mm; frames are independent
DYNAMIC_RANGE = 45.0  # dB below FULL_SCALE
FULL_SCALE = 1.2
MUSCLE = 0.055
NOISE_FLOOR = 0.012
DROPPED_FRAMES = 1.2
MISSED = (0.02, 0.18)  # probability down to T11 and at L5
MISSED_ECHO = 0.15
MARGIN = 16.0  # mm from the centered column of the spine to the sides, at least

# Level index -> half the distance between the two laminae, mm.
_HALF_DISTANCE = ((0, 3, 8, 12, 16), (10.5, 9.0, 8.8, 10.0, 12.5))
# u -> depth of the laminae, mm.
_DEPTH = PchipInterpolator([0, 0.12, 0.35, 0.58, 0.75, 0.9, 1], [15, 12, 9.5, 12, 19, 24, 25])


class Plate(NamedTuple):
  """An elliptic reflector in mm, with the shadow below it.

  Attributes:
    center: [3] position.
    half_length, half_width: along and across the spine.
    thickness: standard deviation of the echo in depth.
    echo: amplitude; muscle has 0.055.
    turn: tilt of the length in the coronal plane, degrees as in `curves`.
    slopes: depth gained per mm down the spine and per mm towards growing axis 1.
    shadow: fraction of the amplitude lost below.
  """
  center: np.ndarray
  half_length: float
  half_width: float
  thickness: float
  echo: float
  turn: float
  slopes: tuple[float, float]
  shadow: float


class Anatomy(NamedTuple):
  """One patient in mm; profiles are sampled at spine.path_u.

  Attributes:
    spine: the curve, seen with the patient's left on the right.
    extent: size of the volume.
    rows: [1201] position along axis 0.
    column: [1201] position of the spinous column along axis 1.
    depth: [1201] depth of the laminae.
    rotation: [17] axial rotation, degrees.
    laminae: [34] plates, level by level, the smaller axis 1 first.
    ranks: [34] uniform in [0, 1]; the lowest laminae lose their echo.
    spread: [34] standard normal; how the echo deviates from the mean of its level.
    spines: [17] tips of the spinous processes.
    distractors: transverse processes or facets, and ribs, with the fraction of the echo of the
      lamina beside them.
    neighbors: [len(distractors)] index of that lamina.
  """
  spine: curves.Spine
  extent: tuple[float, float, float]
  rows: np.ndarray
  column: np.ndarray
  depth: np.ndarray
  rotation: np.ndarray
  laminae: tuple[Plate, ...]
  ranks: np.ndarray
  spread: np.ndarray
  spines: tuple[Plate, ...]
  distractors: tuple[Plate, ...]
  neighbors: tuple[int, ...]


def volume(seed: int | Sequence[int], shape: tuple[int, ...] = SHAPE,
           difficulty: float = 1.0, speckle: drawing.Speckle | None = None, *,
           family: str | None = None) -> Case:
  """Draws one 3-D ultrasound phantom with its 34 laminae.

  gray = 255 (1 + dB / 45) with dB = 20 log10(amplitude / 1.2), then gain and dropped frames.

  The labels are those of C-U-net (Wong et al., 2021): cubes of 3 x 3 x 3 voxels about the
  landmarks as an annotator would have placed them, N(0, 0.5 voxel) per axis away and at most 1,
  rounded to the grid and clipped at its border. Cubes keep a voxel between them: two that would
  touch step apart in the coronal plane. This happens at about a quarter of the full shape and
  below; a grid of fewer than 4 x 17 rows has no room for that, and cubes merge.

  Args:
    seed: a non-negative integer or several, such as (base, split, index); trailing zeros do not
      count, (7, 0, 0) is 7.
    shape: (D, H, W) of the volume, at least 48 x 16 x 8.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. Scales speckle, gain, noise floor, missed
      laminae, false plates and dropped frames; anatomy, landmarks and label stay.
    speckle: `speckle(rng, amplitude, spacing) -> amplitude` in place of `envelope_speckle`;
      amplitude is float32 [D,H,W] before log compression, spacing mm per voxel and axis.
    family: curve pattern, a key of curves.FAMILIES; drawn by probability when None.

  Returns:
    P = 34 laminae run level by level, T1..T12, L1..L5, the one at the smaller index of axis 1
    (the patient's right) first; voxel centers are at whole numbers.
    image: uint8 [D,H,W].
    label: uint8 [D,H,W], 1 = lamina.
    landmarks: float32 [P,3], exact centers of the laminae in voxels.
    region: int8 [P], 0 thoracic, 1 lumbar.
    side: int8 [P], -1 patient's right, 1 left.
    level: int8 [P], index into curves.LEVELS.
    visible: bool [P], False where the echo is gone.
    truth: angles in degrees, signed as in `curves` with x along axis 1: a curve convex to the
      patient's left is positive, so the common right thoracic curve is negative.
      family, levels [17], tilts [17], rotation [17] (axial; positive where the left side lies
      nearer the skin, and the convex side of a curve does); lines [17] (tilt of the
      center-of-lamina line through each pair of landmarks in the coronal plane); cobb and
      center_of_lamina: lists of curves.Curve by the extremes rule, from the tilts and from the
      lines; ends (levels) and requested (angles) as drawn; vertebrae [17,3] midpoints of the
      pairs and distractors [n,3] false plates, both in voxels; spacing [3] mm: 1.20 x 0.90 x 0.95
      at 384 x 96 x 48, more along axis 1 where a bent spine needs the room; seed, difficulty,
      shape.

  Raises:
    ValueError: an argument outside the above.
  """
  seeds = drawing.check_seed(seed)
  shape = drawing.check_shape(shape, MIN_SHAPE, 'three integers, depth, height and width')
  difficulty = drawing.check_difficulty(difficulty)
  streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seeds).spawn(5)]

  anatomy = _draw_anatomy(streams[0], family)
  spacing = tuple(float(e / n) for e, n in zip(anatomy.extent, shape))
  grid = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing)]
  visible = anatomy.ranks >= difficulty * np.repeat(_lumbar(*MISSED), 2)
  laminae, distractors = _set_echoes(anatomy, visible, difficulty)
  amplitude = _draw_tissue(streams[1], anatomy, grid)
  _add_plates(streams[1], amplitude, (*anatomy.spines, *laminae, *distractors), anatomy, grid)
  _attenuate(streams[1], amplitude, anatomy, grid)
  amplitude = np.sqrt(amplitude**2 + np.float32(NOISE_FLOOR * difficulty)**2)

  if speckle is not None:
    amplitude = drawing.apply_speckle(speckle, streams[2], amplitude, spacing)
  elif difficulty:
    amplitude = envelope_speckle(streams[2], amplitude, spacing, min(difficulty, LOOKS**0.5))
  image = _compress(amplitude)
  image *= _frame_gain(streams[3], grid[0], difficulty)

  points = np.array([plate.center for plate in anatomy.laminae]) / spacing - 0.5
  truth = _truth(anatomy, distractors, spacing) | {
      'spacing': np.array(spacing), 'seed': seed, 'difficulty': difficulty, 'shape': shape}
  level = np.arange(34, dtype=np.int8) // 2
  return {
      'image': np.rint(image.clip(0, 255)).astype(np.uint8),
      'label': _draw_label(streams[4], points, shape),
      'landmarks': points.astype(np.float32),
      'region': np.where(level < 12, THORACIC, LUMBAR).astype(np.int8),
      'side': np.tile(np.array([-1, 1], np.int8), 17),
      'level': level, 'visible': visible, 'truth': truth}


def mirror_volume(case: Case) -> Case:
  """The case seen in a mirror: axis 1 reversed, left and right swapped, angles negated."""
  truth, last = case['truth'], case['image'].shape[1] - 1
  reflect = lambda points: points * np.array([1, -1, 1], points.dtype) + np.array(
      [0, last, 0], points.dtype)
  swap = lambda values: np.ascontiguousarray(
      values.reshape(17, 2, *values.shape[1:])[:, ::-1]).reshape(values.shape)
  negate = lambda found: [curve._replace(angle=-curve.angle) for curve in found]
  mirrored = {name: -truth[name] for name in ('tilts', 'rotation', 'lines', 'requested')}
  mirrored |= {name: negate(truth[name]) for name in ('cobb', 'center_of_lamina')}
  mirrored |= {name: reflect(truth[name]) for name in ('vertebrae', 'distractors')}
  return case | {
      'image': np.ascontiguousarray(case['image'][:, ::-1]),
      'label': np.ascontiguousarray(case['label'][:, ::-1]),
      'landmarks': swap(reflect(case['landmarks'])), 'visible': swap(case['visible']),
      'truth': truth | mirrored}


def localizer_dice(noise: float | np.ndarray) -> np.ndarray:
  """Expected Dice of a perfect localizer against cubes of noisy annotation.

  Both draw 3 x 3 x 3 cubes, the localizer about the exact centroid, the annotator N(0, noise)
  away from it per axis, both rounded to the grid. A centroid lies anywhere between voxel centers,
  so the expected overlap per axis is that of intervals shifted by the noise itself, and
  Dice = E[max(0, 1 - |n| / 3)]^3. No network can be expected to reach more.

  Args:
    noise: standard deviation in voxels, any shape, at least 0.

  Returns:
    float64, shape of noise: 1 at 0; 0.65, 0.54 and 0.40 at 0.5, 0.7 and 1.
  """
  noise = np.asarray(noise, np.float64)
  if not (noise >= 0).all():
    raise ValueError(f'noise must be a number of voxels of at least 0, not {noise}')
  reach = 3 / np.maximum(noise, 1e-9)
  mean = (2 / np.pi)**0.5 * -np.expm1(-0.5 * reach**2)
  return (2 * ndtr(reach) - 1 - mean / reach)**3


def envelope_speckle(rng: np.random.Generator, amplitude: np.ndarray, spacing: Sequence[float],
                     strength: float = 1.0, looks: int = LOOKS) -> np.ndarray:
  """Speckle of averaged envelopes: amplitude * max(0, 1 + strength (e - 1)).

  e is the mean of `looks` independent |complex Gaussian noise * point spread|, scaled to mean 1.
  One look is fully developed speckle of mean / standard deviation 1.91; a volume shrunk threefold
  holds about three. Voxels coarser than the point spread keep the contrast, as after resizing by
  sampling.

  Args:
    rng: source of randomness.
    amplitude: float32 [D,H,W].
    spacing: mm per voxel and axis.
    strength: 0 for none, 1 for the looks as they are.
    looks: number averaged, at least 1.

  Returns:
    float32 [D,H,W].
  """
  envelope = np.zeros_like(amplitude)
  for _ in range(looks):
    power = np.zeros_like(amplitude)
    for _ in range(2):
      field = rng.standard_normal(amplitude.shape, dtype=np.float32)
      for axis, (sigma, step) in enumerate(zip(POINT_SPREAD, spacing)):
        field = drawing.smooth(field, sigma / step, axis)
      power += np.square(field, out=field)
    envelope += np.sqrt(power, out=power)
  envelope *= np.float32(strength / (looks * (np.pi / 2)**0.5))
  envelope += np.float32(1 - strength)
  return amplitude * np.maximum(envelope, 0, out=envelope)


def _lumbar(thoracic: float, lumbar: float) -> np.ndarray:
  """A value per level, [17]: thoracic down to T11, then changing linearly up to that of L5."""
  return np.interp(np.arange(17), [10, 16], [thoracic, lumbar])


def _draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  spine = curves.sample_curve(rng, family)
  spine = spine._replace(tilts=-spine.tilts, angles=-spine.angles, path_x=-spine.path_x,
                         path_tilts=-spine.path_tilts)
  height, _, thickness = (n * s for n, s in zip(SHAPE, SPACING))
  cranial, caudal = height * rng.uniform((0.01, 0.95), (0.04, 0.985))
  length = caudal - cranial
  u, path = spine.path_u, length * spine.path_x
  inside = (u >= 0) & (u <= 1)
  low, high = path[inside].min(), path[inside].max()
  width = max(SHAPE[1] * SPACING[1], high - low + 2 * MARGIN)
  path = path + width / 2 - (low + high) / 2 + drawing.normal(rng, 0, 1, -2, 2)
  depth = _DEPTH(u.clip(0, 1)) + drawing.normal(rng, 0, 1.2, -2.5, 2.5)

  turning = ndimage.gaussian_filter1d(-np.gradient(spine.path_tilts, u), 20)
  peak = min(rng.uniform(0.25, 0.45) * np.ptp(spine.tilts), 30.0)
  turning *= peak / max(np.abs(turning[inside]).max(), 1e-6)
  at = lambda profile: np.interp(spine.u, u, profile)
  rotation = at(turning)
  column = path - 7 * np.sin(np.radians(turning)) * np.cos(np.radians(spine.path_tilts))
  vertebrae = np.stack([cranial + spine.u * length, at(path), at(depth)], -1)

  laminae, spines, distractors, neighbors = _draw_plates(rng, vertebrae, spine.tilts, rotation)
  return Anatomy(
      spine, (height, width, thickness), cranial + u * length, column, depth, rotation, laminae,
      rng.random(34), rng.standard_normal(34), spines, distractors, neighbors)


def _draw_plates(rng, vertebrae, tilts, rotation):
  """Laminae, spinous processes, distractors and their neighbors, as in Anatomy."""
  halves = np.interp(np.arange(17), *_HALF_DISTANCE) * (1 + 0.03 * rng.standard_normal(17))
  laminae, spines, distractors, neighbors = [], [], [], []
  for i, (vertebra, t, r, half) in enumerate(zip(vertebrae, tilts, rotation, halves)):
    place = functools.partial(_place, vertebra, t, r)
    lumbar = i >= 12
    for side in (-1, 1):
      center = place(side * half, 0, 0) + rng.normal(0, (0.4, 0.35, 0.3))
      laminae.append(Plate(
          center, rng.uniform(6, 8.5), rng.uniform(4, 5.5), 1.35, 1.0, t,
          _slopes(-rng.uniform(4, 14), side * rng.uniform(3, 9) - r), 0.85))
      lateral, deep = half + rng.uniform(13, 14), rng.uniform(*((5, 9) if lumbar else (2, 5)))
      distractors.append(Plate(
          place(side * lateral, -deep, rng.normal(0, 2)), rng.uniform(4, 6), rng.uniform(4, 6),
          0.9, rng.uniform(0.12, 0.5), t, _slopes(rng.uniform(-10, 10), side * 12 - r), 0.85))
      if not lumbar:
        distractors.append(Plate(
            place(side * (half + 26), -rng.uniform(0, 4), rng.normal(2, 2)), 4.0, 9.0, 0.9,
            rng.uniform(0.12, 0.5), t + side * 15, _slopes(0, side * 8 - r), 0.9))
      neighbors += [len(laminae) - 1] * (1 if lumbar else 2)
    spines.append(Plate(
        place(0, rng.uniform(6, 8), 4), 8.0, 1.6, 0.7, 0.1 * rng.uniform(0.4, 1.1), t,
        _slopes(-5, -r), 0.8))
  return tuple(laminae), tuple(spines), tuple(distractors), tuple(neighbors)


def _place(vertebra: np.ndarray, tilt: float, rotation: float, lateral: float, posterior: float,
           down: float) -> np.ndarray:
  """Position [3] in mm of a point given in the frame of a tilted and rotated vertebra."""
  t, r = np.radians(tilt), np.radians(rotation)
  across = lateral * np.cos(r) - posterior * np.sin(r)
  return vertebra + [down * np.cos(t) - across * np.sin(t), down * np.sin(t) + across * np.cos(t),
                     -lateral * np.sin(r) - posterior * np.cos(r)]


def _slopes(down: float, across: float) -> tuple[float, float]:
  return float(np.tan(np.radians(down))), float(np.tan(np.radians(across)))


def _set_echoes(anatomy: Anatomy, visible: np.ndarray,
                difficulty: float) -> tuple[list[Plate], list[Plate]]:
  """The laminae and distractors with the amplitudes they have at this difficulty.

  A lamina's is lognormal, lower and more spread in the lumbar part, and less where the plate
  does not face the probe.
  """
  spread = np.repeat(_lumbar(0.22, 0.22 + 0.30 * difficulty), 2)
  echo = np.repeat(_lumbar(1.25, 0.90), 2) * np.exp(spread * anatomy.spread)
  steep = np.array([np.degrees(np.arctan(plate.slopes[1])) for plate in anatomy.laminae])
  echo = echo.clip(0.25, 2.2) * np.exp(-0.5 * (steep / 30)**2)
  echo = np.where(visible, echo, MISSED_ECHO * echo)
  laminae = [p._replace(echo=float(e)) for p, e in zip(anatomy.laminae, echo)]
  if not difficulty:
    return laminae, []
  false = [p._replace(echo=float(min(difficulty * p.echo, 0.9) * echo[n]))
           for p, n in zip(anatomy.distractors, anatomy.neighbors)]
  return laminae, false


def _draw_tissue(rng: np.random.Generator, anatomy: Anatomy,
                 grid: Sequence[np.ndarray]) -> np.ndarray:
  """Amplitude float32 [D,H,W] of muscle with two or three sheets of fascia."""
  draw = lambda *sigma: drawing.texture(rng, grid[:len(sigma)], sigma, anatomy.extent)
  tissue = 0.30 * draw(9.6, 4.5, 3.8)
  tissue += 0.25 * draw(19, 9, 2.4)
  tissue = np.exp(tissue, out=tissue)
  tissue *= np.float32(MUSCLE)
  near = grid[2][grid[2] < 16].astype(np.float32)
  for _ in range(rng.integers(2, 4)):
    depth = np.float32(rng.uniform(1, 8)) + np.float32(1.6) * draw(30, 25)
    echo = np.float32(0.08 * rng.uniform(0.5, 1.2)) * np.exp(np.float32(0.4) * draw(12, 6))
    off = (near - depth[:, :, None]) / np.float32(0.7)
    tissue[:, :, :len(near)] += echo[:, :, None] * np.exp(-0.5 * off.clip(-9, 9)**2)
  return tissue


def _add_plates(rng: np.random.Generator, amplitude: np.ndarray, plates: Sequence[Plate],
                anatomy: Anatomy, grid: Sequence[np.ndarray]) -> None:
  """Adds the echoes and multiplies by the shadows of all plates, in place.

  The bone is rough: one smooth field over the coronal plane bends outlines and varies echoes.
  """
  rough = np.exp(0.25 * drawing.texture(rng, grid[:2], (3.0, 2.4), anatomy.extent))[:, :, None]
  bottom, step = grid[2][-1], grid[2][1] - grid[2][0]
  transmission = np.ones_like(amplitude)
  for plate in plates:
    reach = 1.7 * max(plate.half_length, plate.half_width)
    top = plate.center[2] - reach * np.abs(plate.slopes).sum() - 4
    window, (dz, dx, dd) = drawing.window(
        plate.center, (*plate.center[:2], (top + bottom) / 2),
        (reach, reach, (bottom - top) / 2 + step), grid)
    across, down = drawing.rotate(dz, dx, -plate.turn)
    radius = np.hypot(across / plate.half_width, down / plate.half_length)
    foot = expit((1 - radius * rough[window[:2]]**-0.4) / 0.15)
    off = dd - (plate.slopes[0] * down + plate.slopes[1] * across)
    sigma = np.hypot(plate.thickness, step / 12**0.5)
    echo = np.exp(-0.5 * (off / sigma).clip(-9, 9)**2)
    amplitude[window] += plate.echo * plate.thickness / sigma * foot * rough[window[:2]] * echo
    transmission[window] *= 1 - plate.shadow * foot * (off / 2.4).clip(0, 1)
  amplitude *= transmission


def _attenuate(rng: np.random.Generator, amplitude: np.ndarray, anatomy: Anatomy,
               grid: Sequence[np.ndarray]) -> None:
  """Multiplies by the dark spinous column and by the attenuation with depth, in place."""
  at = lambda profile: np.interp(grid[0], anatomy.rows, profile)
  wander = lambda sigma: drawing.texture(rng, grid[:1], (sigma,), anatomy.extent)
  u = at(anatomy.spine.path_u)
  width = np.interp(u, [0, 0.5, 0.7, 1], [2.6, 2.2, 2.8, 3.6]) * np.exp(0.2 * wander(8))
  column = at(anatomy.column) + 0.5 * wander(10)
  shade = (0.75 + 0.12 * wander(7)).clip(0.4, 0.95)[:, None]
  shade = shade * np.exp(-0.5 * ((grid[1] - column[:, None]) / width[:, None])**2)
  onset = 0.3 + 0.7 * expit((grid[2] - at(anatomy.depth)[:, None] + 7) / 1.2)
  amplitude *= 1 - (shade.astype(np.float32)[:, :, None]
                    * onset.astype(np.float32)[:, None, :])
  loss = np.interp(u, [0, 0.55, 0.75, 1], [0.045, 0.040, 0.065, 0.085])
  amplitude *= np.exp(-loss[:, None] * grid[2]).astype(np.float32)[:, None, :]


def _compress(amplitude: np.ndarray) -> np.ndarray:
  """Gray levels float32, 0 at -45 dB and 255 at full scale."""
  gray = np.log(np.maximum(amplitude, 1e-6))
  gray *= np.float32(255 / DYNAMIC_RANGE * 20 / np.log(10))
  gray += np.float32(255 - 255 / DYNAMIC_RANGE * 20 * np.log10(FULL_SCALE))
  return gray.clip(0, 255, out=gray)


def _frame_gain(rng: np.random.Generator, rows: np.ndarray, difficulty: float) -> np.ndarray:
  """Gain of each frame, float32 [D,1,1]: 3 %, and Poisson(1.2 difficulty) dropped stretches."""
  dropped = rng.poisson(DROPPED_FRAMES * difficulty)
  starts = rng.uniform(0.01, 0.98, dropped) * SHAPE[0] * SPACING[0]
  lengths, left = rng.integers(1, 3, dropped) * SPACING[0], rng.uniform(0, 0.4, dropped)
  gain = 1 + 0.03 * difficulty * rng.standard_normal(len(rows))
  for start, length, rest in zip(starts, lengths, left):
    gain[(rows >= start) & (rows < start + length)] *= rest
  return gain.clip(0).astype(np.float32)[:, None, None]


def _draw_label(rng: np.random.Generator, points: np.ndarray,
                shape: tuple[int, ...]) -> np.ndarray:
  """Cubes about the points [34,3] as annotated, kept a voxel apart from 4 x 17 rows on."""
  noise = (ANNOTATION_NOISE * rng.standard_normal(points.shape)).clip(-1, 1)
  last = np.array(shape) - 1
  centers = np.rint(points + noise).clip(0, last)
  steps = np.zeros(len(points))
  for _ in range(4 * len(points) if shape[0] >= 4 * 17 else 0):
    distance = np.abs(centers[:, None] - centers).max(-1)
    touching = np.argwhere(np.triu(distance < 4, 1))
    if not len(touching):
      break
    for pair in touching:
      _step_apart(centers, steps, points, pair, last)
  label = np.zeros(shape, np.uint8)
  for center in centers.astype(int):
    label[tuple(slice(max(c - 1, 0), c + 2) for c in center)] = 1
  return label


def _step_apart(centers: np.ndarray, steps: np.ndarray, points: np.ndarray, pair: np.ndarray,
                last: np.ndarray) -> None:
  """Moves one center of a pair a voxel away from the other and counts its step, in place.

  It moves in the coronal plane along the axis in which the points lie farther apart. The one
  moves that stays nearer its point and has moved less often, so that a row of cubes spreads.
  """
  apart = points[pair[1], :2] - points[pair[0], :2]
  axis = int(np.abs(apart).argmax())
  target = centers[pair, axis] + np.copysign(1, apart[axis]) * np.array([-1, 1])
  inside = target.clip(0, last[axis])
  strain = np.abs(target - points[pair, axis]) + steps[pair] + 1e3 * (target != inside)
  mover = int(strain.argmin())
  centers[pair[mover], axis] = inside[mover]
  steps[pair[mover]] += 1


def _truth(anatomy: Anatomy, distractors: Sequence[Plate],
           spacing: Sequence[float]) -> dict[str, Any]:
  """The part of the truth that the anatomy decides."""
  spine = anatomy.spine
  pairs = np.array([plate.center for plate in anatomy.laminae]).reshape(17, 2, 3)
  down, right, _ = (pairs[:, 1] - pairs[:, 0]).T
  lines = -np.degrees(np.arctan2(down, right))
  to_voxels = lambda points: np.reshape(points, (-1, 3)) / spacing - 0.5
  return {
      'family': spine.family, 'levels': curves.LEVELS, 'tilts': spine.tilts,
      'rotation': anatomy.rotation, 'lines': lines, 'cobb': curves.curve_angles(spine.tilts),
      'center_of_lamina': curves.curve_angles(lines),
      'ends': tuple(curves.LEVELS[i] for i in spine.ends), 'requested': spine.angles,
      'vertebrae': to_voxels(pairs.mean(1)),
      'distractors': to_voxels([plate.center for plate in distractors])}
