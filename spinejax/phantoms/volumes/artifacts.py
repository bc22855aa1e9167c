"""Artifacts of volume phantoms: missed laminae, false plates, speckle, gain and dropped frames."""
from collections.abc import Sequence

import numpy as np

from spinejax.phantoms import drawing
from spinejax.phantoms.volumes.anatomy import SHAPE, SPACING, Anatomy, Plate

LOOKS = 3  # envelopes averaged in a voxel
POINT_SPREAD = (0.0, 0.68, 0.43)  # mm, standard deviation along each axis; frames are independent
NOISE_FLOOR = 0.012  # amplitude at difficulty 1
DROPPED_FRAMES = 1.2  # mean number of dropped stretches at difficulty 1
MISSED = (0.02, 0.18)  # fraction of laminae down to T11 and at L5, at difficulty 1
MISSED_ECHO = 0.15  # fraction of the echo that a missed lamina keeps


def set_echoes(anatomy: Anatomy,
               difficulty: float) -> tuple[list[Plate], list[Plate], np.ndarray]:
  """The laminae and the distractors with their amplitudes, and which laminae are visible, [34].

  The echo of a lamina is lognormal, lower and more spread in the lumbar part and off the probe.
  """

  def by_level(thoracic, lumbar):  # down to T11, then changing linearly to L5
    return np.repeat(np.interp(np.arange(17), [10, 16], [thoracic, lumbar]), 2)

  visible = anatomy.ranks >= difficulty * by_level(*MISSED)
  spread = by_level(0.22, 0.22 + 0.30 * difficulty)
  echo = by_level(1.25, 0.90) * np.exp(spread * anatomy.spread)
  steep = np.array([np.degrees(np.arctan(plate.slopes[1])) for plate in anatomy.laminae])
  echo = echo.clip(0.25, 2.2) * np.exp(-0.5 * (steep / 30)**2)
  echo = np.where(visible, echo, MISSED_ECHO * echo)
  laminae = [p._replace(echo=float(e)) for p, e in zip(anatomy.laminae, echo)]
  if not difficulty:
    return laminae, [], visible
  false = [p._replace(echo=float(min(difficulty * p.echo, 0.9) * echo[n]))
           for p, n in zip(anatomy.distractors, anatomy.neighbors)]
  return laminae, false, visible


def envelope_speckle(rng: np.random.Generator, amplitude: np.ndarray, spacing: Sequence[float],
                     strength: float = 1.0, looks: int = LOOKS) -> np.ndarray:
  """Speckle of averaged envelopes: amplitude * max(0, 1 + strength (e - 1)), float32 [D,H,W].

  e is the mean of `looks` independent |complex Gaussian noise * point spread|, scaled to mean 1.
  One look is fully developed speckle with mean / standard deviation 1.91. A volume shrunk threefold
  holds about three. Voxels larger than the point spread keep the contrast, as after resizing by
  sampling. The spacing is mm per voxel and axis.
  """
  envelope = np.zeros_like(amplitude)
  for _ in range(looks):
    power = np.zeros_like(amplitude)
    for _ in range(2):
      field = rng.standard_normal(amplitude.shape, dtype=np.float32)
      for axis, (sigma, step) in enumerate(zip(POINT_SPREAD, spacing)):
        field = drawing.smooth(field, sigma / step, axis)
      power += np.square(field, out=field)
    envelope += np.sqrt(power, out=power)
  envelope *= np.float32(strength / (looks * (np.pi / 2)**0.5))
  envelope += np.float32(1 - strength)
  return amplitude * np.maximum(envelope, 0, out=envelope)


def frame_gain(rng: np.random.Generator, rows: np.ndarray, difficulty: float) -> np.ndarray:
  """Gain of each frame, float32 [D,1,1]: 3 %, and Poisson(1.2 difficulty) dropped stretches."""
  dropped = rng.poisson(DROPPED_FRAMES * difficulty)
  starts = rng.uniform(0.01, 0.98, dropped) * SHAPE[0] * SPACING[0]
  lengths, left = rng.integers(1, 3, dropped) * SPACING[0], rng.uniform(0, 0.4, dropped)
  gain = 1 + 0.03 * difficulty * rng.standard_normal(len(rows))
  for start, length, rest in zip(starts, lengths, left):
    gain[(rows >= start) & (rows < start + length)] *= rest
  return gain.clip(0).astype(np.float32)[:, None, None]
