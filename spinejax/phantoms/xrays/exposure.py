"""From attenuation to gray levels: scatter, blur, photons and the contrast curve."""
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spinejax.phantoms.xrays.anatomy import Grid

SPACING = 0.4  # mm per pixel at 1200 rows
PHOTONS = 2000  # mean number per pixel of SPACING without attenuation, at difficulty 1
SCATTER, SCATTER_SIGMA = 0.35, 24.0  # fraction, mm
BLUR, MOTION_BLUR = 0.8 * SPACING, 1.3  # mm
FLATTEN_SIGMA = 30  # mm; larger scales are halved


def expose(attenuation: np.ndarray, grid: Grid, scatter: float, blur: float) -> np.ndarray:
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
  """A function -log(light) -> gray level uint8: large scales halved, percentiles of `clean` mapped.
  """

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
