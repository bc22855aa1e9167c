"""What is exactly known about a phantom, and how a phantom looks in a mirror."""
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from spinejax.phantoms import curves

Case = TypeVar('Case')

# Fields of cases and truths that change in a mirror. In pairs, left and right take turns.
_IMAGES = ('image', 'clean', 'label', 'fov')
_ANGLES = ('tilts', 'requested', 'rotation', 'lines', 'centerline_tilts')
_PAIRS = ('landmarks', 'annotated', 'processes', 'lump_halves')
_POINTS = ('vertebrae', 'lumps', 'distractors', 'centerline', *_PAIRS)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
  """The truth of every kind of phantom.

  Positions are in pixels in array order, with the center of a pixel at a whole number. Angles are
  in degrees, with the signs of `curves`. Levels run T1..T12, L1..L5.
  """
  family: str  # curve pattern, a key of `curves.FAMILIES`
  levels: tuple[str, ...]  # names of the 17 levels
  tilts: np.ndarray  # [17] of the vertebrae
  cobb: list[curves.Curve]  # by the extremes rule, from the tilts
  ends: tuple[str, ...]  # levels of the end vertebrae that were drawn, top to bottom
  requested: np.ndarray  # [len(ends) - 1] angles between them
  vertebrae: np.ndarray  # [17, d] centers
  spacing: Any  # [d] mm per pixel
  seed: int | Sequence[int]  # these three are arguments that the phantom was drawn with
  difficulty: float
  shape: tuple[int, ...]


def truth_of_spine(spine: curves.Spine) -> dict[str, Any]:
  """The fields of `Truth` that the spine determines."""
  return dict(
      family=spine.family, levels=curves.LEVELS, tilts=spine.tilts,
      cobb=curves.curve_angles(spine.tilts),
      ends=tuple(curves.LEVELS[i] for i in spine.ends), requested=spine.angles)


def mirror(case: Case) -> Case:
  """Any phantom in a mirror: columns (axis 1) reversed, left and right swapped, angles negated."""
  return _mirror(case, vars(case)['image'].shape[1])


def _mirror(record: Any, width: int) -> Any:
  changes: dict[str, Any] = vars(record).copy()
  for name, value in changes.items():
    if name in _PAIRS or name == 'visible':
      value = value.reshape(-1, 2, *value.shape[1:][-1:])[:, ::-1].reshape(value.shape)
    if name == 'truth':
      value = _mirror(value, width)
    elif name in _IMAGES:
      value = np.ascontiguousarray(value[:, ::-1])
    elif isinstance(value, list):
      value = [curve._replace(angle=-curve.angle) for curve in value]
    elif name in _ANGLES:
      value = -value
    elif name in _POINTS:
      value = value.copy()
      value[..., 1] = width - 1 - value[..., 1]
    changes[name] = value
  return dataclasses.replace(record, **changes)
