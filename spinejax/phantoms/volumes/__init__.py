"""Phantom 3-D ultrasound volumes of the spine with exact truth.

Axis 0 runs down the spine, axis 1 towards the patient's left, axis 2 from the skin of the back into
the depth. Laminae are bright plates with a shadow behind them, in pairs beside the dark column of
the spinous processes.
"""
import dataclasses
from collections.abc import Sequence

import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms import truth as common
from spinejax.phantoms.volumes import anatomy as anatomies
from spinejax.phantoms.volumes import artifacts
from spinejax.phantoms.volumes import tissue
from spinejax.phantoms.volumes.truth import VolumeTruth, draw_label, find_truth

MIN_SHAPE = (48, 16, 8)
THORACIC, LUMBAR = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeCase:
  """A volume phantom. Its P = 34 laminae run T1..T12, L1..L5, the patient's right side first.

  Attributes:
    image: uint8 [D,H,W].
    label: uint8 [D,H,W], 1 = lamina.
    landmarks: float32 [P,3], exact centers of the laminae in voxels.
    region: int8 [P], 0 thoracic, 1 lumbar.
    side: int8 [P], -1 the patient's right, 1 left.
    level: int8 [P], index into `curves.LEVELS`.
    visible: bool [P], False where the echo is gone.
    truth: exact positions and angles.
  """
  image: np.ndarray
  label: np.ndarray
  landmarks: np.ndarray
  region: np.ndarray
  side: np.ndarray
  level: np.ndarray
  visible: np.ndarray
  truth: VolumeTruth


def volume(seed: int | Sequence[int], shape: tuple[int, ...] = anatomies.SHAPE,
           difficulty: float = 1.0, *, family: str | None = None,
           speckle: drawing.Speckle | None = None) -> VolumeCase:
  """Draws a 3-D ultrasound phantom with its 34 laminae.

  gray = 255 (1 + dB / 45) with dB = 20 log10(amplitude / 1.2), then gain and dropped frames.

  The labels are those of C-U-net (Wong et al., 2021): cubes of 3 x 3 x 3 voxels about the landmarks
  as an annotator would place them, N(0, 0.5 voxel) away along each axis and at most 1, rounded to
  the grid and clipped at its border. Two cubes that would touch move apart in the coronal plane, so
  that a voxel stays between them. This happens at about a quarter of the full shape and below. A
  grid of fewer than 4 x 17 rows has no room for that; there cubes merge.

    >>> from spinejax import phantoms
    >>> case = phantoms.volume(7, shape=(96, 24, 12))
    >>> case.image.shape, case.landmarks.shape, int(case.label.max())
    ((96, 24, 12), (34, 3), 1)

  Args:
    seed: as in `vpi`.
    shape: (D, H, W) of the volume, at least 48 x 16 x 8.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. It scales speckle, gain, noise floor, missed
      laminae, false plates and dropped frames. Anatomy, landmarks and label do not change.
    family: as in `vpi`.
    speckle: `speckle(rng, amplitude, spacing) -> amplitude` in place of `envelope_speckle`. The
      amplitude is float32 [D,H,W] before log compression, the spacing mm per voxel and axis.

  Raises:
    ValueError: an argument outside the ranges above.
  """
  anatomy_rng, tissue_rng, speckle_rng, sweep_rng, label_rng = drawing.spawn_streams(seed, 5)
  shape = drawing.check_shape(shape, MIN_SHAPE)
  difficulty = drawing.check_difficulty(difficulty)

  anatomy = anatomies.draw_anatomy(anatomy_rng, family)
  spacing = tuple(float(e / n) for e, n in zip(anatomy.extent, shape))
  grid = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing)]
  laminae, distractors, visible = artifacts.set_echoes(anatomy, difficulty)
  amplitude = tissue.draw_tissue(tissue_rng, anatomy, grid)
  tissue.add_plates(tissue_rng, amplitude, (*anatomy.spines, *laminae, *distractors), anatomy, grid)
  tissue.attenuate(tissue_rng, amplitude, anatomy, grid)
  amplitude = np.sqrt(amplitude**2 + np.float32(artifacts.NOISE_FLOOR * difficulty)**2)

  if speckle is not None:
    amplitude = drawing.apply_speckle(speckle, speckle_rng, amplitude, spacing)
  elif difficulty:
    strength = min(difficulty, artifacts.LOOKS**0.5)
    amplitude = artifacts.envelope_speckle(speckle_rng, amplitude, spacing, strength)
  image = tissue.compress(amplitude)
  image *= artifacts.frame_gain(sweep_rng, grid[0], difficulty)

  points = np.array([plate.center for plate in anatomy.laminae]) / spacing - 0.5
  level = np.arange(34, dtype=np.int8) // 2
  return VolumeCase(
      image=np.rint(image.clip(0, 255)).astype(np.uint8),
      label=draw_label(label_rng, points, shape), landmarks=points.astype(np.float32),
      region=np.where(level < 12, THORACIC, LUMBAR).astype(np.int8),
      side=np.tile(np.array([-1, 1], np.int8), 17), level=level, visible=visible,
      truth=find_truth(anatomy, distractors, np.array(spacing), seed=seed, difficulty=difficulty,
                       shape=shape))


def mirror_volume(case: VolumeCase) -> VolumeCase:
  """The phantom in a mirror: axis 1 reversed, left and right swapped, angles negated."""

  def swap(values):
    pairs = values.reshape(17, 2, *values.shape[1:])[:, ::-1]
    return np.ascontiguousarray(pairs).reshape(values.shape)

  return dataclasses.replace(
      case, image=common.mirror_image(case.image), label=common.mirror_image(case.label),
      landmarks=swap(common.mirror_points(case.landmarks, case.image.shape[1])),
      visible=swap(case.visible),
      truth=common.mirror_truth(case.truth, ['rotation', 'lines', 'center_of_lamina'],
                                ['distractors']))
