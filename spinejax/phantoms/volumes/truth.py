"""The truth of a volume phantom, and its labels as an annotator would place them."""
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from spinejax.phantoms import curves
from spinejax.phantoms import truth as common
from spinejax.phantoms.volumes.anatomy import Anatomy, Plate

ANNOTATION_NOISE = 0.5  # voxels, standard deviation along each axis
FEWEST_ROWS = 4 * 17  # rows in which 17 cubes of 3 voxels have a voxel between them


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VolumeTruth(common.Truth):
  """`Truth` of a volume phantom. x runs along axis 1, towards the patient's left.

  A curve that is convex to the patient's left is positive, so the common right thoracic curve is
  negative. `vertebrae` are the midpoints of the pairs of laminae. `spacing` is 1.20 x 0.90 x
  0.95 mm at 384 x 96 x 48, and larger along axis 1 where a bent spine needs the room.

  Attributes:
    rotation: [17] axial rotation, positive where the left side is nearer the skin. The convex side
      of a curve is.
    lines: [17] tilt of the line through each pair of landmarks in the coronal plane.
    center_of_lamina: curves by the extremes rule, from the lines.
    distractors: [n, 3] false plates in voxels.
  """
  rotation: np.ndarray
  lines: np.ndarray
  center_of_lamina: list[curves.Curve]
  distractors: np.ndarray


def find_truth(anatomy: Anatomy, distractors: Sequence[Plate], spacing: np.ndarray,
               **arguments: Any) -> VolumeTruth:
  """The truth of an anatomy with some distractors, in voxels of the spacing."""
  pairs = np.array([plate.center for plate in anatomy.laminae]).reshape(17, 2, 3)
  down, right, _ = (pairs[:, 1] - pairs[:, 0]).T
  lines = -np.degrees(np.arctan2(down, right))
  false = np.reshape([plate.center for plate in distractors], (-1, 3))
  return VolumeTruth(
      **common.truth_of_spine(anatomy.spine), **arguments, rotation=anatomy.rotation, lines=lines,
      center_of_lamina=curves.curve_angles(lines), vertebrae=pairs.mean(1) / spacing - 0.5,
      distractors=false / spacing - 0.5, spacing=spacing)


def localizer_dice(noise: float | np.ndarray) -> np.ndarray:
  """Expected Dice of a perfect localizer against cubes of a noisy annotation.

  Both draw cubes of 3 x 3 x 3 voxels, the localizer about the exact centroid, the annotator
  N(0, noise) away along each axis, and both round to the grid. A centroid lies anywhere between
  voxel centers, so the expected overlap along an axis is that of intervals shifted by the noise:
  Dice = E[max(0, 1 - |n| / 3)]^3. No network can be expected to exceed it.

  Args:
    noise: standard deviation in voxels, any shape, at least 0.

  Returns:
    float64 of the shape of `noise`: 1 at 0; 0.65, 0.54 and 0.40 at 0.5, 0.7 and 1.
  """
  noise = np.asarray(noise, np.float64)
  if not (noise >= 0).all():
    raise ValueError(f'noise must be a number of voxels of at least 0, not {noise}.')
  reach = 3 / np.maximum(noise, 1e-9)
  mean = (2 / np.pi)**0.5 * -np.expm1(-0.5 * reach**2)
  return (2 * ndtr(reach) - 1 - mean / reach)**3


def draw_label(rng: np.random.Generator, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Cubes about the points [34,3] as annotated, with a voxel between them where they have room."""
  noise = (ANNOTATION_NOISE * rng.standard_normal(points.shape)).clip(-1, 1)
  last = np.array(shape) - 1
  centers = np.rint(points + noise).clip(0, last)
  steps = np.zeros(len(points))
  for _ in range(4 * len(points) if shape[0] >= FEWEST_ROWS else 0):
    distance = np.abs(centers[:, None] - centers).max(-1)
    touching = np.argwhere(np.triu(distance < 4, 1))
    if not len(touching):
      break
    for pair in touching:
      _move_apart(centers, steps, points, pair, last)
  label = np.zeros(shape, np.uint8)
  for center in centers.astype(int):
    label[tuple(slice(max(c - 1, 0), c + 2) for c in center)] = 1
  return label


def _move_apart(centers: np.ndarray, steps: np.ndarray, points: np.ndarray, pair: np.ndarray,
                last: np.ndarray) -> None:
  """Moves one center of a pair a voxel away from the other and counts its step, in place.

  It moves in the coronal plane along the axis in which the points lie further apart. The center
  that stays nearer its point and has moved less often moves, so that a row of cubes spreads.
  """
  apart = points[pair[1], :2] - points[pair[0], :2]
  axis = int(np.abs(apart).argmax())
  target = centers[pair, axis] + np.copysign(1, apart[axis]) * np.array([-1, 1])
  inside = target.clip(0, last[axis])
  strain = np.abs(target - points[pair, axis]) + steps[pair] + 1e3 * (target != inside)
  mover = int(strain.argmin())
  centers[pair[mover], axis] = inside[mover]
  steps[pair[mover]] += 1
