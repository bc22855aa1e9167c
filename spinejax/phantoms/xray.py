"""Phantom posteroanterior X-rays of the spine with exact truth.

Everything is laid out in millimeters, x from the middle of the picture and y from the top of a
field 480 mm high, and evaluated at the centers of the pixels asked for. The patient is seen from
behind, as surgeons look at scoliosis: the patient's right on the image's right, the heart on the
left. Anatomy, tissue, photons and artifacts come from four separate random streams, and only
photons are drawn per pixel: one seed is one patient at every resolution and difficulty. A phantom
is not clinical data.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, drawing

FIELD_HEIGHT = 480.0  # mm
FIELD_WIDTH = 120.0  # mm, at least
TEXTURE_EXTENT = (FIELD_HEIGHT, FIELD_HEIGHT)  # mm; beyond, its edge goes on
SPACING = 0.4  # mm per pixel at 1200 rows
MIN_SHAPE = (64, 16)
BACKGROUND, SPINE, BORDER = range(3)
BORDER_WIDTH = 3.375  # mm: 3 of 160 columns of a picture 180 mm wide
ARTIFACTS = {'necklace': 0.10, 'rods': 0.10, 'organ': 0.15, 'blur': 0.12}

Case = dict[str, Any]

PHOTONS = 2000
SCATTER, SCATTER_SIGMA = 0.35, 24.0  # fraction, mm
BLUR, MOTION_BLUR = 0.8 * SPACING, 1.3  # mm
# Standard deviation of the attenuation of the belly and its scale (y, x) in mm.
MOTTLING = ((0.05, (16, 18)), (0.035, (5, 6)))
BODY_HEIGHT = 0.78  # of the distance between two levels
BODY, DISC, PEDICLE, SPINOUS = 0.55, 0.25, 0.15, 0.12  # attenuation, in powers of e

# Half widths of the end plates T1..L5, mm (adult means).
HALF_WIDTHS = np.array([
    14.0, 13.0, 12.4, 12.4, 12.8, 13.4, 14.0, 14.7, 15.5, 16.3, 17.5, 18.8,
    20.0, 21.0, 22.0, 23.0, 23.6])

# Per rib T1..T12: reach from the midline and drop to the side of the chest in mm, end in degrees.
_RIB_REACH = np.array([50, 76, 94, 106, 114, 120, 124, 127, 128, 124, 112, 90.0])
_RIB_DROP = np.array([16, 27, 36, 44, 51, 58, 64, 70, 74, 76, 80, 70.0])
_RIB_END = np.array([125, 135, 140, 142, 144, 145, 145, 140, 128, 112, 66, 58.0])

# Bone of T1..L5 relative to L5: the chest hides that of its own.
_STRENGTH = np.interp(np.arange(17), [0, 4, 11, 16], [0.80, 0.72, 0.90, 1.0])

_LETTERS = {
    'R': ((0, 0, 0, 2), (0, 0, 1, 0), (1, 0, 1, 1), (0, 1, 1, 1), (0.4, 1, 1, 2)),
    'L': ((0, 0, 0, 2), (0, 2, 1, 2))}

Point = tuple[float, float] | np.ndarray


class Grid(NamedTuple):
  """Pixel centers in mm: y [H], x [W], and the distance between two."""
  y: np.ndarray
  x: np.ndarray
  pixel: float


class Anatomy(NamedTuple):
  """One patient in mm; profiles are sampled at spine.path_u.

  Attributes:
    spine: the curve.
    rows, path: [1201] position (y, x) of the center of the spine.
    midline: [1201] x of the middle of the trunk.
    vertebrae: [17, 2] centers (y, x).
    half_widths, half_heights: [17] of the vertebral bodies.
    rotation: [17] axial rotation as the sideways shift of the posterior parts, half widths.
    size: sideways scale of the trunk.
    ribs: [12, 2] drop of the left and right ribs relative to the mean.
    domes: [2] u of the left and right domes of the diaphragm.
    heart: (y, x) relative to T8 and the midline, half height, half width, turn.
    crest: u of the iliac crests.
    density: factor of all bone.
    thickness: factor of soft tissue.
    marker: letter and side of the lead marker, or None.
  """
  spine: curves.Spine
  rows: np.ndarray
  path: np.ndarray
  midline: np.ndarray
  vertebrae: np.ndarray
  half_widths: np.ndarray
  half_heights: np.ndarray
  rotation: np.ndarray
  size: float
  ribs: np.ndarray
  domes: np.ndarray
  heart: np.ndarray
  crest: float
  density: float
  thickness: float
  marker: tuple[str, int] | None

  def at(self, u: float) -> float:
    """y of a fraction u of the spine."""
    return float(np.interp(u, self.spine.path_u, self.rows))

  def middle(self, y: np.ndarray | float) -> np.ndarray:
    """x of the middle of the trunk at y."""
    return np.interp(y, self.rows, self.midline)

  def along(self, y: np.ndarray) -> np.ndarray:
    """u of y, going on beyond the ends of the spine."""
    return (y - self.rows[0]) / (self.rows[-1] - self.rows[0]) * 1.2 - 0.1


def xray(seed: int | Sequence[int], shape: tuple[int, ...] = (1200, 450),
         difficulty: float = 1.0, *, family: str | None = None,
         artifacts: Sequence[str] | None = None) -> Case:
  """Draws one X-ray phantom: bright bones on what the rest of the trunk lets through.

  photons = Poisson(2000 T) per pixel of 0.4 mm, T = exp(-attenuation) + 0.35 of the same blurred
  by scatter; gray is a contrast curve of -log(photons) with the large scales compressed, as
  radiography stations show it.

  Pixels are square. The field is 480 mm high and as wide as the shape asks for, or 120 mm wide
  and taller where the shape is narrower than 1:4.

  Args:
    seed: a non-negative integer or several, such as (base, split, index); trailing zeros do not
      count, (7, 0, 0) is 7.
    shape: (H, W) of the picture, at least 64 x 16.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. Scales photon noise, mottling, bowel gas
      and the probability of each artifact, and above 1 the veil of scatter; anatomy and truth
      stay.
    family: curve pattern, a key of curves.FAMILIES; drawn by probability when None.
    artifacts: names from ARTIFACTS in place of those drawn by probability.

  Returns:
    image: uint8 [H,W].
    clean: uint8 [H,W], the same patient without artifacts and photon noise.
    label: uint8 [H,W] trimap of the bodies and discs T1..L5: 0 background, 1 core of the spine,
      2 border, a band 3.4 mm (at least two pixels) wide along the outline, half of it inside.
    truth: positions are (row, column) in pixels with pixel centers at integers; angles are
      degrees signed as in `curves`; levels run T1..T12, L1..L5.
      family, levels [17], tilts [17] of the bodies; cobb: list of curves.Curve by the extremes
      rule from the tilts, and centerline_cobb from the direction of the centerline; ends (levels)
      and requested (angles) as drawn; vertebrae [17,2]; landmarks [68,2], corners of the bodies
      in the order of AASCE: per level top left, top right, bottom left, bottom right; centerline
      [201,2] from the upper face of T1 to the lower face of L5, and centerline_tilts [201];
      rotation [17], shift of the spinous process in half widths, positive to the right; artifacts
      {name: bool}; spacing (y, x) mm per pixel; seed, difficulty, shape.

  Raises:
    ValueError: an argument outside the above.
  """
  seeds = drawing.check_seed(seed)
  shape = drawing.check_shape(shape, MIN_SHAPE, 'two integers, height and width')
  difficulty = drawing.check_difficulty(difficulty)
  forced = _check_artifacts(artifacts)
  streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seeds).spawn(4)]
  grid = _make_grid(shape)

  anatomy = _draw_anatomy(streams[0], family)
  ranks = dict(zip(ARTIFACTS, streams[3].random(len(ARTIFACTS))))
  present = {name: ranks[name] < p * difficulty if forced is None else name in forced
             for name, p in ARTIFACTS.items()}
  attenuation = _draw_trunk(streams[1], anatomy, grid, difficulty)
  _draw_ribs(attenuation, anatomy, grid)
  _draw_girdles(attenuation, anatomy, grid)
  column = _draw_spine(attenuation, anatomy, grid)
  _draw_marker(attenuation, anatomy, grid)
  clean = -np.log(_expose(attenuation, grid, SCATTER, BLUR))
  tone = _tone_curve(clean, grid)

  _draw_artifacts(streams[3], attenuation, anatomy, grid, present)
  blurred = present['blur']
  veil = SCATTER * (1 + max(difficulty - 1, 0) + 1.5 * blurred)
  light = _expose(attenuation, grid, veil, MOTION_BLUR if blurred else BLUR)
  if difficulty:
    photons = np.float32(PHOTONS * (grid.pixel / SPACING)**2 / difficulty**2)
    light = np.maximum(streams[2].poisson(light * photons), 1).astype(np.float32) / photons
  truth = _truth(anatomy, grid) | {
      'artifacts': present, 'spacing': (grid.pixel, grid.pixel), 'seed': seed,
      'difficulty': difficulty, 'shape': shape}
  return {'image': tone(-np.log(light)), 'clean': tone(clean),
          'label': _draw_label(column, grid), 'truth': truth}


def mirror_xray(case: Case) -> Case:
  """The case seen in a mirror: left and right swapped, angles negated."""
  truth, last = case['truth'], case['image'].shape[1] - 1
  reflect = lambda points: np.array([0, last]) + np.array([1, -1]) * points
  negate = lambda found: [curve._replace(angle=-curve.angle) for curve in found]
  corners = reflect(truth['landmarks']).reshape(17, 2, 2, 2)[:, :, ::-1]
  mirrored = {name: -truth[name] for name in ('tilts', 'requested', 'centerline_tilts', 'rotation')}
  mirrored |= {name: negate(truth[name]) for name in ('cobb', 'centerline_cobb')}
  mirrored |= {name: reflect(truth[name]) for name in ('vertebrae', 'centerline')}
  mirrored['landmarks'] = np.ascontiguousarray(corners).reshape(68, 2)
  arrays = {name: np.ascontiguousarray(array[:, ::-1])
            for name, array in case.items() if name != 'truth'}
  return arrays | {'truth': truth | mirrored}


def _check_artifacts(artifacts: Any) -> list[str] | None:
  if artifacts is None:
    return None
  try:
    names = [artifacts] if isinstance(artifacts, str) else list(artifacts)
  except TypeError:
    names = [artifacts]
  if not all(name in list(ARTIFACTS) for name in names):
    raise ValueError(f'artifacts must be names out of {", ".join(ARTIFACTS)}, not {artifacts!r}')
  return names


def _make_grid(shape: tuple[int, ...]) -> Grid:
  height, width = shape
  pixel = max(FIELD_HEIGHT / height, FIELD_WIDTH / width)
  y = (np.arange(height) + 0.5 - height / 2) * pixel + FIELD_HEIGHT / 2
  return Grid(y, (np.arange(width) + 0.5 - width / 2) * pixel, pixel)


def _draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  spine = curves.sample_curve(rng, family)
  cranial, caudal = FIELD_HEIGHT * rng.uniform((0.045, 0.88), (0.09, 0.94))
  length = caudal - cranial
  u = spine.path_u
  rows, path = cranial + u * length, length * spine.path_x
  inside = (u >= 0) & (u <= 1)
  path = path - (path[inside].min() + path[inside].max()) / 2 + drawing.normal(rng, 0, 4, -8, 8)
  midline = rng.uniform(0.3, 0.6) * ndimage.gaussian_filter1d(path, 250, mode='nearest')
  at = lambda profile: np.interp(spine.u, u, profile)
  size = drawing.normal(rng, 0.95, 0.06, 0.8, 1.1)
  heights = np.gradient(spine.u) * length
  turning = ndimage.gaussian_filter1d(-np.gradient(spine.path_tilts, u), 20)
  peak = min(rng.uniform(0.25, 0.45) * np.ptp(spine.tilts), 30.0)
  turning = at(turning * peak / max(np.abs(turning[inside]).max(), 1e-6))
  return Anatomy(
      spine=spine, rows=rows, path=path, midline=midline,
      vertebrae=np.stack([at(rows), at(path)], -1),
      half_widths=HALF_WIDTHS * size * (1 + 0.02 * rng.standard_normal(17)),
      half_heights=heights / 2 * BODY_HEIGHT * (1 + 0.02 * rng.standard_normal(17)),
      rotation=-1.1 * np.sin(np.radians(turning)), size=size,
      ribs=1 + 0.08 * rng.standard_normal((12, 2)),
      domes=rng.uniform(0.46, 0.53) + np.array([0.025, 0.0]) + rng.normal(0, 0.008, 2),
      heart=np.append(rng.normal(0, 6), rng.uniform((-30, 50, 42, -35), (-20, 62, 54, -10))),
      crest=rng.uniform(0.90, 0.95), density=rng.uniform(0.60, 0.95),
      thickness=rng.uniform(0.85, 1.15),
      marker=('LR'[rng.integers(2)], int(rng.choice([-1, 1]))) if rng.random() < 0.5 else None)


def _step(distance: np.ndarray, soft: float) -> np.ndarray:
  """0 outside, 1 inside; `soft` mm wide about distance 0."""
  t = (distance * np.float32(1 / soft) + np.float32(0.5)).clip(0, 1)
  return t * t * (3 - 2 * t)


def _stamp_blob(field: np.ndarray, grid: Grid, center: Point, half: Point, value: float,
                turn: float = 0.0, soft: float = 4.0, power: float = 2.0, rim: float = 0.0):
  """Adds a super-ellipse of half axes (y, x), with a thin rim of its own value."""
  reach = max(half) * 1.45 + 2 * soft
  window, (dy, dx) = drawing.window(center, center, (reach, reach), (grid.y, grid.x))
  a, b = drawing.rotate(dy, dx, turn)
  r = (np.abs(a / half[1])**power + np.abs(b / half[0])**power)**(1 / power)
  distance = (1 - r) * min(half)
  field[window] += np.float32(value) * _step(distance, max(soft, 1.2 * grid.pixel))
  if rim:
    field[window] += np.float32(rim) * np.exp(-(distance / max(0.8, grid.pixel))**2)


def _stamp_bar(field: np.ndarray, grid: Grid, start: Point, end: Point, radius: float,
               value: float, soft: float = 1.0):
  """Adds a bar with round ends from one point (y, x) to another."""
  start, end = np.asarray(start, float), np.asarray(end, float)
  reach = np.abs(end - start) / 2 + radius + soft + grid.pixel
  window, (dy, dx) = drawing.window(start, (start + end) / 2, reach, (grid.y, grid.x))
  distance = radius - _segment_distance(dy, dx, *(end - start))
  field[window] += np.float32(value) * _step(distance, max(soft, 1.2 * grid.pixel))


def _segment_distance(y: np.ndarray, x: np.ndarray, down: float, right: float) -> np.ndarray:
  """Distance of (y, x) from the segment between (0, 0) and (down, right)."""
  down, right = np.float32(down), np.float32(right)
  t = ((y * down + x * right) / max(down * down + right * right, np.float32(1e-9))).clip(0, 1)
  return np.sqrt((y - t * down)**2 + (x - t * right)**2)


def _draw_trunk(rng: np.random.Generator, anatomy: Anatomy, grid: Grid,
                difficulty: float) -> np.ndarray:
  """Attenuation float32 [H,W] of soft tissue, lungs, heart, diaphragm and bowel."""
  rows = lambda profile: profile[:, None].astype(np.float32)
  u = anatomy.along(grid.y)
  off = (grid.x[None] - anatomy.middle(grid.y)[:, None]).astype(np.float32)
  side = np.abs(off)
  half = np.interp(u, [-0.12, -0.03, 0.03, 0.1, 0.2, 0.35, 0.55, 0.75, 0.92, 1.1],
                   [60, 75, 120, 160, 168, 158, 148, 134, 150, 165]) * anatomy.size
  half = ndimage.gaussian_filter1d(half, 10 / grid.pixel, mode='nearest')
  thick = np.interp(u, [-0.1, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1],
                    [1.5, 1.9, 2.1, 2.1, 2.15, 2.1, 2.2, 2.4]) * anatomy.thickness
  trunk = rows(thick) * np.sqrt((1 - (off / rows(half))**2).clip(0, None))

  y = rows(grid.y)
  floor = np.where(off < 0, *(_dome(anatomy, side, i) for i in range(2)))
  lungs = _lungs(anatomy, y, side, floor)
  trunk -= lungs * (1 - _vessels(rng, anatomy, grid, y, side))
  trunk += rows(np.interp(u, [-0.05, 0.04, 0.25, 0.4], [0, 0.22, 0.16, 0])) * _step(28 - side, 26)
  soft = np.zeros_like(trunk)
  drop, shift, tall, wide, turn = anatomy.heart
  y8 = anatomy.vertebrae[7, 0] + drop
  middle = float(anatomy.middle(y8))
  _stamp_blob(soft, grid, (y8, middle + shift), (tall, wide), 0.55, turn, 14, 2.3)
  _stamp_blob(soft, grid, (anatomy.at(0.2), middle - 18), (13, 14), 0.25, 0, 5)
  _stamp_blob(soft, grid, (anatomy.at(0.36), middle - 10), (75, 13), 0.14, 0, 5)
  soft *= 0.2 + 0.8 * (lungs / max(float(lungs.max()), 1e-6))
  trunk += soft
  _draw_airway(trunk, anatomy, grid)

  belly = _step(y - floor, 3.0) * _step(rows(half) * 0.93 - side, 15)
  liver = _step(off + 20 - 0.35 * (y - anatomy.at(0.55)), 30) * _step(anatomy.at(0.80) - y, 30)
  trunk += belly * (0.05 + 0.16 * liver)
  for sd, sigma in MOTTLING:
    mottle = drawing.texture(rng, _texture_points(grid), sigma, TEXTURE_EXTENT)
    trunk += np.float32(sd * difficulty) * (0.4 + 0.6 * belly) * mottle
  psoas = 12 + 30 * ((u - 0.7).clip(0, 0.3) / 0.3)**0.7
  trunk += rows(np.interp(u, [0.7, 0.8, 1.0], [0, 0.09, 0.05])) * _step(rows(psoas + 14) - side, 9)
  _draw_gas(rng, trunk, anatomy, grid, belly, difficulty)
  return np.maximum(trunk, 0)


def _lungs(anatomy: Anatomy, y: np.ndarray, side: np.ndarray, floor: np.ndarray) -> np.ndarray:
  """Attenuation that the air of the lungs saves, from y [H,1] and distance from the midline."""
  u = anatomy.along(y)
  lateral = np.interp(u, [-0.02, 0.03, 0.08, 0.15, 0.3, 0.5, 0.65],
                      [20, 44, 66, 88, 112, 122, 122]) * anatomy.size
  medial = np.interp(u, [0.0, 0.1, 0.2, 0.26, 0.35, 0.5], [16, 18, 24, 22, 20, 18]) * anatomy.size
  depth = np.minimum(lateral.astype(np.float32) - side, side - medial.astype(np.float32))
  depth = np.minimum(depth, np.minimum(floor - y, y - np.float32(anatomy.at(0.005))))
  air = np.interp(u, [0, 0.12, 0.3, 0.55], [0.65, 1.0, 1.12, 1.0]) * anatomy.thickness
  return air.astype(np.float32) * (1 - np.exp(-(depth.clip(0, None) / 11)**1.4))


def _vessels(rng: np.random.Generator, anatomy: Anatomy, grid: Grid, y: np.ndarray,
             side: np.ndarray) -> np.ndarray:
  """Fraction of the air that hila, mottling and vessels take, each vessel in three stretches."""
  hila = np.exp(-((y - np.float32(anatomy.at(0.28))) / 55)**2 - ((side - 34) / 38)**2)
  mottle = sum(drawing.texture(rng, _texture_points(grid), sigma, TEXTURE_EXTENT)
               for sigma in ((3, 3), (7, 6)))
  field = 0.04 * (0.6 + hila) * mottle + 0.22 * hila
  for right in (-1, 1):
    hilum = anatomy.at(0.27 if right < 0 else 0.29)
    x = float(anatomy.middle(hilum)) + right * 30
    for angle in np.linspace(-1.3, 1.4, 12) + rng.normal(0, 0.16, 12):
      start, radius = (hilum + rng.normal(0, 12), x + rng.normal(0, 5)), rng.uniform(1.2, 2.4)
      for length in rng.uniform(14, 32, 3):
        end = (start[0] + length * np.sin(angle), start[1] + right * length * np.cos(angle))
        _stamp_bar(field, grid, start, end, radius, 0.09, 2.5)
        start, radius, angle = end, 0.7 * radius, angle + rng.normal(0, 0.35)
  return field


def _texture_points(grid: Grid) -> tuple[np.ndarray, ...]:
  return tuple((p + e / 2).clip(0, e) for p, e in zip(
      (grid.y - FIELD_HEIGHT / 2, grid.x), TEXTURE_EXTENT))


def _dome(anatomy: Anatomy, side: np.ndarray, index: int) -> np.ndarray:
  """y of the diaphragm over the distance from the midline."""
  t = (side / anatomy.size - 52) / 62
  return (anatomy.at(anatomy.domes[index]) + 10 * t**2 + 34 * t.clip(0, None)**4).astype(np.float32)


def _draw_airway(trunk: np.ndarray, anatomy: Anatomy, grid: Grid):
  top, fork = anatomy.at(-0.1), anatomy.at(0.22)
  x = [float(anatomy.middle(y)) for y in (top, fork)]
  _stamp_bar(trunk, grid, (top - 20, x[0]), (fork, x[1] + 2), 7.0, -0.20, 4)
  _stamp_bar(trunk, grid, (fork, x[1] + 2), (fork + 26, x[1] + 24), 5.0, -0.08, 5)
  _stamp_bar(trunk, grid, (fork, x[1] + 2), (fork + 32, x[1] - 30), 4.0, -0.07, 5)


def _draw_gas(rng: np.random.Generator, trunk: np.ndarray, anatomy: Anatomy, grid: Grid,
              belly: np.ndarray, difficulty: float):
  """Stomach bubble under the left dome, colon along the flanks, small bowel between."""
  gas = np.zeros_like(trunk)
  y, x = anatomy.at(anatomy.domes[0]) + 24, float(anatomy.middle(anatomy.at(0.55))) - 52
  _stamp_blob(gas, grid, (y + rng.normal(0, 4), x + rng.normal(0, 8)),
              rng.uniform((9, 16), (20, 32)), -rng.uniform(0.2, 0.45), rng.uniform(-25, 25), 7, 2.4)
  u, off = anatomy.along(grid.y), grid.x[None] - anatomy.middle(grid.y)[:, None]
  flank = np.abs(np.abs(off) / anatomy.size - 82).astype(np.float32)
  bowel = drawing.texture(rng, _texture_points(grid), (9, 10), TEXTURE_EXTENT)
  bowel += 0.35 * drawing.texture(rng, _texture_points(grid), (3, 3.5), TEXTURE_EXTENT)
  low = np.interp(u, [0.58, 0.72], [2.0, 0.0])[:, None].astype(np.float32)
  bowel -= np.float32(2.3 - 0.45 * difficulty**0.5) - np.exp(-(flank / 30)**2) + low
  gas -= 0.42 * np.tanh(bowel.clip(0, None))
  gas += 0.05 * np.exp(-(bowel / 0.12)**2)
  trunk += gas.clip(-0.55, None) * belly


def _draw_ribs(field: np.ndarray, anatomy: Anatomy, grid: Grid):
  """Twelve pairs: from the vertebra out and down to the side, then forward and in, fainter."""
  for i in range(12):
    tilt, (y, x) = np.radians(anatomy.spine.tilts[i]), anatomy.vertebrae[i]
    for k, side in enumerate((-1, 1)):
      phi = np.radians(np.arange(0, _RIB_END[i], 1.0))
      out = side * 0.7 * anatomy.half_widths[i]
      y0 = y - 0.55 * anatomy.half_heights[i] - out * np.sin(tilt)
      drop = _RIB_DROP[i] * anatomy.ribs[i, k] - side * 18 * np.sin(tilt)
      wall = anatomy.middle(y0 + drop) + side * _RIB_REACH[i] * anatomy.size
      across = x + out + side * max(side * (wall - x - out), 15.0) * np.sin(phi)
      down = y0 + drop * (1 - np.cos(phi))**0.8
      down -= max(0, 6 - 0.6 * i) * np.sin(2 * phi.clip(0, np.pi / 2))
      _stamp_rib(field, grid, down, across, 0.32 * anatomy.density, 3.4 if i in (0, 11) else 4.2)


def _stamp_rib(field: np.ndarray, grid: Grid, y: np.ndarray, x: np.ndarray, value: float,
               radius: float):
  """Adds the ribbon along a curve of points a degree apart that runs outward, then down.

  The flat part is drawn column by column, the steep part row by row.
  """
  reach = 1.5 * radius + 2 * grid.pixel
  window, (rows, columns) = drawing.window(
      (0, 0), ((y.min() + y.max()) / 2, (x.min() + x.max()) / 2),
      (np.ptp(y) / 2 + reach, np.ptp(x) / 2 + reach), (grid.y, grid.x))
  if not rows.size or not columns.size:
    return
  slopes = np.gradient(y) > np.abs(np.gradient(x))
  steep = int(slopes.argmax()) if slopes.any() else len(y)
  flat = slice(0, min(steep + 15, 91))
  distance = np.full((rows.size, columns.size), np.float32(1e3))
  _approach(distance, rows.ravel(), columns.ravel(), x[flat], y[flat])
  if steep < len(y):
    down = slice(max(steep - 15, int(y.argmin())), None)
    _approach(distance.T, columns.ravel(), rows.ravel(), y[down], x[down])
  front = ((rows - y[min(90, len(y) - 1)]) / 20).clip(0, 1)
  end = np.abs(columns - x[-1]) + np.abs(rows - y[-1])
  profile = _step(radius - distance, max(1.6, 1.2 * grid.pixel))
  profile *= 0.55 + 0.45 * (distance / radius).clip(0, 1)**3
  field[window] += np.float32(value) * (1 - 0.5 * front) * _step(end - 9, 14) * profile


def _approach(distance: np.ndarray, values: np.ndarray, points: np.ndarray, knots: np.ndarray,
              heights: np.ndarray):
  """Lowers distance [values, points] to that from the graph of heights over monotone knots."""
  if knots[0] > knots[-1]:
    knots, heights = knots[::-1], heights[::-1]
  first, last = np.searchsorted(points, (knots[0], knots[-1]))
  points = points[first:last]
  cosine = 1 / np.sqrt(1 + np.interp(points, knots, np.gradient(heights, knots))**2)
  center = np.interp(points, knots, heights).astype(np.float32)
  part = distance[:, first:last]
  np.minimum(part, np.abs(values[:, None] - center) * cosine.astype(np.float32), out=part)


def _draw_girdles(field: np.ndarray, anatomy: Anatomy, grid: Grid):
  """Clavicles and scapulae, sacrum and iliac wings."""
  spine, density, size = anatomy.spine, anatomy.density, anatomy.size
  for side in (-1, 1):
    place = lambda u, x: (anatomy.at(u), float(anatomy.middle(anatomy.at(u))) + side * x * size)
    y, x = np.transpose([place(0.105, 14), place(0.075, 45), place(0.02, 92), place(0.0, 145)])
    smooth = np.interp(np.linspace(0, 3, 60), range(4), y)
    smooth = ndimage.gaussian_filter1d(smooth, 5, mode='nearest')
    _stamp_rib(field, grid, smooth, np.interp(np.linspace(0, 3, 60), range(4), x),
               0.27 * density, 5.5)
    _stamp_bar(field, grid, place(0.10, 92), place(0.34, 108), 3.0, 0.14 * density, 3)
    _stamp_blob(field, grid, place(0.2, 128), (62, 36), 0.14 * density, -side * 8.0, 6, 2.5)

    _draw_wing(field, anatomy, grid, side)
  u = np.array([1.0, 1.1])
  y = np.interp(u, spine.path_u, anatomy.rows)
  x = np.interp(u, spine.path_u, anatomy.path)
  turn = -float(spine.tilts[-1])
  _stamp_blob(field, grid, (y[0] + 38, x[1]), (35, 29), 0.24 * density, turn, 4, 3.0,
              rim=0.10 * density)
  _stamp_blob(field, grid, (y[0] + 24, x[1]), (21, 52 * size), 0.18 * density, turn, 7, 2.2)
  for i in range(2):
    for side in (-1, 1):
      _stamp_blob(field, grid, (y[0] + 20 + 20 * i, x[1] + side * (17 - 3 * i)), (3, 5),
                  -0.16 * density, side * 20.0, 4)
  for i in range(3):
    _stamp_blob(field, grid, (y[0] + 16 + 17 * i, x[1]), (6, 2.5), 0.12 * density, 0, 2)


def _draw_wing(field: np.ndarray, anatomy: Anatomy, grid: Grid, side: int):
  """An iliac wing: its crest rises outward and falls, its inner edge runs down to the sacrum."""
  top, size = anatomy.at(anatomy.crest), anatomy.size
  rows = np.searchsorted(grid.y, top - 12)
  y = (grid.y[rows:, None] - top).astype(np.float32)
  middle = np.interp(1.06, anatomy.spine.path_u, anatomy.path)
  x = (side * (grid.x[None] - middle) / size).astype(np.float32)
  crest = y - 0.006 * (x - 96)**2 - np.where(x < 96, 0.00012, 0.0003) * np.abs(x - 96)**3
  crest = crest.astype(np.float32)
  inner = x - 30 - 7 * np.sin(y / 26)
  edge = np.minimum(crest, inner)
  bone = (0.20 + 0.16 * np.exp(-edge.clip(0, None) / 14)) * _step(edge, max(2.5, 1.2 * grid.pixel))
  bone += 0.12 * np.exp(-((edge - 1.2) / max(1.3, grid.pixel))**2)
  field[rows:] += np.float32(anatomy.density) * bone


def _draw_spine(field: np.ndarray, anatomy: Anatomy, grid: Grid) -> np.ndarray:
  """Adds the neck to L5 with their discs; returns the silhouette of T1..L5, bool [H,W]."""
  spine, density = anatomy.spine, anatomy.density
  u = anatomy.along(grid.y)
  center = np.interp(u, spine.path_u, anatomy.path)[:, None].astype(np.float32)
  turn = np.cos(np.radians(np.interp(u, spine.path_u, spine.path_tilts)))
  half = (0.93 * np.interp(u, spine.u, anatomy.half_widths) / turn)[:, None].astype(np.float32)
  distance = half - np.abs(grid.x[None].astype(np.float32) - center)
  tall = _step(anatomy.at(1.01) - grid.y, 5)[:, None].astype(np.float32)
  field += np.float32(DISC * density) * _step(distance, max(2.0, 1.2 * grid.pixel)) * tall
  between = (u >= spine.u[0]) & (u <= spine.u[-1])
  column = (distance > 0) & between[:, None]

  wide, tall = anatomy.half_widths[0], anatomy.half_heights[0]
  for i in range(7):
    u = -spine.u[0] * (2 * i + 1)
    neck = (anatomy.rows[0] + (u + 0.1) * (anatomy.rows[-1] - anatomy.rows[0]) / 1.2,
            float(np.interp(u, spine.path_u, anatomy.path)))
    _draw_vertebra(field, grid, neck, float(np.interp(u, spine.path_u, spine.path_tilts)),
                   max(0.92 - 0.05 * i, 0.8) * wide, 0.95 * tall, 0.0, 0, density)
  for i in range(17):
    window, inside = _draw_vertebra(
        field, grid, tuple(anatomy.vertebrae[i]), float(spine.tilts[i]), anatomy.half_widths[i],
        anatomy.half_heights[i], anatomy.rotation[i], i, density * _STRENGTH[i])
    column[window] |= inside
  return column


def _draw_vertebra(field, grid, center, tilt, wide, tall, rotation, level, density):
  """Adds a body with its posterior parts; returns its window and silhouette."""
  lumbar = np.interp(level, [9, 13], [0, 1])
  reach = wide + 30
  window, (dy, dx) = drawing.window(center, center, (max(tall * 2.6, 30), reach), (grid.y, grid.x))
  a, b = drawing.rotate(dy, dx, -tilt)
  p, q = a / np.float32(wide), b / np.float32(tall)
  p_body = np.abs(p) / (0.90 + 0.10 * (q * q).clip(0, 1))
  q_body = np.abs(q) / (0.94 + 0.06 * (p * p).clip(0, 1))
  p6, q6 = p_body**6, q_body**6
  r = (p6 + q6)**np.float32(1 / 6)
  distance = (1 - r) * np.float32(min(wide, tall))
  soft = max(1.2, 1.2 * grid.pixel)
  thin = max(0.9, 0.8 * grid.pixel)
  plates = q6 / (p6 + q6 + 1e-6)
  bone = (BODY - DISC) * (0.7 + 0.3 * np.sqrt((1 - p * p).clip(0, 1)))
  bone = bone * _step(distance, soft)
  bone += (0.07 + 0.13 * plates) * np.exp(-((distance - 0.9) / thin)**2)

  def ring(x, y, half_x, half_y, fill, rim):
    s = np.sqrt(((a - x) / half_x)**2 + ((b - y) / half_y)**2)
    edge = (1 - s) * min(half_x, half_y)
    return fill * _step(edge, soft) + rim * np.exp(-((edge - 0.5) / thin)**2)

  def bar(x0, y0, x1, y1, radius, fill):
    edge = np.float32(radius) - _segment_distance(b - np.float32(y0), a - np.float32(x0), y1 - y0,
                                                  x1 - x0)
    return fill * _step(edge, 1.5 * soft)

  shift = rotation * wide
  for side in (-1, 1):
    x = side * 0.62 * wide + 0.55 * shift
    bone += ring(x, -0.22 * tall, 2.6 + 1.4 * lumbar, 0.40 * tall, 0.05, PEDICLE)
    bone += bar(0.8 * shift + side * 0.12 * wide, -0.15 * tall, 0.7 * shift + side * 0.45 * wide,
                0.85 * tall, 2.6 + 0.8 * lumbar, 0.07)
    bone += bar(0.7 * shift + side * 0.5 * wide, 0.95 * tall, 0.7 * shift + side * 0.48 * wide,
                1.35 * tall, 2.4 + 1.4 * lumbar, 0.06)
    tip = wide + np.interp(level, [0, 10, 11, 13, 14, 16], [13, 9, 5, 14, 16, 14])
    bone += bar(x, -0.2 * tall, side * tip + 0.4 * shift,
                -tall * np.interp(level, [0, 9, 12], [0.55, 0.35, 0.15]), 3.0, 0.10)
  bone += ring(shift, tall * (0.75 - 0.35 * lumbar), 2.4 + 0.5 * lumbar, 0.55 * tall, SPINOUS, 0.12)
  field[window] += np.float32(density) * bone.astype(np.float32)
  return window, distance > 0


def _draw_marker(field: np.ndarray, anatomy: Anatomy, grid: Grid):
  """A lead letter in an upper corner."""
  if anatomy.marker:
    letter, side = anatomy.marker
    x, y = side * (grid.x[-1] - 12) - 4, grid.y[0] + 14
    for x0, y0, x1, y1 in _LETTERS[letter]:
      _stamp_bar(field, grid, (y + 6 * y0, x + 7 * x0), (y + 6 * y1, x + 7 * x1), 1.0, 2.0, 0.5)


def _draw_artifacts(rng: np.random.Generator, field: np.ndarray, anatomy: Anatomy, grid: Grid,
                    present: dict[str, bool]):
  """Adds what hides the spine; none changes what the others look like."""
  drawn = {'organ': _draw_organ, 'rods': _draw_rods, 'necklace': _draw_necklace}
  for (name, draw), stream in zip(drawn.items(), rng.spawn(len(drawn))):
    if present[name]:
      draw(stream, field, anatomy, grid)


def _draw_organ(rng, field, anatomy, grid):
  """A full stomach or a loaded bowel across the spine, with gas beside it."""
  y = anatomy.at(rng.uniform(0.55, 0.85))
  x = float(anatomy.middle(y)) + rng.normal(-8, 18)
  half, turn = rng.uniform((24, 38), (40, 62)), rng.uniform(-35, 35)
  _stamp_blob(field, grid, (y, x), half, rng.uniform(0.15, 0.38), turn, 12, 2.4)
  for _ in range(2):
    place = (y + rng.normal(0, 0.7) * half[0], x + rng.normal(0, 0.7) * half[1])
    _stamp_blob(field, grid, place, rng.uniform((10, 14), (20, 30)), -rng.uniform(0.25, 0.5),
                rng.uniform(-40, 40), 5, 2.4)


def _draw_rods(rng, field, anatomy, grid):
  """One or two rods with hooks or screws, flatter than the spine they hold."""
  first, last = rng.integers(1, 5), rng.integers(11, 16)
  screws, count = rng.random() < 0.6, 1 + (rng.random() < 0.7)
  rows, columns = anatomy.vertebrae[first:last + 1].T
  columns = 0.35 * np.interp(rows, rows[[0, -1]], columns[[0, -1]]) + 0.65 * columns
  sides = (-1, 1) if count == 2 else (rng.choice([-1, 1]),)
  for side in sides:
    x = columns + side * rng.uniform(9, 13)
    knots = np.linspace(rows[0] - 9, rows[-1] + 9, 24)
    path = np.interp(knots, rows, x)
    for start, end in zip(zip(knots, path), zip(knots[1:], path[1:])):
      _stamp_bar(field, grid, start, end, 2.5, 1.1, 0.8)
    for i, (r, c) in enumerate(zip(rows, x)):
      kept = rng.random() < (0.7 if screws else 0.12) or i in (0, 1, len(rows) - 2, len(rows) - 1)
      if kept:
        tip = (r + rng.normal(0, 1.5), c - side * rng.uniform(5, 8) if screws else c + side * 6)
        _stamp_bar(field, grid, (r, c), tip, 2.0, 1.0, 0.8)
        _stamp_blob(field, grid, (r, c), (5, 4.5), 0.9, 0, 1, 4)


def _draw_necklace(rng, field, anatomy, grid):
  """A chain around the neck that hangs over the upper chest, often with a pendant."""
  top, drop = anatomy.at(-0.11), anatomy.at(rng.uniform(0.08, 0.26))
  wide, x = rng.uniform(38, 55), float(anatomy.middle(drop)) + rng.normal(0, 4)
  step, radius = rng.uniform(2.2, 4.0), rng.uniform(0.7, 1.5)
  t = np.linspace(-1, 1, 400)
  path = np.stack([drop - (drop - top) * np.abs(t)**rng.uniform(1.6, 2.4), x + wide * t], -1)
  length = np.append(0, np.cumsum(np.hypot(*np.diff(path, axis=0).T)))
  at = np.arange(0, length[-1], step)
  for bead in np.stack([np.interp(at, length, path[:, k]) for k in range(2)], -1):
    _stamp_bar(field, grid, bead, bead, radius, 0.9, 0.8)
  if rng.random() < 0.6:
    _stamp_blob(field, grid, (drop + 7, x), rng.uniform((4, 3), (8, 6)), 1.2, 0, 1, 3)


def _expose(attenuation: np.ndarray, grid: Grid, scatter: float, blur: float) -> np.ndarray:
  """Light behind the patient: exp(-attenuation) with scatter and blur, float32 [H,W]."""
  light = np.exp(-attenuation)
  light += np.float32(scatter) * _blur_widely(light, SCATTER_SIGMA / grid.pixel)
  if blur > 0.35 * grid.pixel:
    light = ndimage.gaussian_filter(light, blur / grid.pixel, truncate=3, mode='nearest')
  return light


def _blur_widely(image: np.ndarray, sigma: float) -> np.ndarray:
  """A Gaussian of many pixels as three running means."""
  size = max(1, round((4 * sigma**2 + 1)**0.5))
  for _ in range(3):
    for axis in range(2):
      image = ndimage.uniform_filter1d(image, size, axis, mode='nearest')
  return image


def _tone_curve(clean: np.ndarray, grid: Grid) -> Callable[[np.ndarray], np.ndarray]:
  """Gray levels of -log light: large scales halved, then percentiles of the clean picture."""
  def flatten(density):
    return density - np.float32(0.5) * _blur_widely(density, 30 / grid.pixel)

  shown = flatten(clean)
  low, high = np.percentile(shown[::2, ::2][clean[::2, ::2] > 0.6], (0.5, 99.7))
  scale = np.float32(1 / (high - low))

  def tone(density):  # Metal is brighter than any bone.
    t = ((flatten(density) - np.float32(low)) * scale).clip(0, 1.25)
    return np.rint((12 + 225 * t**np.float32(1.1)).clip(0, 255)).astype(np.uint8)

  return tone


def _draw_label(column: np.ndarray, grid: Grid) -> np.ndarray:
  inside = np.flatnonzero(column.any(0))
  margin = 3 + int(BORDER_WIDTH / grid.pixel)
  part = slice(max(0, inside[0] - margin), inside[-1] + 1 + margin)
  column = np.pad(column[:, part], 1, mode='edge')
  distance = ndimage.distance_transform_edt(column) - ndimage.distance_transform_edt(~column)
  distance = distance - np.sign(distance) / 2
  half = max(BORDER_WIDTH / 2 / grid.pixel, 1.0)
  trimap = np.where(distance > half, SPINE, np.where(distance > -half, BORDER, BACKGROUND))
  label = np.zeros((len(grid.y), len(grid.x)), np.uint8)
  label[:, part] = trimap[1:-1, 1:-1]
  return label


def _truth(anatomy: Anatomy, grid: Grid) -> dict[str, Any]:
  """The part of the truth that the anatomy decides, in pixels of the grid."""
  spine = anatomy.spine
  to_pixels = lambda points: (points - (grid.y[0], grid.x[0])) / grid.pixel
  u = np.linspace(0, 1, 201)
  at = lambda profile: np.interp(u, spine.path_u, profile)
  tilts = at(spine.path_tilts)
  names = [curves.LEVELS[i] for i in np.abs(u[:, None] - spine.u).argmin(1)]
  cos, sin = np.cos(np.radians(spine.tilts)), np.sin(np.radians(spine.tilts))
  right = np.stack([-sin, cos], -1) * (0.95 * anatomy.half_widths)[:, None]
  down = np.stack([cos, sin], -1) * (0.97 * anatomy.half_heights)[:, None]
  corners = np.stack([anatomy.vertebrae + i * down + j * right
                      for i in (-1, 1) for j in (-1, 1)], 1)
  return {
      'family': spine.family, 'levels': curves.LEVELS, 'tilts': spine.tilts,
      'cobb': curves.curve_angles(spine.tilts),
      'centerline_cobb': curves.curve_angles(tilts, names),
      'ends': tuple(curves.LEVELS[i] for i in spine.ends), 'requested': spine.angles,
      'rotation': anatomy.rotation, 'vertebrae': to_pixels(anatomy.vertebrae),
      'landmarks': to_pixels(corners.reshape(68, 2)),
      'centerline': to_pixels(np.stack([at(anatomy.rows), at(anatomy.path)], -1)),
      'centerline_tilts': tilts}
