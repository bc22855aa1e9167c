"""Phantom 3-D ultrasound volumes of the spine with exact truth.

Axis 0 runs down the spine, axis 1 towards the patient's left, axis 2 from the skin of the back into
the depth. Below a bright layer of skin, laminae are bright plates with a shadow behind them, in
pairs beside the dark column of the spinous processes.
"""
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from spinejax.phantoms import curves, drawing
from spinejax.phantoms import truth as common
from spinejax.phantoms.volumes import anatomy as anatomies
from spinejax.phantoms.volumes import artifacts, tissue

MIN_SHAPE = (48, 16, 8)
THORACIC, LUMBAR = 0, 1
ANNOTATION_NOISE = 0.5  # voxels, standard deviation along each axis
FEWEST_ROWS = 4 * 17  # rows in which 17 cubes of 3 voxels have a voxel between them


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VolumeTruth(common.Truth):
  """`Truth` of a volume phantom. x runs along axis 1, towards the patient's left.

  A curve that is convex to the patient's left is positive, so the common right thoracic curve is
  negative. `vertebrae` are the midpoints of the pairs of laminae. `spacing` is 1.20 x 0.90 x
  0.95 mm at 384 x 96 x 48, and larger along axis 1 where a bent spine needs the room.
  """
  rotation: np.ndarray  # [17] axial, positive where the left (convex) side is nearer the skin
  lines: np.ndarray  # [17] tilt of the line through each pair of landmarks in the coronal plane
  center_of_lamina: list[curves.Curve]  # by the extremes rule, from the lines
  distractors: np.ndarray  # [n, 3] false plates in voxels


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeCase:
  """A volume phantom. Its P = 34 laminae run T1..T12, L1..L5, the patient's right side first."""
  image: np.ndarray  # uint8 [D,H,W]
  label: np.ndarray  # uint8 [D,H,W], 1 = lamina
  landmarks: np.ndarray  # float32 [P,3], exact centers of the laminae in voxels
  annotated: np.ndarray  # float32 [P,3], centers of the cubes of the label
  region: np.ndarray  # int8 [P], 0 thoracic, 1 lumbar
  side: np.ndarray  # int8 [P], -1 the patient's right, 1 left
  level: np.ndarray  # int8 [P], index into `curves.LEVELS`
  visible: np.ndarray  # bool [P], False where the echo is gone
  truth: VolumeTruth


def volume(seed: int | Sequence[int], shape: tuple[int, ...] = anatomies.SHAPE,
           difficulty: float = 1.0, *, family: str | None = None,
           speckle: drawing.Speckle | None = None) -> VolumeCase:
  """Draws a 3-D ultrasound phantom with its 34 laminae.

  gray = 255 (1 + dB / 45) with dB = 20 log10(amplitude / 1.2), then gain and dropped frames.

  The labels are those of C-U-net (Wong et al., 2021): cubes of 3 x 3 x 3 voxels about the landmarks
  as an annotator would place them, N(0, 0.5 voxel) away along each axis and at most 1, rounded to
  the grid and clipped at its border. Two cubes that would touch move apart in the coronal plane, so
  that a voxel stays between them. In a grid of fewer than 4 x 17 rows, which has no room for that,
  cubes merge. ValueError for arguments outside the ranges below.

    >>> from spinejax import phantoms
    >>> case = phantoms.volume(7, shape=(96, 24, 12))
    >>> case.image.shape, case.landmarks.shape, int(case.label.max())
    ((96, 24, 12), (34, 3), 1)

  Args:
    seed, family, speckle: as in `vpi`. The speckle replaces `envelope_speckle`; its amplitude is
      float32 [D,H,W] before log compression.
    shape: (D, H, W) of the volume, at least 48 x 16 x 8.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. It scales speckle, gain, noise floor, missed
      laminae, false plates and dropped frames, not anatomy, landmarks and label.
  """
  streams, shape, difficulty = drawing.check_arguments(seed, shape, difficulty, MIN_SHAPE, 6)
  anatomy_rng, tissue_rng, speckle_rng, sweep_rng, label_rng, skin_rng = streams
  anatomy = anatomies.draw_anatomy(anatomy_rng, family)
  spacing = tuple(float(e / n) for e, n in zip(anatomy.extent, shape))
  grid = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing)]
  laminae, distractors, visible = artifacts.set_echoes(anatomy, difficulty)
  amplitude = tissue.draw_tissue(tissue_rng, anatomy, grid)
  tissue.add_plates(tissue_rng, amplitude, (*anatomy.spines, *laminae, *distractors), anatomy, grid)
  tissue.attenuate(tissue_rng, amplitude, anatomy, grid)
  tissue.add_skin(skin_rng, amplitude, anatomy, grid)
  amplitude = np.sqrt(amplitude**2 + np.float32(artifacts.NOISE_FLOOR * difficulty)**2)

  if speckle is not None:
    amplitude = drawing.apply_speckle(speckle, speckle_rng, amplitude, spacing)
  elif difficulty:
    strength = min(difficulty, artifacts.LOOKS**0.5)
    amplitude = artifacts.envelope_speckle(speckle_rng, amplitude, spacing, strength)
  image = tissue.compress(amplitude)
  image *= artifacts.frame_gain(sweep_rng, grid[0], difficulty)

  points = np.array([plate.center for plate in anatomy.laminae]) / spacing - 0.5
  annotated, label = draw_label(label_rng, points, shape)
  level = np.arange(34, dtype=np.int8) // 2
  return VolumeCase(
      image=np.rint(image.clip(0, 255)).astype(np.uint8),
      label=label, landmarks=points.astype(np.float32), annotated=annotated.astype(np.float32),
      region=np.where(level < 12, THORACIC, LUMBAR).astype(np.int8),
      side=np.tile(np.array([-1, 1], np.int8), 17), level=level, visible=visible,
      truth=find_truth(anatomy, distractors, np.array(spacing), seed=seed, difficulty=difficulty,
                       shape=shape))


def find_truth(anatomy: anatomies.Anatomy, distractors: Sequence[anatomies.Plate],
               spacing: np.ndarray, **arguments: Any) -> VolumeTruth:
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
  """Expected Dice of a perfect localizer against cubes of an annotation with a noise in voxels.

  Both draw cubes of 3 x 3 x 3 voxels, the localizer about the exact centroid, the annotator
  N(0, noise) away along each axis, and both round to the grid. A centroid lies anywhere between
  voxel centers, so the expected overlap along an axis is that of intervals shifted by the noise:
  Dice = E[max(0, 1 - |n| / 3)]^3, float64 of the shape of `noise`: 1 at 0; 0.65, 0.54 and 0.40 at
  0.5, 0.7 and 1. No network can be expected to exceed it.
  """
  noise = np.asarray(noise, np.float64)
  if not (noise >= 0).all():
    raise ValueError(f'noise must be a number of voxels of at least 0, not {noise}.')
  reach = 3 / np.maximum(noise, 1e-9)
  mean = (2 / np.pi)**0.5 * -np.expm1(-0.5 * reach**2)
  return (2 * ndtr(reach) - 1 - mean / reach)**3


def draw_label(rng: np.random.Generator, points: np.ndarray, shape: tuple[int, ...]
               ) -> tuple[np.ndarray, np.ndarray]:
  """Cubes about the points [34,3] as annotated, with a voxel between them where they have room.

  One of two cubes that touch moves in the coronal plane along the axis in which the points lie
  further apart. It is the one that stays nearer its point and has moved less often, so that a row
  of cubes spreads. Returns the centers [34,3] of the cubes and the label.
  """
  noise = (ANNOTATION_NOISE * rng.standard_normal(points.shape)).clip(-1, 1)
  last = np.array(shape) - 1
  centers = np.rint(points + noise).clip(0, last)
  steps = np.zeros(len(points))
  for _ in range(4 * len(points) if shape[0] >= FEWEST_ROWS else 0):
    touching = np.argwhere(np.triu(np.abs(centers[:, None] - centers).max(-1) < 4, 1))
    for pair in touching:
      apart = points[pair[1], :2] - points[pair[0], :2]
      axis = int(np.abs(apart).argmax())
      target = centers[pair, axis] + np.copysign(1, apart[axis]) * np.array([-1, 1])
      inside = target.clip(0, last[axis])
      strain = np.abs(target - points[pair, axis]) + steps[pair] + 1e3 * (target != inside)
      mover = int(strain.argmin())
      centers[pair[mover], axis] = inside[mover]
      steps[pair[mover]] += 1
    if not len(touching):
      break
  label = np.zeros(shape, np.uint8)
  for center in centers.astype(int):
    label[tuple(slice(max(c - 1, 0), c + 2) for c in center)] = 1
  return centers, label
