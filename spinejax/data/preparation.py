"""The preparation of C-U-net (Wong et al., 2021, section II) as named steps, and the way back.

A volume loses its top layer (skin, muscle and fat), is narrowed to the region about the dark column
of the spinous processes, scaled to the grid of the network and normalized. Each step returns what
it did as a `Step`, so that masks and points made on the grid return to the volume they belong to.
The paper names the steps without their parameters: what is bright and what is dark enough, how
wide the region is and where the layer ends are choices made here.
"""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.readers import landmarks as points_lib
from spinejax.readers.records import Record
from spinejax.data import resize
from spinejax.measure.find import cheapest_path
from spinejax.measure.spacing import Numbers

STEPS = ('crop_top_layer', 'crop_to_column', 'rescale', 'z_score')

_MOST_LAYER = 0.15  # of the depth that a detected layer may take
_LAYER_DROP = 0.25  # of its brightness that must be lost behind it
_COLUMN = (8.0, 2.5)  # mm, Gaussian that finds the column, down and across
_FLANKS = 10.0  # mm, Gaussian across that it must be darker than
_EDGE = 8.0  # mm beside the sweep without a column: no room for a lamina
_COLUMN_CONTRAST = 0.42  # standard deviations of the projection
_BEND = 0.05  # of a standard deviation, cost of one voxel sideways


class Step(NamedTuple):
  """What a step did to the grid and to the gray values.

  Attributes:
    name: of STEPS.
    shape: (D, H, W) before.
    start, size: first voxel and extent of the part that was kept.
    grid: (D, H, W) after; the kept part was scaled to it.
    mean, std: subtracted from, and then divided out of, the gray values.
    note: what the step could not do, one sentence; '' if all went well.
  """
  name: str
  shape: tuple[int, ...]
  start: tuple[int, ...]
  size: tuple[int, ...]
  grid: tuple[int, ...]
  mean: float = 0.0
  std: float = 1.0
  note: str = ''


class Preparation(NamedTuple):
  """The steps in order, and the spacing float32 [3] in mm of the prepared volume (NaN unknown)."""
  steps: tuple[Step, ...]
  spacing: np.ndarray


# ------------------------------------------------------------------------------------------ steps


def _crop(image: np.ndarray, name: str, axis: int, start: int, stop: int, note: str = ''
          ) -> tuple[np.ndarray, Step]:
  """Keeps start..stop-1 of one axis."""
  starts, size = [0, 0, 0], list(image.shape)
  starts[axis], size[axis] = start, stop - start
  kept = image[tuple(slice(a, a + n) for a, n in zip(starts, size))]
  return kept, Step(name, image.shape, tuple(starts), tuple(size), tuple(size), note=note)


def crop_top_layer(image: np.ndarray, spacing: Numbers, layer: float | str = 'interface'
                   ) -> tuple[np.ndarray, Step]:
  """Removes the layer next to the skin, equally thick everywhere.

  'interface' takes the mean gray value of the swept (nonzero) voxels at each depth, finds its first
  maximum, and cuts where it has fallen halfway to its minimum within 15 % of the depth. Where it
  loses less than a quarter of its brightness there is no such layer: the volume stays whole, and
  the step says so.

  Args:
    image: [D,H,W], the skin at the start of the last axis.
    spacing: [3] mm; needed for a layer in mm only.
    layer: 'interface', or mm from the start; 0 removes nothing.

  Returns:
    The cropped image [D,H,W-n] and the step.

  Raises:
    ValueError: a layer in mm of unknown spacing, or of more than the volume has.
  """
  depth = image.shape[2]
  if layer != 'interface':
    layer, spacing = _number('data.top_layer', layer), float(spacing[2])
    if layer and not math.isfinite(spacing):
      raise ValueError('the spacing of the volume is unknown, so a layer in mm cannot be removed; '
                       "use data.top_layer='interface' or 0.")
    count = round(layer / spacing) if layer else 0
    if not 0 <= count <= depth - 2:
      raise ValueError(f'a top layer of {layer:g} mm leaves nothing of a volume of '
                       f'{depth * spacing:.3g} mm; data.top_layer must be smaller.')
    return _crop(image, 'crop_top_layer', 2, count, depth)
  swept = (image != 0).sum((0, 1))
  profile = ndimage.gaussian_filter1d(
      image.sum((0, 1), dtype=np.float64) / np.maximum(swept, 1), 0.01 * depth, mode='nearest')
  profile = profile[:max(2, round(_MOST_LAYER * depth))] - min(0.0, float(image.min()))
  falling = np.append(np.diff(profile) < 0, True)
  peak = int(falling.argmax())
  lowest = profile[peak:].min()
  if profile[peak] - lowest < _LAYER_DROP * profile[peak] or profile[peak] <= 0:
    return _crop(image, 'crop_top_layer', 2, 0, depth,
                 'no bright top layer was found; the whole depth is kept')
  behind = profile[peak:] <= (profile[peak] + lowest) / 2
  return _crop(image, 'crop_top_layer', 2, peak + int(behind.argmax()), depth)


def find_column(image: np.ndarray, spacing: Numbers) -> tuple[np.ndarray, float]:
  """The dark column of the spinous processes in the coronal projection, max over the depth.

  A smooth path from top to bottom along which the projection, averaged over 8 mm down and 2.5 mm
  across, is darkest against its surroundings (10 mm across); voxels outside of the sweep (zeros)
  count neither as dark nor as bright, and 8 mm beside them are left out. By dynamic programming.

  Args:
    image: [D,H,W].
    spacing: [3] mm, known.

  Returns:
    Position across at each row, int [D], and the contrast: how much darker the path is than its
    surroundings, in standard deviations of the projection (0 if there is nothing to see).
  """
  projection = image.max(2).astype(np.float64)
  swept = (image != 0).any(2)
  if not swept.any() or not np.ptp(projection[swept]):
    return np.full(len(projection), image.shape[1] // 2), 0.0
  deviation = projection[swept].std()
  centered = np.where(swept, projection - projection[swept].mean(), 0) / deviation

  def smooth(across):
    sigma = _COLUMN[0] / spacing[0], across / spacing[1]
    weight = ndimage.gaussian_filter(swept.astype(np.float64), sigma, mode='constant')
    return ndimage.gaussian_filter(centered, sigma, mode='constant') / np.maximum(weight, 1e-6)

  inner = ndimage.binary_erosion(swept, np.ones((1, 2 * round(_EDGE / float(spacing[1])) + 1)))
  response = np.where(inner, smooth(_COLUMN[1]) - smooth(_FLANKS), 0.0)
  path = cheapest_path(response, max(1, math.ceil(spacing[0] / spacing[1])), _BEND)
  on_path = np.arange(len(path)), path
  return path, float(-response[on_path].sum() / max(inner[on_path].sum(), 1))


def crop_to_column(
    image: np.ndarray, spacing: Numbers, width: float = 60.0) -> tuple[np.ndarray, Step]:
  """Narrows the volume to the region about the dark spinous column; a rectangle, not bent.

  The region reaches from half a width beside the leftmost to half a width beside the rightmost
  point of the column, so a curved spine gets a wider one. Where no column stands out the whole
  width is kept, and the step says so.

  Args:
    image: [D,H,W].
    spacing: [3] mm.
    width: mm about a straight column.

  Returns:
    The cropped image [D,h,W] and the step.

  Raises:
    ValueError: a width in mm of unknown spacing; a width that is not positive.
  """
  across = image.shape[1]
  if not np.isfinite(spacing[:2]).all():
    raise ValueError('the spacing of the volume is unknown, so a region cannot be given in mm; '
                     'write the spacing into its file, or leave crop_to_column out of '
                     'data.preparation.')
  half = _number('data.column_width', width) / float(spacing[1]) / 2
  if not half:
    raise ValueError('data.column_width must be positive.')
  path, contrast = find_column(image, spacing)
  if contrast < _COLUMN_CONTRAST:
    return _crop(image, 'crop_to_column', 1, 0, across,
                 'no dark spinous column stands out; the whole width is kept')
  start = min(max(math.floor(path.min() + 0.5 - half), 0), across - 2)
  stop = max(min(math.ceil(path.max() + 0.5 + half), across), start + 2)
  return _crop(image, 'crop_to_column', 1, start, stop)


def rescale(image: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, Step]:
  """Scales a volume to a grid linearly, with half-voxel centers and no filter, as C-U-net does.

  Args:
    image: [D,H,W].
    shape: of the grid.

  Returns:
    float32 [*shape] and the step.
  """
  shape = tuple(int(n) for n in shape)
  if len(shape) != 3 or min(shape) < 1:
    raise ValueError(f'the grid must be three positive numbers of voxels, not {shape}.')
  step = Step('rescale', image.shape, (0, 0, 0), image.shape, shape)
  return resize.resize_bilinear(image.astype(np.float32), shape), step


def z_score(image: np.ndarray) -> tuple[np.ndarray, Step]:
  """(image - mean) / std over the volume, float32 [D,H,W]; the step keeps both.

  Raises:
    ValueError: a constant volume, or voxels that are not finite.
  """
  mean, std = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
  if not (math.isfinite(std) and std > 1e-6 * abs(mean) and std > 0):
    raise ValueError('the volume is constant or has voxels that are not finite; it cannot be '
                     'normalized.')
  step = Step('z_score', image.shape, (0, 0, 0), image.shape, image.shape, mean, std)
  return ((image - np.float32(mean)) / np.float32(std)).astype(np.float32), step


def _number(name: str, value: Any) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not (math.isfinite(number) and number >= 0):
    raise ValueError(f'{name} must be a number from 0, not {value!r}.')
  return number


def prepare(
    image: np.ndarray, spacing: Numbers, steps: Sequence[str], *, shape: Sequence[int],
    top_layer: float | str = 'interface', column_width: float = 60.0
) -> tuple[np.ndarray, Preparation]:
  """Runs the named steps in the order given.

  Args:
    image: [D,H,W] gray values.
    spacing: [3] mm; NaN where unknown.
    steps: some of STEPS.
    shape: of `rescale`; without it the volume must come out with this shape.
    top_layer: of `crop_top_layer`.
    column_width: of `crop_to_column`.

  Returns:
    float32 [*shape] and the preparation.

  Raises:
    ValueError: an unknown step; another shape; as the steps.
  """
  if not set(steps) <= set(STEPS) or len(set(steps)) != len(steps):
    raise ValueError(f'data.preparation names steps out of {", ".join(STEPS)}, each once at most, '
                     f'not {", ".join(map(str, steps))}.')
  image, spacing, done = np.asarray(image), np.asarray(spacing, np.float32), []
  run = {
      'crop_top_layer': lambda: crop_top_layer(image, spacing, top_layer),
      'crop_to_column': lambda: crop_to_column(image, spacing, column_width),
      'rescale': lambda: rescale(image, shape),
      'z_score': lambda: z_score(image),
  }
  for name in steps:
    image, step = run[name]()
    spacing = spacing * np.asarray(step.size, np.float32) / np.asarray(step.grid, np.float32)
    done.append(step)
  if image.shape != tuple(shape):
    raise ValueError(f'the volume has {image.shape} voxels and the network takes {tuple(shape)}; '
                     "add 'rescale' to data.preparation.")
  return np.ascontiguousarray(image, np.float32), Preparation(tuple(done), spacing)


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The arguments of `prepare_record` that config.data asks for, a z-score left to `batches`."""
  steps = config.get('preparation', ('rescale',))
  return dict(
      steps=tuple(step for step in steps if step != 'z_score'), shape=tuple(config['image_size']),
      top_layer=config.get('top_layer', 'interface'),
      column_width=config.get('column_width', 60.0), labels=config.get('labels', 'cubes'))


def prepare_record(record: Record, steps: Sequence[str], *, labels: str = 'cubes',
                   **options: Any) -> tuple[Record, Preparation]:
  """The record of a volume, prepared.

  Args:
    record: image [D,H,W,1] and spacing [3]; of a volume with laminae also landmarks [P,3] and, for
      labels='mask', label [D,H,W].
    steps, options: of `prepare`.
    labels: 'cubes' of 3x3x3 voxels about the landmarks, as the paper, or 'mask': the label to the
      nearest voxel.

  Returns:
    The record with image float32 [d,h,w,1], label uint8 [d,h,w], landmarks and spacing of the new
    grid, and the preparation. A landmark outside of the crop stays, with no cube.

  Raises:
    ValueError: as `prepare`; labels of another name; no lamina is left.
  """
  if labels not in ('cubes', 'mask'):
    raise ValueError(f"data.labels must be 'cubes' or 'mask', not {labels!r}.")
  image, preparation = prepare(record.image[..., 0], record.spacing, steps, **options)
  record = dataclasses.replace(record, image=image[..., None], spacing=preparation.spacing)
  if record.landmarks is not None:
    points = points_to_grid(record.landmarks, preparation)
    label = (points_lib.cubes(points, image.shape) if labels == 'cubes' else
             to_grid(record.label, preparation))
    if not label.any():
      raise ValueError(f'none of the {len(points)} laminae is left after {", ".join(steps)}; '
                       'look at data.preparation and at the orientation of the volume.')
    record = dataclasses.replace(record, landmarks=points.astype(np.float32), label=label)
  return record, preparation


# --------------------------------------------------------------------------------- there and back


def _scale(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  if array.dtype.kind == 'f':
    return resize.resize_bilinear(array, shape)
  return resize.resize_nearest(array, shape)


def to_grid(array: np.ndarray, preparation: Preparation) -> np.ndarray:
  """A mask (integers, nearest) or scores (floats, linear) [D,H,W] brought to the prepared grid."""
  for step in preparation.steps:
    array = array[tuple(slice(a, a + n) for a, n in zip(step.start, step.size))]
    array = _scale(array, step.grid)
  return array


def from_grid(array: np.ndarray, preparation: Preparation, fill: float = 0) -> np.ndarray:
  """A prediction on the prepared grid, brought back to the grid of the volume.

  Args:
    array: [d,h,w], a mask (integers, to the nearest voxel) or scores (floats, linear).
    fill: value of what was cropped.

  Returns:
    [D,H,W] of the same dtype (scores float32).
  """
  array = np.asarray(array)
  for step in reversed(preparation.steps):
    if array.shape != step.grid:
      raise ValueError(f'expected an array of the prepared grid {step.grid}, not {array.shape}.')
    array = _scale(array, step.size)
    whole = np.full(step.shape, fill, array.dtype)
    whole[tuple(slice(a, a + n) for a, n in zip(step.start, step.size))] = array
    array = whole
  return array


def points_to_grid(points: np.ndarray, preparation: Preparation) -> np.ndarray:
  """Voxels [...,3] of the volume as voxels of the prepared grid, float64, inside of it or not."""
  points = np.asarray(points, np.float64)
  for step in preparation.steps:
    points = (points - step.start + 0.5) * np.divide(step.grid, step.size) - 0.5
  return points


def points_from_grid(points: np.ndarray, preparation: Preparation) -> np.ndarray:
  """Voxels [...,3] of the prepared grid as voxels of the volume, float64."""
  points = np.asarray(points, np.float64)
  for step in reversed(preparation.steps):
    points = (points + 0.5) * np.divide(step.size, step.grid) - 0.5 + step.start
  return points
