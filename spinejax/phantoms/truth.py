"""What is exactly known about a phantom, and how it looks in a mirror."""
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from spinejax.phantoms import curves

AnyTruth = TypeVar('AnyTruth', bound='Truth')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
  """The truth of every kind of phantom.

  Positions are in pixels in array order, with the center of a pixel at a whole number. Angles are
  in degrees, with the signs of `curves`. Levels run T1..T12, L1..L5.

  Attributes:
    family: curve pattern, a key of `curves.FAMILIES`.
    levels: names of the 17 levels.
    tilts: [17] of the vertebrae.
    cobb: curves by the extremes rule, from the tilts.
    ends: levels of the end vertebrae that were drawn, top to bottom.
    requested: [len(ends) - 1] angles between them.
    vertebrae: [17, d] centers.
    spacing: [d] mm per pixel.
    seed, difficulty, shape: arguments that the phantom was drawn with.
  """
  family: str
  levels: tuple[str, ...]
  tilts: np.ndarray
  cobb: list[curves.Curve]
  ends: tuple[str, ...]
  requested: np.ndarray
  vertebrae: np.ndarray
  spacing: Any
  seed: int | Sequence[int]
  difficulty: float
  shape: tuple[int, ...]


def truth_of_spine(spine: curves.Spine) -> dict[str, Any]:
  """The fields of `Truth` that the spine determines."""
  return dict(
      family=spine.family, levels=curves.LEVELS, tilts=spine.tilts,
      cobb=curves.curve_angles(spine.tilts),
      ends=tuple(curves.LEVELS[i] for i in spine.ends), requested=spine.angles)


def mirror_truth(truth: AnyTruth, negated: Sequence[str], reflected: Sequence[str]) -> AnyTruth:
  """The truth of a mirrored phantom: angles change sign, columns are counted from the other side.

  Args:
    truth: of the phantom.
    negated: fields with angles or curves, besides those of `Truth`.
    reflected: fields with points [...,d], besides those of `Truth`.
  """
  changes: dict[str, Any] = {}
  for name in ('tilts', 'requested', 'cobb', *negated):
    values = getattr(truth, name)
    changes[name] = ([curve._replace(angle=-curve.angle) for curve in values]
                     if isinstance(values, list) else -values)
  for name in ('vertebrae', *reflected):
    changes[name] = mirror_points(getattr(truth, name), truth.shape[1])
  return dataclasses.replace(truth, **changes)


def mirror_points(points: np.ndarray, width: int) -> np.ndarray:
  """Points [...,d] in an image whose `width` columns (axis 1) are reversed."""
  mirrored = points.copy()
  mirrored[..., 1] = width - 1 - points[..., 1]
  return mirrored


def mirror_image(image: np.ndarray) -> np.ndarray:
  """The image [H,W,...] with its columns reversed."""
  return np.ascontiguousarray(image[:, ::-1])
