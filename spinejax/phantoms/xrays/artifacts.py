"""Artifacts of X-ray phantoms, what the detector makes of the attenuation, and the gray levels."""
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spinejax.phantoms.xrays.anatomy import Anatomy, Grid
from spinejax.phantoms.xrays.stamps import add_bar, add_blob

SPACING = 0.4  # mm per pixel at 1200 rows
PHOTONS = 2000  # mean number per pixel of SPACING without attenuation, at difficulty 1
SCATTER, SCATTER_SIGMA = 0.35, 24.0  # fraction, mm
BLUR, MOTION_BLUR = 0.8 * SPACING, 1.3  # mm
FLATTEN_SIGMA = 30  # mm; larger scales are halved


def draw_artifacts(rng: np.random.Generator, field: np.ndarray, anatomy: Anatomy, grid: Grid,
                   present: dict[str, bool]) -> None:
  """Adds the artifacts that are present. What one looks like does not depend on the others."""
  drawn = {'organ': _draw_organ, 'rods': _draw_rods, 'necklace': _draw_necklace}
  for (name, draw), stream in zip(drawn.items(), rng.spawn(len(drawn))):
    if present[name]:
      draw(stream, field, anatomy, grid)


def _draw_organ(rng: np.random.Generator, field: np.ndarray, anatomy: Anatomy, grid: Grid) -> None:
  """A full stomach or a loaded bowel across the spine, with gas beside it."""
  y = anatomy.at(rng.uniform(0.55, 0.85))
  x = float(anatomy.middle(y)) + rng.normal(-8, 18)
  half, turn = rng.uniform((24, 38), (40, 62)), rng.uniform(-35, 35)
  add_blob(field, grid, (y, x), half, rng.uniform(0.15, 0.38), turn, 12, 2.4)
  for _ in range(2):
    place = (y + rng.normal(0, 0.7) * half[0], x + rng.normal(0, 0.7) * half[1])
    add_blob(field, grid, place, rng.uniform((10, 14), (20, 30)), -rng.uniform(0.25, 0.5),
             rng.uniform(-40, 40), 5, 2.4)


def _draw_rods(rng: np.random.Generator, field: np.ndarray, anatomy: Anatomy, grid: Grid) -> None:
  """One or two rods with hooks or screws, less bent than the spine they hold."""
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
      add_bar(field, grid, start, end, 2.5, 1.1, 0.8)
    for i, (r, c) in enumerate(zip(rows, x)):
      kept = rng.random() < (0.7 if screws else 0.12) or i in (0, 1, len(rows) - 2, len(rows) - 1)
      if kept:
        tip = (r + rng.normal(0, 1.5), c - side * rng.uniform(5, 8) if screws else c + side * 6)
        add_bar(field, grid, (r, c), tip, 2.0, 1.0, 0.8)
        add_blob(field, grid, (r, c), (5, 4.5), 0.9, 0, 1, 4)


def _draw_necklace(rng: np.random.Generator, field: np.ndarray, anatomy: Anatomy, grid: Grid
                   ) -> None:
  """A chain around the neck that hangs over the upper chest, often with a pendant."""
  top, drop = anatomy.at(-0.11), anatomy.at(rng.uniform(0.08, 0.26))
  wide, x = rng.uniform(38, 55), float(anatomy.middle(drop)) + rng.normal(0, 4)
  distance, radius = rng.uniform(2.2, 4.0), rng.uniform(0.7, 1.5)
  t = np.linspace(-1, 1, 400)
  path = np.stack([drop - (drop - top) * np.abs(t)**rng.uniform(1.6, 2.4), x + wide * t], -1)
  length = np.append(0, np.cumsum(np.hypot(*np.diff(path, axis=0).T)))
  at = np.arange(0, length[-1], distance)
  for bead in np.stack([np.interp(at, length, path[:, k]) for k in range(2)], -1):
    add_bar(field, grid, bead, bead, radius, 0.9, 0.8)
  if rng.random() < 0.6:
    add_blob(field, grid, (drop + 7, x), rng.uniform((4, 3), (8, 6)), 1.2, 0, 1, 3)


def expose(attenuation: np.ndarray, grid: Grid, scatter: float = SCATTER,
           blur: float = BLUR) -> np.ndarray:
  """Light behind the patient: exp(-attenuation) with scatter and blur, float32 [H,W]."""
  light = np.exp(-attenuation)
  light += np.float32(scatter) * _blur_widely(light, SCATTER_SIGMA / grid.pixel)
  if blur > 0.35 * grid.pixel:
    light = ndimage.gaussian_filter(light, blur / grid.pixel, truncate=3, mode='nearest')
  return light


def count_photons(rng: np.random.Generator, light: np.ndarray, grid: Grid,
                  difficulty: float) -> np.ndarray:
  """The light with Poisson noise, float32 [H,W]; a pixel counts at least one photon."""
  photons = np.float32(PHOTONS * (grid.pixel / SPACING)**2 / difficulty**2)
  return np.maximum(rng.poisson(light * photons), 1).astype(np.float32) / photons


def fit_tone_curve(clean: np.ndarray, grid: Grid) -> Callable[[np.ndarray], np.ndarray]:
  """A function -log(light) -> uint8: large scales halved, percentiles of `clean` mapped."""

  def flatten(density):
    return density - np.float32(0.5) * _blur_widely(density, FLATTEN_SIGMA / grid.pixel)

  shown = flatten(clean)
  low, high = np.percentile(shown[::2, ::2][clean[::2, ::2] > 0.6], (0.5, 99.7))
  scale = np.float32(1 / (high - low))

  def tone(density):  # metal is brighter than any bone
    t = ((flatten(density) - np.float32(low)) * scale).clip(0, 1.25)
    return np.rint((12 + 225 * t**np.float32(1.1)).clip(0, 255)).astype(np.uint8)

  return tone


def _blur_widely(image: np.ndarray, sigma: float) -> np.ndarray:
  """A Gaussian of many pixels, approximated by three running means."""
  size = max(1, round((4 * sigma**2 + 1)**0.5))
  for _ in range(3):
    for axis in range(2):
      image = ndimage.uniform_filter1d(image, size, axis, mode='nearest')
  return image
