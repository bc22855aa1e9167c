"""Tissue of VPI phantoms: muscle, the spinous column, bones, false bones and gray levels."""
from collections.abc import Callable, Sequence

import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms.vpi_images.anatomy import (
    HEIGHT, LUMP, POWER, PROCESS, RIB, ROWS, SCANNER_SHAPE, Anatomy, Bone, Stamp, stamp_bone)
from spinejax.phantoms.vpi_images.artifacts import Strengths

# Standard deviation of the log amplitude and its scale (y, x) in scanner pixels.
MOTTLING = ((0.06, (6, 8)), (0.11, (15, 17)), (0.12, (36, 36)), (0.06, (75, 75)))
FALSE_BONES = 14  # mean number at difficulty 1
FAINT = {RIB: 0.0, PROCESS: 0.05, LUMP: 0.10}  # fraction of nearly invisible bones at difficulty 1


def draw_tissue(rng: np.random.Generator, blob_rng: np.random.Generator, anatomy: Anatomy,
                stamps: Sequence[Stamp], y: np.ndarray, x: np.ndarray, difficulty: float,
                strengths: Strengths) -> np.ndarray:
  """Amplitude float32 [H,W] of muscle, spinous column, bones and false bones, before noise.

  `blob_rng` draws the false bones that a strength adds or removes.
  """
  mottle = sum(sd * drawing.texture(rng, (y, x), sigma, SCANNER_SHAPE) for sd, sigma in MOTTLING)
  lumbar = np.interp(y, [0.62 * HEIGHT, 0.8 * HEIGHT], [1, 1.6]).astype(np.float32)
  mottle = np.exp(difficulty * strengths.mottling * lumbar * mottle)
  amplitude = mottle * _draw_muscle(anatomy, y, x)

  def draw_blob(rng):
    row, column = rng.uniform((0.04 * HEIGHT, -180), (0.97 * HEIGHT, 180)).tolist()
    column += float(np.interp(row, ROWS, anatomy.edges.mean(0)))
    return Bone(PROCESS, 1, (row, column), rng.uniform(8, 26), rng.uniform(8, 30),
                turn=rng.uniform(-40, 40), depth=rng.uniform(0.10, 0.35), soft=0.3)

  mean = FALSE_BONES * difficulty
  blobs = drawing.vary_number(blob_rng, [draw_blob(rng) for _ in range(rng.poisson(mean))],
                              strengths.false_bones, mean, draw_blob)
  for bone, window, f, depth in [*(stamp_bone(blob, y, x) for blob in reversed(blobs)), *stamps]:
    if bone.rank < FAINT[bone.kind] * difficulty:
      depth = 0.35 * depth
    radius = (f * mottle[window])**(1 / POWER[bone.kind])
    t = (0.5 + (0.95 - radius) / (4.4 * bone.soft)).clip(0, 1)
    amplitude[window] *= 1 - depth * (t * t * (3 - 2 * t))
  return amplitude


def _draw_muscle(anatomy: Anatomy, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Bright muscle along the strip with the spinous column and fading edges, float32 [H,W]."""
  v = ROWS / HEIGHT
  envelope = np.interp(v, [0, 0.15, 0.45, 0.6, 0.72, 0.84, 0.93, 1.0],
                       [0.55, 0.86, 1.02, 0.95, 0.82, 0.62, 0.36, 0.10]) * anatomy.gain
  depth = np.interp(v, [0, 0.1, 0.35, 0.6, 0.75, 1], [0.88, 0.84, 0.62, 0.74, 0.86, 0.90])
  width = np.interp(v, [0, 0.1, 0.3, 0.6, 0.75, 1], [36, 34, 26, 28, 32, 40])
  near = np.exp(-((ROWS[:, None] - anatomy.vertebrae[:, 0]) / 32)**2)
  depth = (depth * (1 + near @ anatomy.beads[:, 0])).clip(0, 0.96)
  width = width * (1 + near @ anatomy.beads[:, 1])

  def at(profile):
    return np.interp(y, ROWS, profile).astype(np.float32)

  x = x.astype(np.float32)
  off = np.abs(x - at(anatomy.axis))
  muscle = 1 + 0.12 * np.exp(-((off - 60) / 55)**2) - 0.10 * (off / 200)**2
  muscle *= at(envelope) * (1 - at(depth) * np.exp(-0.5 * (off / at(width))**2))
  for side, edge, width in zip((1, -1), anatomy.edges, anatomy.contact):
    muscle /= 1 + (at(width) / np.maximum(side * (x - at(edge)), 1))**2
  return muscle


def fit_tone_curve(amplitude: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """A function amplitude -> gray level uint8 that equalizes the histogram of these amplitudes."""
  step = max(1, amplitude.size // 20000)
  levels = np.quantile(amplitude[::step], np.linspace(0, 1, 129))
  top = max(float(levels[-1]), 1e-6)
  table = np.interp(np.linspace(0, top, 4096), levels, np.linspace(0, 255, 129))
  table = np.rint(table).astype(np.uint8)
  return lambda a: table[(a * np.float32(4095 / top)).clip(0, 4095).astype(np.int32)]
