"""Phantom posteroanterior X-rays of the spine with exact truth.

Everything is laid out in millimeters, x from the middle of the image and y from the top of a field
480 mm high. The patient is seen from behind, as surgeons look at scoliosis: the patient's right is
on the right of the image, the heart on the left.
"""
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, drawing
from spinejax.phantoms import truth as common
from spinejax.phantoms.xrays import anatomy as anatomies
from spinejax.phantoms.xrays import artifacts as spoilers
from spinejax.phantoms.xrays import bones, tissue

MIN_SHAPE = (64, 16)
ARTIFACTS = {'necklace': 0.10, 'rods': 0.10, 'organ': 0.15, 'blur': 0.12}  # probabilities
BACKGROUND, SPINE, BORDER = range(3)
BORDER_WIDTH = 3.375  # mm: 3 of 160 columns of an image 180 mm wide


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class XrayTruth(common.Truth):
  """`Truth` of an X-ray phantom; positions are (row, column).

  The landmarks are the corners of the bodies in the order of AASCE: at each level top left, top
  right, bottom left, bottom right.
  """
  centerline_cobb: list[curves.Curve]  # by the extremes rule, from the direction of the centerline
  landmarks: np.ndarray  # [68, 2]
  centerline: np.ndarray  # [201, 2] from the upper face of T1 to the lower face of L5
  centerline_tilts: np.ndarray  # [201]
  rotation: np.ndarray  # [17] shift of the spinous process in half widths, positive to the right
  artifacts: dict[str, bool]  # whether each artifact is present


@dataclasses.dataclass(frozen=True, eq=False)
class XrayCase:
  """An X-ray phantom.

  The label is the trimap of the bodies and discs T1..L5: 0 background, 1 core of the spine, 2
  border, a band 3.4 mm wide (at least two pixels) along the outline, half of it inside.
  """
  image: np.ndarray  # uint8 [H,W]
  clean: np.ndarray  # uint8 [H,W], the same patient without artifacts and photon noise
  label: np.ndarray  # uint8 [H,W]
  truth: XrayTruth


def xray(seed: int | Sequence[int], shape: tuple[int, ...] = (1200, 450),
         difficulty: float = 1.0, *, family: str | None = None,
         artifacts: Sequence[str] | None = None) -> XrayCase:
  """Draws an X-ray phantom: bright bones on what the rest of the trunk lets through.

  photons = Poisson(2000 T) per pixel of 0.4 mm, where T = exp(-attenuation) + 0.35 of the same
  blurred by scatter. gray is a contrast curve of -log(photons) with compressed large scales, as
  radiography stations show it. Pixels are square. The field is 480 mm high and as wide as the shape
  requires. A shape narrower than 1:4 gives a field that is 120 mm wide and higher. ValueError for
  arguments outside the ranges below.

    >>> from spinejax import phantoms
    >>> case = phantoms.xray(7, shape=(240, 90), artifacts=['rods'])
    >>> case.image.shape, case.truth.landmarks.shape
    ((240, 90), (68, 2))

  Args:
    seed, family: as in `vpi`.
    shape: (H, W) of the image, at least 64 x 16.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. It scales photon noise, mottling, bowel gas
      and the probability of each artifact, and above 1 the scatter, not anatomy and truth.
    artifacts: names from ARTIFACTS; None draws them by their probability.
  """
  (anatomy_rng, tissue_rng, photon_rng, artifact_rng), shape, difficulty = drawing.check_arguments(
      seed, shape, difficulty, MIN_SHAPE, 4)
  if artifacts is not None and not set(artifacts) <= set(ARTIFACTS):
    raise ValueError(f'artifacts must be names out of {", ".join(ARTIFACTS)}, not {artifacts!r}.')
  grid = anatomies.make_grid(shape)

  anatomy = anatomies.draw_anatomy(anatomy_rng, family)
  ranks = dict(zip(ARTIFACTS, artifact_rng.random(len(ARTIFACTS))))
  present = {name: ranks[name] < p * difficulty if artifacts is None else name in artifacts
             for name, p in ARTIFACTS.items()}
  attenuation = tissue.draw_trunk(tissue_rng, anatomy, grid, difficulty)
  column = bones.draw_bones(attenuation, anatomy, grid)
  clean = -np.log(spoilers.expose(attenuation, grid))
  tone = spoilers.fit_tone_curve(clean, grid)

  spoilers.draw_artifacts(artifact_rng, attenuation, anatomy, grid, present)
  blurred = present['blur']
  light = spoilers.expose(
      attenuation, grid, spoilers.SCATTER * (1 + max(difficulty - 1, 0) + 1.5 * blurred),
      spoilers.MOTION_BLUR if blurred else spoilers.BLUR)
  if difficulty:
    light = spoilers.count_photons(photon_rng, light, grid, difficulty)
  truth = find_truth(anatomy, grid, artifacts=present, seed=seed, difficulty=difficulty,
                     shape=shape)
  return XrayCase(tone(-np.log(light)), tone(clean), draw_label(column, grid), truth)


def find_truth(anatomy: anatomies.Anatomy, grid: anatomies.Grid, **rest: Any) -> XrayTruth:
  """The truth of an anatomy in pixels of the grid; `rest` are the other fields."""
  spine = anatomy.spine

  def to_pixels(points):
    return (points - (grid.y[0], grid.x[0])) / grid.pixel

  u = np.linspace(0, 1, 201)
  rows, columns, tilts = (np.interp(u, spine.path_u, profile)
                          for profile in (anatomy.rows, anatomy.path, spine.path_tilts))
  names = [curves.LEVELS[i] for i in np.abs(u[:, None] - spine.u).argmin(1)]
  cos, sin = np.cos(np.radians(spine.tilts)), np.sin(np.radians(spine.tilts))
  right = np.stack([-sin, cos], -1) * (0.95 * anatomy.half_widths)[:, None]
  down = np.stack([cos, sin], -1) * (0.97 * anatomy.half_heights)[:, None]
  corners = np.stack([anatomy.vertebrae + i * down + j * right
                      for i in (-1, 1) for j in (-1, 1)], 1)
  return XrayTruth(
      **common.truth_of_spine(spine), **rest, spacing=(grid.pixel, grid.pixel),
      centerline_cobb=curves.curve_angles(tilts, names), rotation=anatomy.rotation,
      vertebrae=to_pixels(anatomy.vertebrae), landmarks=to_pixels(corners.reshape(68, 2)),
      centerline=to_pixels(np.stack([rows, columns], -1)), centerline_tilts=tilts)


def draw_label(column: np.ndarray, grid: anatomies.Grid) -> np.ndarray:
  """Trimap uint8 [H,W] of a silhouette, with a border of at least two pixels."""
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
