"""Bones of X-ray phantoms: ribs, shoulder and pelvic girdles, the spine, and the lead marker."""
import numpy as np
from scipy import ndimage

from spinejax.phantoms import drawing
from spinejax.phantoms.xrays.anatomy import Anatomy, Grid
from spinejax.phantoms.xrays.stamps import add_bar, add_blob, add_rib, segment_distance, step

BODY, DISC, PEDICLE, SPINOUS = 0.55, 0.25, 0.15, 0.12  # attenuation, natural logarithm

# Per rib T1..T12: reach from the midline and drop to the side of the chest in mm, end in degrees.
_RIB_REACH = np.array([50, 76, 94, 106, 114, 120, 124, 127, 128, 124, 112, 90.0])
_RIB_DROP = np.array([16, 27, 36, 44, 51, 58, 64, 70, 74, 76, 80, 70.0])
_RIB_END = np.array([125, 135, 140, 142, 144, 145, 145, 140, 128, 112, 66, 58.0])

# Bone of T1..L5 relative to L5; the contrast of the thoracic spine is lower.
_STRENGTH = np.interp(np.arange(17), [0, 4, 11, 16], [0.80, 0.72, 0.90, 1.0])

# Strokes (x0, y0, x1, y1) of the letters of the marker.
_LETTERS = {
    'R': ((0, 0, 0, 2), (0, 0, 1, 0), (1, 0, 1, 1), (0, 1, 1, 1), (0.4, 1, 1, 2)),
    'L': ((0, 0, 0, 2), (0, 2, 1, 2))}


def draw_bones(field: np.ndarray, anatomy: Anatomy, grid: Grid) -> np.ndarray:
  """Adds all bones and the marker; returns the silhouette of T1..L5, bool [H,W]."""
  _draw_ribs(field, anatomy, grid)
  _draw_girdles(field, anatomy, grid)
  column = draw_spine(field, anatomy, grid)
  if anatomy.marker:
    letter, side = anatomy.marker
    x, y = side * (grid.x[-1] - 12) - 4, grid.y[0] + 14
    for x0, y0, x1, y1 in _LETTERS[letter]:
      add_bar(field, grid, (y + 6 * y0, x + 7 * x0), (y + 6 * y1, x + 7 * x1), 1.0, 2.0, 0.5)
  return column


def _draw_ribs(field: np.ndarray, anatomy: Anatomy, grid: Grid) -> None:
  """Twelve pairs: from the vertebra out and down to the side, then forward and in, fainter."""
  for i in range(12):
    tilt, (y, x) = np.radians(anatomy.spine.tilts[i]), anatomy.vertebrae[i]
    for k, side in enumerate((-1, 1)):
      phi = np.radians(np.arange(0, _RIB_END[i], 1.0))
      out = side * 0.7 * anatomy.half_widths[i]
      y0 = y - 0.55 * anatomy.half_heights[i] - out * np.sin(tilt)
      drop = _RIB_DROP[i] * anatomy.ribs[i, k] - side * 18 * np.sin(tilt)
      wall = anatomy.middle(y0 + drop) + side * _RIB_REACH[i] * anatomy.size
      across = x + out + side * max(side * (wall - x - out), 15.0) * np.sin(phi)
      down = y0 + drop * (1 - np.cos(phi))**0.8
      down -= max(0, 6 - 0.6 * i) * np.sin(2 * phi.clip(0, np.pi / 2))
      add_rib(field, grid, down, across, 0.32 * anatomy.density, 3.4 if i in (0, 11) else 4.2)


def _draw_girdles(field: np.ndarray, anatomy: Anatomy, grid: Grid) -> None:
  """Clavicles and scapulae, sacrum and iliac wings."""
  spine, density, size = anatomy.spine, anatomy.density, anatomy.size
  for side in (-1, 1):

    def place(u, x):
      return anatomy.at(u), float(anatomy.middle(anatomy.at(u))) + side * x * size

    y, x = np.transpose([place(0.105, 14), place(0.075, 45), place(0.02, 92), place(0.0, 145)])
    smooth = np.interp(np.linspace(0, 3, 60), range(4), y)
    smooth = ndimage.gaussian_filter1d(smooth, 5, mode='nearest')
    add_rib(field, grid, smooth, np.interp(np.linspace(0, 3, 60), range(4), x), 0.27 * density, 5.5)
    add_bar(field, grid, place(0.10, 92), place(0.34, 108), 3.0, 0.14 * density, 3)
    add_blob(field, grid, place(0.2, 128), (62, 36), 0.14 * density, -side * 8.0, 6, 2.5)
    _draw_wing(field, anatomy, grid, side)
  y, x = (np.interp((1.0, 1.1), spine.path_u, way) for way in (anatomy.rows, anatomy.path))
  turn = -float(spine.tilts[-1])
  add_blob(field, grid, (y[0] + 38, x[1]), (35, 29), 0.24 * density, turn, 4, 3.0,
           rim=0.10 * density)
  add_blob(field, grid, (y[0] + 24, x[1]), (21, 52 * size), 0.18 * density, turn, 7, 2.2)
  for i in range(2):
    for side in (-1, 1):
      add_blob(field, grid, (y[0] + 20 + 20 * i, x[1] + side * (17 - 3 * i)), (3, 5),
               -0.16 * density, side * 20.0, 4)
  for i in range(3):
    add_blob(field, grid, (y[0] + 16 + 17 * i, x[1]), (6, 2.5), 0.12 * density, 0, 2)


def _draw_wing(field: np.ndarray, anatomy: Anatomy, grid: Grid, side: int) -> None:
  """An iliac wing: its crest rises outward and falls, its inner edge runs down to the sacrum."""
  top, size = anatomy.at(anatomy.crest), anatomy.size
  rows = np.searchsorted(grid.y, top - 12)
  y = (grid.y[rows:, None] - top).astype(np.float32)
  middle = np.interp(1.06, anatomy.spine.path_u, anatomy.path)
  x = (side * (grid.x[None] - middle) / size).astype(np.float32)
  crest = y - 0.006 * (x - 96)**2 - np.where(x < 96, 0.00012, 0.0003) * np.abs(x - 96)**3
  crest = crest.astype(np.float32)
  inner = x - 30 - 7 * np.sin(y / 26)
  edge = np.minimum(crest, inner)
  bone = (0.20 + 0.16 * np.exp(-edge.clip(0, None) / 14)) * step(edge, max(2.5, 1.2 * grid.pixel))
  bone += 0.12 * np.exp(-((edge - 1.2) / max(1.3, grid.pixel))**2)
  field[rows:] += np.float32(anatomy.density) * bone


def draw_spine(field: np.ndarray, anatomy: Anatomy, grid: Grid) -> np.ndarray:
  """Adds the neck to L5 with their discs; returns the silhouette of T1..L5, bool [H,W]."""
  spine, density = anatomy.spine, anatomy.density
  u = anatomy.along(grid.y)
  center = np.interp(u, spine.path_u, anatomy.path)[:, None].astype(np.float32)
  turn = np.cos(np.radians(np.interp(u, spine.path_u, spine.path_tilts)))
  half = (0.93 * np.interp(u, spine.u, anatomy.half_widths) / turn)[:, None].astype(np.float32)
  distance = half - np.abs(grid.x[None].astype(np.float32) - center)
  tall = step(anatomy.at(1.01) - grid.y, 5)[:, None].astype(np.float32)
  field += np.float32(DISC * density) * step(distance, max(2.0, 1.2 * grid.pixel)) * tall
  between = (u >= spine.u[0]) & (u <= spine.u[-1])
  column = (distance > 0) & between[:, None]

  wide, tall = anatomy.half_widths[0], anatomy.half_heights[0]
  for i in range(7):  # cervical vertebrae above T1
    u = -spine.u[0] * (2 * i + 1)
    neck = (anatomy.rows[0] + (u + 0.1) * (anatomy.rows[-1] - anatomy.rows[0]) / 1.2,
            float(np.interp(u, spine.path_u, anatomy.path)))
    size = max(0.92 - 0.05 * i, 0.8) * wide, 0.95 * tall
    tilt = float(np.interp(u, spine.path_u, spine.path_tilts))
    _draw_vertebra(field, grid, neck, tilt, size, 0.0, 0, density)
  for i in range(17):
    size = anatomy.half_widths[i], anatomy.half_heights[i]
    window, inside = _draw_vertebra(
        field, grid, tuple(anatomy.vertebrae[i]), float(spine.tilts[i]), size,
        anatomy.rotation[i], i, density * _STRENGTH[i])
    column[window] |= inside
  return column


def _draw_vertebra(field: np.ndarray, grid: Grid, center: tuple[float, float], tilt: float,
                   size: tuple[float, float], rotation: float, level: int, density: float
                   ) -> tuple[tuple[slice, ...], np.ndarray]:
  """Adds a body of half `size` (wide, tall) with its posterior parts; its window and silhouette."""
  wide, tall = size
  lumbar = np.interp(level, [9, 13], [0, 1])
  window, (dy, dx) = drawing.window(center, center, (max(tall * 2.6, 30), wide + 30),
                                    (grid.y, grid.x))
  a, b = drawing.rotate(dy, dx, -tilt)
  p, q = a / np.float32(wide), b / np.float32(tall)
  p_body = np.abs(p) / (0.90 + 0.10 * (q * q).clip(0, 1))
  q_body = np.abs(q) / (0.94 + 0.06 * (p * p).clip(0, 1))
  p6, q6 = p_body**6, q_body**6
  r = (p6 + q6)**np.float32(1 / 6)
  distance = (1 - r) * np.float32(min(wide, tall))
  soft = max(1.2, 1.2 * grid.pixel)
  thin = max(0.9, 0.8 * grid.pixel)
  plates = q6 / (p6 + q6 + 1e-6)
  bone = (BODY - DISC) * (0.7 + 0.3 * np.sqrt((1 - p * p).clip(0, 1)))
  bone = bone * step(distance, soft)
  bone += (0.07 + 0.13 * plates) * np.exp(-((distance - 0.9) / thin)**2)

  def ring(x, y, half_x, half_y, fill, rim):
    s = np.sqrt(((a - x) / half_x)**2 + ((b - y) / half_y)**2)
    edge = (1 - s) * min(half_x, half_y)
    return fill * step(edge, soft) + rim * np.exp(-((edge - 0.5) / thin)**2)

  def bar(x0, y0, x1, y1, radius, fill):
    edge = np.float32(radius) - segment_distance(b - np.float32(y0), a - np.float32(x0), y1 - y0,
                                                 x1 - x0)
    return fill * step(edge, 1.5 * soft)

  shift = rotation * wide
  for side in (-1, 1):
    x = side * 0.62 * wide + 0.55 * shift
    bone += ring(x, -0.22 * tall, 2.6 + 1.4 * lumbar, 0.40 * tall, 0.05, PEDICLE)
    bone += bar(0.8 * shift + side * 0.12 * wide, -0.15 * tall, 0.7 * shift + side * 0.45 * wide,
                0.85 * tall, 2.6 + 0.8 * lumbar, 0.07)
    bone += bar(0.7 * shift + side * 0.5 * wide, 0.95 * tall, 0.7 * shift + side * 0.48 * wide,
                1.35 * tall, 2.4 + 1.4 * lumbar, 0.06)
    tip = wide + np.interp(level, [0, 10, 11, 13, 14, 16], [13, 9, 5, 14, 16, 14])
    bone += bar(x, -0.2 * tall, side * tip + 0.4 * shift,
                -tall * np.interp(level, [0, 9, 12], [0.55, 0.35, 0.15]), 3.0, 0.10)
  bone += ring(shift, tall * (0.75 - 0.35 * lumbar), 2.4 + 0.5 * lumbar, 0.55 * tall, SPINOUS, 0.12)
  field[window] += np.float32(density) * bone.astype(np.float32)
  return window, distance > 0
