"""Phantom volume projection images (VPI) of the spine by ultrasound, with exact truth.

Everything is laid out on the scanner's grid of 2560 x 640 pixels of 0.2 mm. Only speckle and sweep
are drawn per pixel. Shapes, depths and textures were fitted to one public image with labels by an
expert.
"""
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from spinejax.phantoms import curves, drawing
from spinejax.phantoms import truth as common
from spinejax.phantoms.vpi_images import anatomy as anatomies
from spinejax.phantoms.vpi_images import artifacts, tissue

MIN_SHAPE = (64, 16)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VpiTruth(common.Truth):
  """`Truth` of a VPI phantom; positions are (row, column)."""
  uca: list[curves.Curve]  # by the extremes rule, from the lines through the pairs of landmarks
  processes: np.ndarray  # [12, 2, 2] level, left and right, (y, x); NaN where out of view
  lumps: np.ndarray  # [5, 2] centroids of the lumps L1..L5
  lump_halves: np.ndarray  # [5, 2, 2] level, left and right, centroids of their halves
  hole_fraction: float  # fraction of the strip that the sweep missed


@dataclasses.dataclass(frozen=True, eq=False)
class VpiCase:
  """A VPI phantom."""
  image: np.ndarray  # uint8 [H,W], 0 outside the swept strip
  clean: np.ndarray  # uint8 [H,W], the same tissue without speckle, gain and holes
  label: np.ndarray  # uint8 [H,W], 0 background, 1 rib, 2 thoracic process, 3 lump
  fov: np.ndarray  # bool [H,W], the swept strip
  truth: VpiTruth


def vpi(seed: int | Sequence[int], shape: tuple[int, ...] = (1024, 256),
        difficulty: float = 1.0, *, family: str | None = None,
        strengths: artifacts.Strengths = artifacts.Strengths(),
        speckle: drawing.Speckle | None = None) -> VpiCase:
  """Draws a VPI phantom: dark bones on bright muscle inside a swept strip.

  Gray levels are equalized inside the strip, image = 255 CDF(amplitude), because the histogram of
  the scanner's own images is flat there. ValueError for arguments outside the ranges below.

    >>> from spinejax import phantoms
    >>> case = phantoms.vpi(7, shape=(512, 128))
    >>> case.image.shape, case.label.shape
    ((512, 128), (512, 128))
    >>> [(curve.upper, curve.lower, round(curve.angle)) for curve in case.truth.cobb]
    [('T1', 'T5', -6), ('T5', 'T11', 29), ('T11', 'L4', -19)]

  Args:
    seed: a non-negative integer or several, such as (base, split, index). Trailing zeros do not
      count: (7, 0, 0) is 7.
    shape: (H, W) of the image, at least 64 x 16.
    difficulty: 0 clean, 1 default, 2 hard, at most 4. It scales speckle, gain, mottling and the
      numbers of false bones, nearly invisible bones and sweep gaps, not anatomy and truth.
    family: curve pattern, a key of `curves.FAMILIES`; None draws one by its probability.
    strengths: factors of the difficulty for each artifact, such as `Strengths(speckle=2.0)`.
    speckle: `speckle(rng, amplitude, spacing) -> amplitude` in place of `projection_speckle`. The
      amplitude is float32 [H,W], the spacing mm per pixel (y, x).
  """
  rngs, shape, difficulty = drawing.check_arguments(seed, shape, difficulty, MIN_SHAPE, 6)
  anatomy_rng, tissue_rng, speckle_rng, sweep_rng, blob_rng, gap_rng = rngs
  height, width = anatomies.SCANNER_SHAPE
  y = ((np.arange(shape[0]) + 0.5) * (height / shape[0]))[:, None]
  x = ((np.arange(shape[1]) + 0.5) * (width / shape[1]))[None, :]
  spacing = (anatomies.SCANNER_SPACING * height / shape[0],
             anatomies.SCANNER_SPACING * width / shape[1])

  anatomy = anatomies.draw_anatomy(anatomy_rng, family)
  fov = anatomy.in_view(y, x)
  stamps = [anatomies.stamp_bone(bone, y, x) for bone in anatomy.bones]
  label = anatomies.draw_label(stamps, fov)
  amplitude = tissue.draw_tissue(
      tissue_rng, blob_rng, anatomy, stamps, y, x, difficulty, strengths)
  sweep, sparse = artifacts.draw_sweep(sweep_rng, gap_rng, shape, difficulty, strengths.holes)
  tone = tissue.fit_tone_curve(amplitude[fov])
  clean = np.where(fov, tone(amplitude), 0).astype(np.uint8)

  if speckle is not None:
    amplitude = drawing.apply_speckle(speckle, speckle_rng, amplitude, spacing)
  elif strength := difficulty * strengths.speckle:
    amplitude = artifacts.projection_speckle(speckle_rng, amplitude, spacing, strength)
  if strength := difficulty * strengths.gain:
    amplitude = amplitude * artifacts.frame_gain(sweep_rng, sweep, shape, strength)
  holes = artifacts.find_holes(sparse, shape) & fov
  image = np.where(fov, tone(amplitude), 0).astype(np.uint8)
  image[holes] = (sweep.gray * image[holes]).astype(np.uint8)
  truth = find_truth(anatomy, spacing=spacing, hole_fraction=float(holes.sum() / max(1, fov.sum())),
                     seed=seed, difficulty=difficulty, shape=shape)
  return VpiCase(image, clean, label, fov, truth)


def find_truth(anatomy: anatomies.Anatomy, *, shape: tuple[int, ...], **rest: Any) -> VpiTruth:
  """The truth of an anatomy, in pixels of `shape`; `rest` are the other fields."""
  seen = anatomy.in_view(*np.moveaxis(anatomy.processes, -1, 0))
  processes = np.where(seen[..., None], anatomy.processes, np.nan)
  lumps = np.stack([_lump_halves(bone) for bone in anatomy.bones if bone.kind == anatomies.LUMP])
  pairs = np.concatenate([processes, lumps])
  dy, dx = np.moveaxis(pairs[:, 1] - pairs[:, 0], -1, 0)
  found = np.flatnonzero(np.isfinite(dy))
  lines = -np.degrees(np.arctan2(dy, dx))[found]
  scale = np.array(shape) / anatomies.SCANNER_SHAPE
  return VpiTruth(
      **common.truth_of_spine(anatomy.spine), shape=shape,
      uca=curves.curve_angles(lines, [curves.LEVELS[i] for i in found]),
      vertebrae=anatomy.vertebrae * scale - 0.5, processes=processes * scale - 0.5,
      lumps=lumps.mean(1) * scale - 0.5, lump_halves=lumps * scale - 0.5, **rest)


def _lump_halves(bone: anatomies.Bone) -> np.ndarray:
  """Centroids (y, x) of the left and right half of a lump, [2, 2] in scanner pixels."""
  b, a = np.mgrid[-110:110:2, 1:170:2].astype(np.float32)
  inside = anatomies.outline(bone, a, b) < 1
  a, b = a[inside].mean(dtype=float), b[inside].mean(dtype=float)
  angle = np.radians(bone.turn)
  return np.array(bone.center) + np.array([
      (s * a * np.sin(angle) + b * np.cos(angle), s * a * np.cos(angle) - b * np.sin(angle))
      for s in (-1, 1)])
