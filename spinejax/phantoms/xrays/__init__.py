"""Phantom posteroanterior X-rays of the spine with exact truth.

Everything is laid out in millimeters, x from the middle of the image and y from the top of a field
480 mm high. The patient is seen from behind, as surgeons look at scoliosis: the patient's right is
on the right of the image, the heart on the left.
"""
import dataclasses
from collections.abc import Sequence

import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms import truth as common
from spinejax.phantoms.xrays import anatomy as anatomies
from spinejax.phantoms.xrays import bones, exposure, tissue
from spinejax.phantoms.xrays.artifacts import draw_artifacts
from spinejax.phantoms.xrays.truth import XrayTruth, draw_label, find_truth

MIN_SHAPE = (64, 16)
ARTIFACTS = {'necklace': 0.10, 'rods': 0.10, 'organ': 0.15, 'blur': 0.12}  # probabilities


@dataclasses.dataclass(frozen=True, eq=False)
class XrayCase:
  """An X-ray phantom.

  Attributes:
    image: uint8 [H,W].
    clean: uint8 [H,W], the same patient without artifacts and photon noise.
    label: uint8 [H,W] trimap of the bodies and discs T1..L5: 0 background, 1 core of the spine, 2
      border, a band 3.4 mm wide (at least two pixels) along the outline, half of it inside.
    truth: exact positions and angles.
  """
  image: np.ndarray
  clean: np.ndarray
  label: np.ndarray
  truth: XrayTruth


def xray(seed: int | Sequence[int], shape: tuple[int, ...] = (1200, 450),
         difficulty: float = 1.0, *, family: str | None = None,
         artifacts: Sequence[str] | None = None) -> XrayCase:
  """Draws an X-ray phantom: bright bones on what the rest of the trunk lets through.

  photons = Poisson(2000 T) per pixel of 0.4 mm, where T = exp(-attenuation) + 0.35 of the same
  blurred by scatter. gray is a contrast curve of -log(photons) with compressed large scales, as
  radiography stations show it.

  Pixels are square. The field is 480 mm high and as wide as the shape requires. A shape narrower
  than 1:4 gives a field that is 120 mm wide and higher.

    >>> from spinejax import phantoms
    >>> case = phantoms.xray(7, shape=(240, 90), artifacts=['rods'])
    >>> case.image.shape, case.truth.landmarks.shape
    ((240, 90), (68, 2))

  Args:
    seed: as in `vpi`.
    shape: (H, W) of the image, at least 64 x 16.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. It scales photon noise, mottling, bowel gas
      and the probability of each artifact, and above 1 the scatter. Anatomy and truth do not
      change.
    family: as in `vpi`.
    artifacts: names from ARTIFACTS; None draws them by their probability.

  Raises:
    ValueError: an argument outside the ranges above.
  """
  anatomy_rng, tissue_rng, photon_rng, artifact_rng = drawing.spawn_streams(seed, 4)
  shape = drawing.check_shape(shape, MIN_SHAPE)
  difficulty = drawing.check_difficulty(difficulty)
  if artifacts is not None and not set(artifacts) <= set(ARTIFACTS):
    raise ValueError(f'artifacts must be names out of {", ".join(ARTIFACTS)}, not {artifacts!r}.')
  grid = anatomies.make_grid(shape)

  anatomy = anatomies.draw_anatomy(anatomy_rng, family)
  ranks = dict(zip(ARTIFACTS, artifact_rng.random(len(ARTIFACTS))))
  present = {name: ranks[name] < p * difficulty if artifacts is None else name in artifacts
             for name, p in ARTIFACTS.items()}
  attenuation = tissue.draw_trunk(tissue_rng, anatomy, grid, difficulty)
  column = bones.draw_bones(attenuation, anatomy, grid)
  clean = -np.log(exposure.expose(attenuation, grid, exposure.SCATTER, exposure.BLUR))
  tone = exposure.fit_tone_curve(clean, grid)

  draw_artifacts(artifact_rng, attenuation, anatomy, grid, present)
  blurred = present['blur']
  scatter = exposure.SCATTER * (1 + max(difficulty - 1, 0) + 1.5 * blurred)
  light = exposure.expose(attenuation, grid, scatter,
                          exposure.MOTION_BLUR if blurred else exposure.BLUR)
  if difficulty:
    light = exposure.count_photons(photon_rng, light, grid, difficulty)
  truth = find_truth(anatomy, grid, artifacts=present, seed=seed, difficulty=difficulty,
                     shape=shape)
  return XrayCase(tone(-np.log(light)), tone(clean), draw_label(column, grid), truth)


def mirror_xray(case: XrayCase) -> XrayCase:
  """The phantom in a mirror: columns reversed, left and right swapped, angles negated."""
  truth = common.mirror_truth(
      case.truth, ['centerline_cobb', 'centerline_tilts', 'rotation'], ['landmarks', 'centerline'])
  corners = truth.landmarks.reshape(17, 2, 2, 2)[:, :, ::-1]
  truth = dataclasses.replace(truth, landmarks=np.ascontiguousarray(corners).reshape(68, 2))
  return dataclasses.replace(case, truth=truth, **{
      name: common.mirror_image(getattr(case, name)) for name in ('image', 'clean', 'label')})
