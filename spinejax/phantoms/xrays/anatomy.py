"""Anatomy of X-ray phantoms in millimeters, and the grid of pixels that sees it."""
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, drawing

FIELD_HEIGHT = 480.0  # mm
FIELD_WIDTH = 120.0  # mm, at least
BODY_HEIGHT = 0.78  # height of a vertebral body, fraction of the distance between two levels

# Half widths of the end plates T1..L5, mm (adult means).
HALF_WIDTHS = np.array([14.0, 13.0, 12.4, 12.4, 12.8, 13.4, 14.0, 14.7, 15.5, 16.3, 17.5, 18.8,
                        20.0, 21.0, 22.0, 23.0, 23.6])


class Grid(NamedTuple):
  """Pixel centers in mm."""
  y: np.ndarray  # [H]
  x: np.ndarray  # [W]
  pixel: float  # distance between two


class Anatomy(NamedTuple):
  """One patient in mm; profiles are sampled at spine.path_u."""
  spine: curves.Spine
  rows: np.ndarray  # [1201] y of the center of the spine
  path: np.ndarray  # [1201] x of the center of the spine
  midline: np.ndarray  # [1201] x of the middle of the trunk
  vertebrae: np.ndarray  # [17, 2] centers (y, x)
  half_widths: np.ndarray  # [17] of the vertebral bodies
  half_heights: np.ndarray  # [17] of the vertebral bodies
  rotation: np.ndarray  # [17] sideways shift of the posterior parts, half widths
  size: float  # sideways scale of the trunk
  ribs: np.ndarray  # [12, 2] drop of the left and right ribs relative to the mean
  domes: np.ndarray  # [2] u of the left and right dome of the diaphragm
  heart: np.ndarray  # (y, x) relative to T8 and the midline, half height, half width, turn
  crest: float  # u of the iliac crests
  density: float  # factor of all bone
  thickness: float  # factor of soft tissue
  marker: tuple[str, int] | None  # letter and side of the lead marker

  def at(self, u: float) -> float:
    """y of a fraction u of the spine."""
    return float(np.interp(u, self.spine.path_u, self.rows))

  def middle(self, y: np.ndarray | float) -> np.ndarray:
    """x of the middle of the trunk at y."""
    return np.interp(y, self.rows, self.midline)

  def along(self, y: np.ndarray) -> np.ndarray:
    """u of y, extrapolated beyond the ends of the spine."""
    return (y - self.rows[0]) / (self.rows[-1] - self.rows[0]) * 1.2 - 0.1


def make_grid(shape: tuple[int, ...]) -> Grid:
  """Square pixels that cover the field."""
  height, width = shape
  pixel = max(FIELD_HEIGHT / height, FIELD_WIDTH / width)
  y = (np.arange(height) + 0.5 - height / 2) * pixel + FIELD_HEIGHT / 2
  return Grid(y, (np.arange(width) + 0.5 - width / 2) * pixel, pixel)


def draw_anatomy(rng: np.random.Generator, family: str | None) -> Anatomy:
  """Draws a patient."""
  spine = curves.sample_curve(rng, family)
  cranial, caudal = FIELD_HEIGHT * rng.uniform((0.045, 0.88), (0.09, 0.94))
  length = caudal - cranial
  u = spine.path_u
  rows, path = cranial + u * length, length * spine.path_x
  inside = (u >= 0) & (u <= 1)
  path = path - (path[inside].min() + path[inside].max()) / 2 + drawing.normal(rng, 0, 4, -8, 8)
  midline = rng.uniform(0.3, 0.6) * ndimage.gaussian_filter1d(path, 250, mode='nearest')
  size = drawing.normal(rng, 0.95, 0.06, 0.8, 1.1)
  turning = np.interp(spine.u, u, curves.axial_rotation(rng, spine))
  half_heights = np.gradient(spine.u) * length / 2 * BODY_HEIGHT
  return Anatomy(
      spine=spine, rows=rows, path=path, midline=midline,
      vertebrae=np.stack([np.interp(spine.u, u, profile) for profile in (rows, path)], -1),
      half_widths=HALF_WIDTHS * size * (1 + 0.02 * rng.standard_normal(17)),
      half_heights=half_heights * (1 + 0.02 * rng.standard_normal(17)),
      rotation=-1.1 * np.sin(np.radians(turning)), size=size,
      ribs=1 + 0.08 * rng.standard_normal((12, 2)),
      domes=rng.uniform(0.46, 0.53) + np.array([0.025, 0.0]) + rng.normal(0, 0.008, 2),
      heart=np.append(rng.normal(0, 6), rng.uniform((-30, 50, 42, -35), (-20, 62, 54, -10))),
      crest=rng.uniform(0.90, 0.95), density=rng.uniform(0.60, 0.95),
      thickness=rng.uniform(0.85, 1.15),
      marker=('LR'[rng.integers(2)], int(rng.choice([-1, 1]))) if rng.random() < 0.5 else None)
