"""Soft tissue of X-ray phantoms: trunk, lungs, heart, diaphragm and bowel."""
import numpy as np
from scipy import ndimage

from spinejax.phantoms import drawing
from spinejax.phantoms.xrays.anatomy import FIELD_HEIGHT, Anatomy, Grid
from spinejax.phantoms.xrays.stamps import add_bar, add_blob, step

# Standard deviation of the attenuation of the belly and its scale (y, x) in mm.
MOTTLING = ((0.05, (16, 18)), (0.035, (5, 6)))
TEXTURE_EXTENT = (FIELD_HEIGHT, FIELD_HEIGHT)  # mm; beyond it the texture of its edge goes on


def draw_trunk(rng: np.random.Generator, anatomy: Anatomy, grid: Grid,
               difficulty: float) -> np.ndarray:
  """Attenuation float32 [H,W] of soft tissue, lungs, heart, diaphragm and bowel."""
  u = anatomy.along(grid.y)
  off = (grid.x[None] - anatomy.middle(grid.y)[:, None]).astype(np.float32)
  side = np.abs(off)
  half = np.interp(u, [-0.12, -0.03, 0.03, 0.1, 0.2, 0.35, 0.55, 0.75, 0.92, 1.1],
                   [60, 75, 120, 160, 168, 158, 148, 134, 150, 165]) * anatomy.size
  half = _column(ndimage.gaussian_filter1d(half, 10 / grid.pixel, mode='nearest'))
  thick = np.interp(u, [-0.1, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1],
                    [1.5, 1.9, 2.1, 2.1, 2.15, 2.1, 2.2, 2.4]) * anatomy.thickness
  trunk = _column(thick) * np.sqrt((1 - (off / half)**2).clip(0, None))

  y = _column(grid.y)
  floor = np.where(off < 0, *(_dome(anatomy, side, i) for i in range(2)))
  lungs = _lungs(anatomy, y, side, floor)
  trunk -= lungs * (1 - _vessels(rng, anatomy, grid, y, side))
  mediastinum = _column(np.interp(u, [-0.05, 0.04, 0.25, 0.4], [0, 0.22, 0.16, 0]))
  trunk += mediastinum * step(28 - side, 26)
  trunk += _heart(anatomy, grid) * (0.2 + 0.8 * (lungs / max(float(lungs.max()), 1e-6)))
  _add_airway(trunk, anatomy, grid)

  belly = step(y - floor, 3.0) * step(half * 0.93 - side, 15)
  liver = step(off + 20 - 0.35 * (y - anatomy.at(0.55)), 30) * step(anatomy.at(0.80) - y, 30)
  trunk += belly * (0.05 + 0.16 * liver)
  for sd, sigma in MOTTLING:
    trunk += np.float32(sd * difficulty) * (0.4 + 0.6 * belly) * _texture(rng, grid, sigma)
  psoas = _column(12 + 30 * ((u - 0.7).clip(0, 0.3) / 0.3)**0.7 + 14)
  trunk += _column(np.interp(u, [0.7, 0.8, 1.0], [0, 0.09, 0.05])) * step(psoas - side, 9)
  trunk += _gas(rng, anatomy, grid, difficulty).clip(-0.55, None) * belly
  return np.maximum(trunk, 0)


def _column(profile: np.ndarray) -> np.ndarray:
  return profile[:, None].astype(np.float32)


def _texture(rng: np.random.Generator, grid: Grid, sigma: tuple[float, float]) -> np.ndarray:
  centered = (grid.y - FIELD_HEIGHT / 2, grid.x)
  points = tuple((p + e / 2).clip(0, e) for p, e in zip(centered, TEXTURE_EXTENT))
  return drawing.texture(rng, points, sigma, TEXTURE_EXTENT)


def _dome(anatomy: Anatomy, side: np.ndarray, index: int) -> np.ndarray:
  """y of the diaphragm over the distance from the midline."""
  t = (side / anatomy.size - 52) / 62
  return (anatomy.at(anatomy.domes[index]) + 10 * t**2 + 34 * t.clip(0, None)**4).astype(np.float32)


def _lungs(anatomy: Anatomy, y: np.ndarray, side: np.ndarray, floor: np.ndarray) -> np.ndarray:
  """Attenuation that the air of the lungs saves, from y [H,1] and distance from the midline."""
  u = anatomy.along(y)
  lateral = np.interp(u, [-0.02, 0.03, 0.08, 0.15, 0.3, 0.5, 0.65],
                      [20, 44, 66, 88, 112, 122, 122]) * anatomy.size
  medial = np.interp(u, [0.0, 0.1, 0.2, 0.26, 0.35, 0.5], [16, 18, 24, 22, 20, 18]) * anatomy.size
  depth = np.minimum(lateral.astype(np.float32) - side, side - medial.astype(np.float32))
  depth = np.minimum(depth, np.minimum(floor - y, y - np.float32(anatomy.at(0.005))))
  air = np.interp(u, [0, 0.12, 0.3, 0.55], [0.65, 1.0, 1.12, 1.0]) * anatomy.thickness
  return air.astype(np.float32) * (1 - np.exp(-(depth.clip(0, None) / 11)**1.4))


def _vessels(rng: np.random.Generator, anatomy: Anatomy, grid: Grid, y: np.ndarray,
             side: np.ndarray) -> np.ndarray:
  """Fraction of the air that hila, mottling and vessels take; each vessel has three parts."""
  hila = np.exp(-((y - np.float32(anatomy.at(0.28))) / 55)**2 - ((side - 34) / 38)**2)
  mottle = sum(_texture(rng, grid, sigma) for sigma in ((3, 3), (7, 6)))
  field = 0.04 * (0.6 + hila) * mottle + 0.22 * hila
  for right in (-1, 1):
    hilum = anatomy.at(0.27 if right < 0 else 0.29)
    x = float(anatomy.middle(hilum)) + right * 30
    for angle in np.linspace(-1.3, 1.4, 12) + rng.normal(0, 0.16, 12):
      start, radius = (hilum + rng.normal(0, 12), x + rng.normal(0, 5)), rng.uniform(1.2, 2.4)
      for length in rng.uniform(14, 32, 3):
        end = (start[0] + length * np.sin(angle), start[1] + right * length * np.cos(angle))
        add_bar(field, grid, start, end, radius, 0.09, 2.5)
        start, radius, angle = end, 0.7 * radius, angle + rng.normal(0, 0.35)
  return field


def _heart(anatomy: Anatomy, grid: Grid) -> np.ndarray:
  """Attenuation of the heart, the arch of the aorta and its descending part."""
  field = np.zeros((len(grid.y), len(grid.x)), np.float32)
  drop, shift, tall, wide, turn = anatomy.heart
  y = anatomy.vertebrae[7, 0] + drop
  middle = float(anatomy.middle(y))
  add_blob(field, grid, (y, middle + shift), (tall, wide), 0.55, turn, 14, 2.3)
  add_blob(field, grid, (anatomy.at(0.2), middle - 18), (13, 14), 0.25, 0, 5)
  add_blob(field, grid, (anatomy.at(0.36), middle - 10), (75, 13), 0.14, 0, 5)
  return field


def _add_airway(trunk: np.ndarray, anatomy: Anatomy, grid: Grid) -> None:
  top, fork = anatomy.at(-0.1), anatomy.at(0.22)
  x = [float(anatomy.middle(y)) for y in (top, fork)]
  add_bar(trunk, grid, (top - 20, x[0]), (fork, x[1] + 2), 7.0, -0.20, 4)
  add_bar(trunk, grid, (fork, x[1] + 2), (fork + 26, x[1] + 24), 5.0, -0.08, 5)
  add_bar(trunk, grid, (fork, x[1] + 2), (fork + 32, x[1] - 30), 4.0, -0.07, 5)


def _gas(rng: np.random.Generator, anatomy: Anatomy, grid: Grid, difficulty: float) -> np.ndarray:
  """Stomach bubble under the left dome, colon along the flanks, small bowel between them."""
  gas = np.zeros((len(grid.y), len(grid.x)), np.float32)
  y, x = anatomy.at(anatomy.domes[0]) + 24, float(anatomy.middle(anatomy.at(0.55))) - 52
  add_blob(gas, grid, (y + rng.normal(0, 4), x + rng.normal(0, 8)),
           rng.uniform((9, 16), (20, 32)), -rng.uniform(0.2, 0.45), rng.uniform(-25, 25), 7, 2.4)
  u, off = anatomy.along(grid.y), grid.x[None] - anatomy.middle(grid.y)[:, None]
  flank = np.abs(np.abs(off) / anatomy.size - 82).astype(np.float32)
  bowel = _texture(rng, grid, (9, 10))
  bowel += 0.35 * _texture(rng, grid, (3, 3.5))
  low = _column(np.interp(u, [0.58, 0.72], [2.0, 0.0]))
  bowel -= np.float32(2.3 - 0.45 * difficulty**0.5) - np.exp(-(flank / 30)**2) + low
  gas -= 0.42 * np.tanh(bowel.clip(0, None))
  gas += 0.05 * np.exp(-(bowel / 0.12)**2)
  return gas
