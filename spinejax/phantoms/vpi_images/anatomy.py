"""Anatomy of VPI phantoms: the spine, its bones and their outlines."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, drawing

SCANNER_SHAPE = (2560, 640)
SCANNER_SPACING = 0.2  # mm per pixel
BACKGROUND, RIB, PROCESS, LUMP = range(4)
POWER = {RIB: 2.4, PROCESS: 2.4, LUMP: 3.2}  # exponents of the super-ellipses
HEIGHT, WIDTH = SCANNER_SHAPE
ROWS = np.arange(HEIGHT) + 0.5  # centers of the scanner's rows
LUMP_HEIGHTS, LUMP_WIDTHS = (42, 43, 45, 43, 41), (130, 134, 137, 138, 137)  # half, of L1..L5


class Bone(NamedTuple):
  """A dark shape in scanner pixels. Its own axes a and b run outward (or right) and down."""
  kind: int  # RIB, PROCESS or LUMP
  side: int  # -1 left, 1 right or middle
  center: tuple[float, float]  # (y, x)
  half_height: float
  half_width: float  # a rib has no outer end
  turn: float  # degrees from horizontal, positive where the outer end is lower
  depth: float  # fraction of the amplitude lost inside
  soft: float  # relative width of the boundary
  rank: float = 1.0  # uniform in [0, 1]; the lowest nearly vanish in difficult images
  bend: float = 0.0  # drop of the wings of a lump, half heights
  roof: float = 0.0  # height of the middle of a lump, half heights


class Stamp(NamedTuple):
  """A bone on the pixels of an image."""
  bone: Bone
  window: tuple[slice, ...]
  f: np.ndarray  # implicit shape, below 1 inside
  depth: np.ndarray | np.floating  # fraction of the amplitude lost inside


class Anatomy(NamedTuple):
  """One patient in scanner pixels; profiles are sampled at ROWS."""
  spine: curves.Spine
  axis: np.ndarray  # [2560] column of the midline
  edges: np.ndarray  # [2, 2560] columns of the left and right edge of the strip
  cuts: np.ndarray  # [2, 2] row at the middle column and slope of the strip's top and bottom
  vertebrae: np.ndarray  # [17, 2] centers (y, x)
  bones: tuple[Bone, ...]  # in the order they are drawn
  processes: np.ndarray  # [12, 2, 2] centers of the thoracic processes, NaN for absent ones
  beads: np.ndarray  # [17, 2] relative depth and width of the spinous shadow at each level
  contact: np.ndarray  # [2, 2560] width over which the left and right edge fade
  gain: np.ndarray  # [2560] relative amplitude of the rows

  def in_view(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Whether positions lie in the swept strip; bool, of their broadcast shape."""
    left, right = (np.interp(y, ROWS, edge) for edge in self.edges)
    top, bottom = (row + slope * (x - WIDTH / 2) for row, slope in self.cuts)
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  """Draws a patient and the strip that is swept."""
  spine = curves.sample_curve(rng, family)
  ends = HEIGHT * rng.uniform((0.025, 0.97), (0.045, 0.99))
  cuts = np.stack([ends, np.tan(np.radians(rng.normal(2, 1.5, 2)))], -1)
  cranial, caudal = ends[0] + 0.012 * HEIGHT, HEIGHT * rng.uniform(0.915, 0.94)
  length = caudal - cranial
  path = length * np.interp((ROWS - cranial) / length, spine.path_u, spine.path_x)
  strip = path
  for _ in range(2):
    strip = ndimage.uniform_filter1d(strip, 290, mode='nearest')
  strip = rng.uniform(0.55, 0.9) * strip + 10 * wander(rng, 90)
  middle = (strip.max() + strip.min()) / 2
  center = WIDTH / 2 + rng.normal(0, 10)
  axis = center + path - middle + rng.normal(0, 8)
  strip = center + 120 * np.tanh((strip - middle) / 120)
  half = rng.uniform(190, 205)
  edges = np.stack([strip + side * half + 3.5 * wander(rng, 26) + 1.2 * wander(rng, 1)
                    for side in (-1, 1)])
  rows = cranial + spine.u * length
  vertebrae = np.stack([rows, np.interp(rows, ROWS, axis)], -1)

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
  for level, height, width in zip(range(12, 17), LUMP_HEIGHTS, LUMP_WIDTHS):
    bones.append(Bone(
        LUMP, 1, tuple((vertebrae[level] + rng.normal(0, 4, 2)).tolist()),
        drawing.normal(rng, height, 2, 40, 46), drawing.normal(rng, width, 3, 128, 140),
        turn=float(rng.normal(0, 1.5) - spine.tilts[level]),
        depth=drawing.normal(rng, 0.84, 0.07, 0.50, 0.94), soft=rng.uniform(0.16, 0.28),
        rank=rng.random(), bend=rng.uniform(0.45, 0.8), roof=rng.uniform(0.35, 0.6)))
  bones.sort(key=lambda bone: -bone.kind)

  beads = rng.normal(0, (0.08, 0.15), (17, 2))
  beads[rng.integers(10, 14)] += (rng.choice([0.0, 0.2]), 0.3)
  fade = np.interp(ROWS / HEIGHT, [0.03, 0.09, 0.13, 0.72, 0.88, 1.0], [1, 0.6, 0, 0, 0.5, 1])
  contact = np.stack([4 * np.exp(0.5 * wander(rng, 80)) + 45 * rng.random() * fade
                      for _ in range(2)])
  gain = np.exp(0.08 * wander(rng, 60))
  return Anatomy(spine, axis, edges, cuts, vertebrae, tuple(bones), processes, beads, contact, gain)


def _draw_process(rng: np.random.Generator, level: int, side: int, spread: float,
                  vertebra: np.ndarray, tilt: float) -> tuple[Bone, Bone]:
  """A thoracic process and the rib that leaves it."""
  reach = side * spread * np.interp(level, [0, 4, 9, 10, 11], [212, 240, 226, 215, 190]) / 2
  y = vertebra[0] - reach * np.sin(np.radians(tilt)) + rng.normal(0, 5)
  x = vertebra[1] + reach * np.cos(np.radians(tilt)) + rng.normal(0, 5)
  process = Bone(
      PROCESS, side, (float(y), float(x)), drawing.normal(rng, 45, 5, 28, 60),
      drawing.normal(rng, 38, 5, 24, 52), turn=float(rng.normal(12, 10) - side * tilt),
      depth=drawing.normal(rng, 0.40, 0.12, 0.12, 0.70) * (0.75 if level < 2 else 1.0),
      soft=rng.uniform(0.20, 0.34), rank=rng.random())
  rise = np.interp(level, [2, 3, 8, 9, 10, 11], [-22, -12, -12, 0, 0, 30]) + rng.normal(0, 7)
  rib = Bone(
      RIB, side, (float(y) - 8, float(x) + 22 * side), drawing.normal(rng, 36, 4, 24, 48),
      30.0, turn=float(rise - side * tilt), depth=drawing.normal(rng, 0.58, 0.13, 0.20, 0.85),
      soft=rng.uniform(0.16, 0.30))
  return process, rib


def outline(bone: Bone, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Implicit shape of a bone: the power POWER of a radius, below 1 inside."""
  power = POWER[bone.kind]
  a, b = a / bone.half_width, b / bone.half_height
  if bone.kind == RIB:
    return np.abs(b)**power + np.maximum(-a, 0)**power
  q = np.abs(a)
  if bone.kind == LUMP:
    b = b + bone.bend * (0.25 - np.minimum(q, 1.3)**2)
    b = np.where(b < 0, b / (1 + bone.roof * (1 - np.minimum(q, 1))), b)
  return q**power + np.abs(b)**power


def stamp_bone(bone: Bone, y: np.ndarray, x: np.ndarray) -> Stamp:
  """A bone on the pixel centers y [H,1] and x [1,W], in scanner pixels."""
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
  return Stamp(bone, window, outline(bone, a, b), depth)


def draw_label(stamps: Sequence[Stamp], fov: np.ndarray) -> np.ndarray:
  """Classes uint8 [H,W]; a rib is hidden by the other bones."""
  label = np.zeros(fov.shape, np.uint8)
  for stamp in stamps:
    inside = (stamp.f < 1) & fov[stamp.window]
    if stamp.bone.kind == RIB:
      inside &= label[stamp.window] == BACKGROUND
    label[stamp.window][inside] = stamp.bone.kind
  return label


def wander(rng: np.random.Generator, sigma: float) -> np.ndarray:
  """Smooth noise of variance 1 along the scanner's rows, [2560]; sigma in rows."""
  if sigma < 10:
    return drawing.smooth(rng.standard_normal(HEIGHT), sigma, 0)
  basis = drawing.spline(ROWS, sigma * 3**0.5, HEIGHT)
  return basis.astype(float) @ rng.standard_normal(basis.shape[1])
