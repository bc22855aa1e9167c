"""Artifacts of VPI phantoms: speckle, gain and the gaps of a sweep."""
import copy
import dataclasses
from typing import NamedTuple

import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms.vpi_images.anatomy import HEIGHT, ROWS, SCANNER_SPACING, WIDTH, wander

GAPS = 1.3  # mean number of stretches with frames further apart, at difficulty 1
# Ranges of the row of a gap in the image, its length in scanner pixels, and the pixels that it adds
# between two frames.
GAP_RANGES = ((0.08, 0.95), (5.0, 28.0), (0.3, 1.0))
FRAME_DISTANCE = 0.62  # pixels of the image between two frames
MAX_STRENGTH = 100  # beyond it an image is nothing but the artifact


@dataclasses.dataclass(frozen=True)
class Strengths:
  """Factors of the difficulty, one for each artifact; 1 is as difficult as the rest of the image.

  A factor changes its own artifact only: the random numbers of the others stay the same. ValueError
  for a factor outside of 0 to MAX_STRENGTH.
  """
  speckle: float = 1.0      # relative contrast of the speckle
  mottling: float = 1.0     # log amplitude of the tissue's texture
  gain: float = 1.0         # relative variation of the gain along the frames
  holes: float = 1.0        # mean number of places with missing frames
  false_bones: float = 1.0  # mean number of dark blobs that are no bones

  def __post_init__(self):
    for name, value in vars(self).items():
      if not 0 <= value <= MAX_STRENGTH:
        raise ValueError(f'the strength of {name} must be a number from 0 to {MAX_STRENGTH}, '
                         f'not {value}.')


class Sweep(NamedTuple):
  """Where the frames of a sweep cross the image, in its pixels."""
  rows: np.ndarray  # [n] row of each frame at the middle column
  slopes: np.ndarray  # [n] rows per column
  sparse: bool  # whether some frames lie further apart than usual
  gray: float  # fraction of the gray level that is left between those


def projection_speckle(rng: np.random.Generator, amplitude: np.ndarray,
                       spacing: tuple[float, ...], strength: float = 1.0) -> np.ndarray:
  """Speckle that is left by averaging about 16 looks: amplitude * max(0, 1 + strength n / 9.5).

  n is Gaussian noise of variance 1. One half is smooth over 2.7 scanner pixels both ways; the other
  is independent from row to row and smooth over 1.4 pixels along it. Together with gain and
  mottling this gives the texture of a real image at a strength of 1. Pixels larger than the
  scanner's keep its contrast, as after resizing by sampling. The amplitude is float32 [H,W], the
  spacing mm (y, x).
  """
  sy, sx = (SCANNER_SPACING / s for s in spacing)
  white = rng.standard_normal(amplitude.shape, dtype=np.float32)
  noise = drawing.smooth(drawing.smooth(white, 2.6 * sx, 1), 2.8 * sy, 0)
  noise = drawing.smooth(white, 1.4 * sx, 1) + noise
  noise *= np.float32(strength / 9.5 / max(noise.std(), 1e-6))
  return amplitude * np.maximum(noise + 1, 0)


def draw_sweep(rng: np.random.Generator, gap_rng: np.random.Generator, shape: tuple[int, ...],
               difficulty: float, factor: float) -> tuple[Sweep, Sweep]:
  """A sweep with Poisson(1.3 difficulty) gaps, and the same with `factor` times as many.

  The gain follows the first, the holes are those of the second. `gap_rng` draws the difference.
  """
  mean = GAPS * difficulty
  count = rng.poisson(mean)
  gaps = np.stack([rng.uniform(low, high, count) for low, high in GAP_RANGES])
  gray = rng.uniform(0, 0.08)
  tilt = rng.choice([-1, 1]) * rng.uniform(0.8, 3) + rng.uniform(0.3, 1) * wander(rng, 150)
  slopes = np.tan(np.radians(tilt))
  varied = drawing.vary_number(
      gap_rng, gaps.T, factor, mean, lambda rng: rng.uniform(*np.transpose(GAP_RANGES)))
  same_rng = copy.deepcopy(rng)
  return (_place_frames(rng, gaps, slopes, gray, shape),
          _place_frames(same_rng, np.reshape(varied, (-1, 3)).T, slopes, gray, shape))


def _place_frames(rng: np.random.Generator, gaps: np.ndarray, slopes: np.ndarray, gray: float,
                  shape: tuple[int, ...]) -> Sweep:
  """Frames 0.62 pixels apart with 15 % jitter, further apart in gaps [3, n] of GAP_RANGES.

  `slopes` are those of the scanner's rows.
  """
  height, width = shape
  rows = np.arange(height) + 0.5
  distance = (rows[:, None] * (HEIGHT / height) - gaps[0] * HEIGHT) / gaps[1]
  spacing = FRAME_DISTANCE + np.exp(-0.5 * distance**2) @ gaps[2]
  count = np.append(0, np.cumsum(1 / spacing))
  steps = np.cumsum(1 + 0.15 * rng.standard_normal(int(count[-1])))
  frames = np.interp(steps, count, np.arange(height + 1) - 0.5)
  slopes = np.interp(frames * (HEIGHT / height), ROWS, slopes)
  return Sweep(frames, slopes * (WIDTH / width) / (HEIGHT / height), gaps.size > 0, gray)


def find_holes(sweep: Sweep, shape: tuple[int, ...]) -> np.ndarray:
  """Pixels that the line of no frame rounds to, bool [H,W]."""
  holes = np.zeros(shape, bool)
  if not sweep.sparse:
    return holes
  columns = np.arange(shape[1]) - (shape[1] - 1) / 2

  def line(frames):
    slopes = sweep.slopes[frames, None]
    return np.rint(sweep.rows[frames, None] + slopes * columns).astype(int)

  apart = np.flatnonzero(np.diff(sweep.rows) > 0.75)
  above = line(apart)
  missed = line(apart + 1) - above - 1
  for k in range(1, 1 + missed.max(initial=0)):
    frame, column = np.nonzero((missed >= k) & (above + k >= 0) & (above + k < shape[0]))
    holes[above[frame, column] + k, column] = True
  return holes


def frame_gain(rng: np.random.Generator, sweep: Sweep, shape: tuple[int, ...],
               difficulty: float) -> np.ndarray:
  """Gain along the frames, float32 [H,W]: 2 % a row and 4.5 % in streaks, more where sparse."""
  height, width = shape
  spacing = np.interp(np.arange(height), sweep.rows[1:], np.diff(sweep.rows)).astype(np.float32)
  gain = 0.02 * rng.standard_normal((height, 1), dtype=np.float32)
  streaks = drawing.spline((np.arange(width) + 0.5) * (WIDTH / width), 40, WIDTH)
  streaks = rng.standard_normal((height, streaks.shape[1]), dtype=np.float32) @ streaks.T
  gain = 1 + (gain + 0.045 * streaks) * (
      spacing[:, None] * np.float32(difficulty / FRAME_DISTANCE))
  slope = np.interp(np.arange(height), sweep.rows, sweep.slopes)[:, None]
  rows = np.arange(height)[:, None] - slope * (np.arange(width) - (width - 1) / 2)
  return np.take_along_axis(gain, np.rint(rows).astype(int).clip(0, height - 1), 0)
