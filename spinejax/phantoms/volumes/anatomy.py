"""Anatomy of volume phantoms: laminae and other bones as plates, in millimeters."""
import functools
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from spinejax.phantoms import curves, drawing

SHAPE = (384, 96, 48)  # voxels of a full volume
SPACING = (1.20, 0.90, 0.95)  # mm per voxel of a full volume
MARGIN = 16.0  # mm, smallest distance of the spine from both sides

# Level index -> half the distance between the two laminae, mm.
_HALF_DISTANCE = ((0, 3, 8, 12, 16), (10.5, 9.0, 8.8, 10.0, 12.5))
# u -> depth of the laminae, mm.
_DEPTH = PchipInterpolator([0, 0.12, 0.35, 0.58, 0.75, 0.9, 1], [15, 12, 9.5, 12, 19, 24, 25])


class Plate(NamedTuple):
  """An elliptic reflector in mm, with the shadow below it."""
  center: np.ndarray  # [3]
  half_length: float  # along the spine
  half_width: float  # across the spine
  thickness: float  # standard deviation of the echo in depth
  echo: float  # amplitude; muscle has 0.055
  turn: float  # tilt of the length in the coronal plane, degrees as in `curves`
  slopes: tuple[float, float]  # depth gained per mm down the spine and along axis 1
  shadow: float  # fraction of the amplitude lost below


class Anatomy(NamedTuple):
  """One patient in mm; profiles are sampled at spine.path_u."""
  spine: curves.Spine  # seen with the patient's left on the right
  extent: tuple[float, float, float]  # size of the volume
  rows: np.ndarray  # [1201] position along axis 0
  column: np.ndarray  # [1201] position of the spinous column along axis 1
  depth: np.ndarray  # [1201] depth of the laminae
  rotation: np.ndarray  # [17] axial rotation, degrees
  laminae: tuple[Plate, ...]  # [34] level by level, the smaller position along axis 1 first
  ranks: np.ndarray  # [34] uniform in [0, 1]; the lowest laminae lose their echo
  spread: np.ndarray  # [34] standard normal; deviation of the echo from the mean of its level
  spines: tuple[Plate, ...]  # [17] tips of the spinous processes
  distractors: tuple[Plate, ...]  # transverse processes or facets, and ribs; echo is relative
  neighbors: tuple[int, ...]  # index of the lamina that the echo of each is relative to


def draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  """Draws a patient."""
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

  turning = curves.axial_rotation(rng, spine)
  column = path - 7 * np.sin(np.radians(turning)) * np.cos(np.radians(spine.path_tilts))
  across, deep, rotation = (np.interp(spine.u, u, profile) for profile in (path, depth, turning))
  vertebrae = np.stack([cranial + spine.u * length, across, deep], -1)
  laminae, spines, distractors, neighbors = _draw_plates(rng, vertebrae, spine.tilts, rotation)
  return Anatomy(
      spine, (height, width, thickness), cranial + u * length, column, depth, rotation, laminae,
      rng.random(34), rng.standard_normal(34), spines, distractors, neighbors)


def _draw_plates(rng: np.random.Generator, vertebrae: np.ndarray, tilts: np.ndarray,
                 rotation: np.ndarray) -> tuple:
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
