"""Tissue of volume phantoms: skin, muscle, fascia, echoes and shadows of plates, compression."""
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from spinejax.phantoms import drawing
from spinejax.phantoms.volumes.anatomy import Anatomy, Plate

MUSCLE = 0.055  # mean amplitude
SKIN = 0.5  # mean amplitude
FULL_SCALE = 1.2  # amplitude of gray level 255
DYNAMIC_RANGE = 45.0  # dB from gray level 0 to 255

Grid = Sequence[np.ndarray]  # voxel centers along each axis, mm


def draw_tissue(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> np.ndarray:
  """Amplitude float32 [D,H,W] of muscle with two or three sheets of fascia."""

  def draw(*sigma):
    return drawing.texture(rng, grid[:len(sigma)], sigma, anatomy.extent)

  tissue = 0.30 * draw(9.6, 4.5, 3.8)
  tissue += 0.25 * draw(19, 9, 2.4)
  tissue = np.exp(tissue, out=tissue)
  tissue *= np.float32(MUSCLE)
  near = grid[2][grid[2] < 16].astype(np.float32)
  for _ in range(rng.integers(2, 4)):
    depth = np.float32(rng.uniform(1, 8)) + np.float32(1.6) * draw(30, 25)
    echo = np.float32(0.08 * rng.uniform(0.5, 1.2)) * np.exp(np.float32(0.4) * draw(12, 6))
    off = (near - depth[:, :, None]) / np.float32(0.7)
    tissue[:, :, :len(near)] += echo[:, :, None] * np.exp(-0.5 * off.clip(-9, 9)**2)
  return tissue


def add_plates(rng: np.random.Generator, amplitude: np.ndarray, plates: Sequence[Plate],
               anatomy: Anatomy, grid: Grid) -> None:
  """Adds the echoes of all plates and multiplies by their shadows, in place.

  A smooth field over the coronal plane bends outlines and varies echoes, as rough bone does.
  """
  rough = np.exp(0.25 * drawing.texture(rng, grid[:2], (3.0, 2.4), anatomy.extent))[:, :, None]
  bottom, step = grid[2][-1], grid[2][1] - grid[2][0]
  transmission = np.ones_like(amplitude)
  for plate in plates:
    reach = 1.7 * max(plate.half_length, plate.half_width)
    top = plate.center[2] - reach * np.abs(plate.slopes).sum() - 4
    window, (dz, dx, dd) = drawing.window(
        plate.center, (*plate.center[:2], (top + bottom) / 2),
        (reach, reach, (bottom - top) / 2 + step), grid)
    across, down = drawing.rotate(dz, dx, -plate.turn)
    radius = np.hypot(across / plate.half_width, down / plate.half_length)
    foot = expit((1 - radius * rough[window[:2]]**-0.4) / 0.15)
    off = dd - (plate.slopes[0] * down + plate.slopes[1] * across)
    sigma = np.hypot(plate.thickness, step / 12**0.5)
    echo = np.exp(-0.5 * (off / sigma).clip(-9, 9)**2)
    amplitude[window] += plate.echo * plate.thickness / sigma * foot * rough[window[:2]] * echo
    transmission[window] *= 1 - plate.shadow * foot * (off / 2.4).clip(0, 1)
  amplitude *= transmission


def attenuate(rng: np.random.Generator, amplitude: np.ndarray, anatomy: Anatomy,
              grid: Grid) -> None:
  """Multiplies by the dark spinous column and by the attenuation with depth, in place."""

  def at(profile):
    return np.interp(grid[0], anatomy.rows, profile)

  def wander(sigma):
    return drawing.texture(rng, grid[:1], (sigma,), anatomy.extent)

  u = at(anatomy.spine.path_u)
  width = np.interp(u, [0, 0.5, 0.7, 1], [2.6, 2.2, 2.8, 3.6]) * np.exp(0.2 * wander(8))
  column = at(anatomy.column) + 0.5 * wander(10)
  shade = (0.75 + 0.12 * wander(7)).clip(0.4, 0.95)[:, None]
  shade = shade * np.exp(-0.5 * ((grid[1] - column[:, None]) / width[:, None])**2)
  onset = 0.3 + 0.7 * expit((grid[2] - at(anatomy.depth)[:, None] + 7) / 1.2)
  amplitude *= 1 - shade.astype(np.float32)[:, :, None] * onset.astype(np.float32)[:, None, :]
  loss = np.interp(u, [0, 0.55, 0.75, 1], [0.045, 0.040, 0.065, 0.085])
  amplitude *= np.exp(-loss[:, None] * grid[2]).astype(np.float32)[:, None, :]


def add_skin(rng: np.random.Generator, amplitude: np.ndarray, anatomy: Anatomy,
             grid: Grid) -> None:
  """Adds the bright layer of gel and skin next to the probe, in place.

  It is 2 to 3.5 mm thick and ends 2.5 mm or more above the shallowest lamina. A voxel has the part
  of the echo that the layer takes of it.
  """

  def draw(*sigma):
    return drawing.texture(rng, grid[:2], sigma, anatomy.extent)[:, :, None]

  shallowest = min(plate.center[2] for plate in anatomy.laminae)
  bottom = np.float32(min(rng.uniform(2, 3.5), shallowest - 2.5)) + np.float32(0.2) * draw(30, 25)
  step = grid[2][1] - grid[2][0]
  near = grid[2][grid[2] < 5 + step].astype(np.float32)
  part = ((bottom - near) / np.float32(step) + np.float32(0.5)).clip(0, 1)
  amplitude[:, :, :len(near)] += part * np.float32(SKIN) * np.exp(np.float32(0.25) * draw(12, 6))


def compress(amplitude: np.ndarray) -> np.ndarray:
  """Gray levels float32: 0 at -45 dB and 255 at full scale."""
  gray = np.log(np.maximum(amplitude, 1e-6))
  gray *= np.float32(255 / DYNAMIC_RANGE * 20 / np.log(10))
  gray += np.float32(255 - 255 / DYNAMIC_RANGE * 20 * np.log10(FULL_SCALE))
  return gray.clip(0, 255, out=gray)
