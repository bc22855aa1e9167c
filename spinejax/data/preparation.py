"""The preparation of volumes by C-U-net (Wong et al., 2021, section II), and the way back.

A volume loses its top layer (skin, muscle and fat), is cropped to the region around the dark column
of the spinous processes, and is scaled to the grid of the network; `examples` then normalizes it.
The paper gives no parameters; the thresholds and widths below are our choice.
"""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from spinejax.data import resize
from spinejax.measurement import find
from spinejax.measurement.spacing import Numbers
from spinejax.readers import landmarks as landmark_tables
from spinejax.readers.records import Record

STEPS = ('crop_top_layer', 'crop_to_column', 'rescale')
LABELS = ('cubes', 'mask')

_MOST_LAYER = 0.15  # largest fraction of the depth that a detected layer may take
_LAYER_DROP = 0.25  # smallest fraction of its brightness that is lost behind the layer
_COLUMN = (8.0, 2.5)  # mm, standard deviations down and across of the filter for the column
_FLANKS = 10.0  # mm, standard deviation across of the filter for its surroundings
_EDGE = 8.0  # mm next to the border of the sweep in which no column is sought
_COLUMN_CONTRAST = 0.42  # smallest contrast of a column, standard deviations of the projection
_BEND = 0.05  # cost of moving one voxel sideways, standard deviations of the projection


class Step(NamedTuple):
  """What a step did to the grid of a volume."""
  shape: tuple[int, ...]  # (D, H, W) before
  start: tuple[int, ...]  # first voxel of the part that was kept
  size: tuple[int, ...]  # extent of this part
  grid: tuple[int, ...]  # (D, H, W) after; the part was scaled to it
  note: str = ''  # one sentence about what the step could not do

  @property
  def kept(self) -> tuple[slice, ...]:
    """The part that was kept, as an index."""
    return tuple(slice(first, first + n) for first, n in zip(self.start, self.size))


class Preparation(NamedTuple):
  """The steps in order, and the spacing float32 [3] in mm of the prepared volume (NaN unknown)."""
  steps: tuple[Step, ...]
  spacing: np.ndarray


def _crop(image: np.ndarray, axis: int, start: int, stop: int, note: str = ''
          ) -> tuple[np.ndarray, Step]:
  """Keeps start to stop - 1 of one axis."""
  starts, size = [0, 0, 0], list(image.shape)
  starts[axis], size[axis] = start, stop - start
  step = Step(image.shape, tuple(starts), tuple(size), tuple(size), note)
  return image[step.kept], step


def _number(name: str, value: Any) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not (math.isfinite(number) and number >= 0):
    raise ValueError(f'{name} must be a number of at least 0, not {value!r}.')
  return number


def crop_top_layer(image: np.ndarray, spacing: Numbers, layer: float | str = 'interface'
                   ) -> tuple[np.ndarray, Step]:
  """Removes a layer of constant thickness next to the skin, at the start of the last axis.

  A layer in mm needs a spacing; 0 removes nothing. 'interface' takes the mean gray value of the
  swept (nonzero) voxels at each depth and finds its first maximum. It cuts where the gray value has
  fallen halfway to its minimum within 15 % of the depth. If the fall is less than a quarter of the
  brightness the volume [D,H,W] stays whole and the step has a note.

  Raises:
    ValueError: a layer in mm without spacing, or thicker than the volume.
  """
  depth = image.shape[2]
  if layer != 'interface':
    layer, spacing = _number('data.top_layer', layer), float(spacing[2])
    if layer and not math.isfinite(spacing):
      raise ValueError('the spacing of the volume is unknown, so a layer in mm cannot be removed; '
                       "use data.top_layer='interface' or 0.")
    count = round(layer / spacing) if layer else 0
    if count > depth - 2:
      raise ValueError(f'a top layer of {layer:g} mm leaves nothing of a volume of '
                       f'{depth * spacing:.3g} mm; data.top_layer must be smaller.')
    return _crop(image, 2, count, depth)
  swept = (image != 0).sum((0, 1))
  profile = ndimage.gaussian_filter1d(
      image.sum((0, 1), dtype=np.float64) / np.maximum(swept, 1), 0.01 * depth, mode='nearest')
  profile = profile[:max(2, round(_MOST_LAYER * depth))] - min(0.0, float(image.min()))
  falling = np.append(np.diff(profile) < 0, True)
  peak = int(falling.argmax())
  lowest = profile[peak:].min()
  if profile[peak] - lowest < _LAYER_DROP * profile[peak] or profile[peak] <= 0:
    return _crop(image, 2, 0, depth, 'no bright top layer was found; the whole depth is kept')
  behind = profile[peak:] <= (profile[peak] + lowest) / 2
  return _crop(image, 2, peak + int(behind.argmax()), depth)


def find_column(image: np.ndarray, spacing: Numbers) -> tuple[np.ndarray, float]:
  """The dark column of the spinous processes in the coronal projection, the maximum over the depth.

  The column is a smooth least-cost path from top to bottom. The cost is the projection, smoothed by
  8 mm down and 2.5 mm across, minus its surroundings, smoothed by 10 mm across. Voxels outside of
  the sweep (zeros) do not count, and 8 mm next to them are left out.

  Returns the position across at each row of [D,H,W], int [D], and the contrast, by which the path
  is darker than its surroundings, in standard deviations of the projection (0 for a constant
  image). The spacing [3] in mm must be known.
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
  path = find.cheapest_path(response, max(1, math.ceil(spacing[0] / spacing[1])), _BEND)
  on_path = np.arange(len(path)), path
  return path, float(-response[on_path].sum() / max(inner[on_path].sum(), 1))


def crop_to_column(image: np.ndarray, spacing: Numbers, width: float = 60.0
                   ) -> tuple[np.ndarray, Step]:
  """Crops a volume [D,H,W] to a box around the dark spinous column.

  The box reaches half a width (mm) beyond the leftmost and the rightmost point of the column, so it
  is wider for a curved spine. If no column stands out, the whole width is kept and the step has a
  note.

  Raises:
    ValueError: an unknown spacing, or a width that is not positive.
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
    return _crop(image, 1, 0, across, 'no dark spinous column stands out; the whole width is kept')
  start = min(max(math.floor(path.min() + 0.5 - half), 0), across - 2)
  stop = max(min(math.ceil(path.max() + 0.5 + half), across), start + 2)
  return _crop(image, 1, start, stop)


def steps_of(config: Mapping[str, Any]) -> tuple[str, ...]:
  """The steps in config.data.preparation without 'z_score', which `examples` applies."""
  return tuple(step for step in config['preparation'] if step != 'z_score')


def prepare(image: np.ndarray, spacing: Numbers, config: Mapping[str, Any]
            ) -> tuple[np.ndarray, Preparation]:
  """Runs the steps of config.data.preparation on gray values [D,H,W], in order.

  'rescale' is linear without a filter, as in C-U-net. `spacing` is [3] mm, NaN where unknown.
  Returns float32 [*image_size] and the preparation.

  Raises:
    ValueError: the volume does not come out with this size; see the steps.
  """
  image, spacing, done = np.asarray(image), np.asarray(spacing, np.float32), []
  shape = tuple(config['image_size'])
  for name in steps_of(config):
    if name == 'crop_top_layer':
      image, step = crop_top_layer(image, spacing, config['top_layer'])
    elif name == 'crop_to_column':
      image, step = crop_to_column(image, spacing, config['column_width'])
    else:
      step = Step(image.shape, (0, 0, 0), image.shape, shape)
      image = resize.resize_bilinear(image.astype(np.float32), shape)
    spacing = spacing * np.asarray(step.size, np.float32) / np.asarray(step.grid, np.float32)
    done.append(step)
  if image.shape != shape:
    raise ValueError(f'the volume has {image.shape} voxels, but the network takes {shape}; add '
                     "'rescale' to data.preparation.")
  return np.ascontiguousarray(image, np.float32), Preparation(tuple(done), spacing)


def prepare_record(record: Record, config: Mapping[str, Any]) -> tuple[Record, Preparation]:
  """The record of a volume with image float32, label, landmarks and spacing of the prepared grid.

  With config.data.labels='cubes' the label is 3x3x3 voxels around each landmark, as in the paper;
  with 'mask' it is resized to the nearest voxel. A landmark outside of the crop stays, without a
  cube. A record without landmarks keeps its label.

  Raises:
    ValueError: see `prepare`; no lamina is left.
  """
  image, preparation = prepare(record.image[..., 0], record.spacing, config)
  prepared = dataclasses.replace(record, image=image[..., None], spacing=preparation.spacing)
  if record.landmarks is not None:
    points = points_to_grid(record.landmarks, preparation)
    if config['labels'] == 'cubes':
      label = landmark_tables.cubes(points, image.shape)
    else:
      assert record.label is not None  # records with landmarks have a label
      label = to_grid(record.label, preparation)
    if not label.any():
      steps = ', '.join(steps_of(config))
      raise ValueError(f'none of the {len(points)} laminae is left after {steps}; check '
                       'data.preparation and the orientation of the volume.')
    prepared = dataclasses.replace(prepared, landmarks=points.astype(np.float32), label=label)
  return prepared, preparation


def _scale(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Scales scores (floats) linearly and masks (integers) to the nearest voxel."""
  if array.dtype.kind == 'f':
    return resize.resize_bilinear(array, shape)
  return resize.resize_nearest(array, shape)


def to_grid(array: np.ndarray, preparation: Preparation) -> np.ndarray:
  """A mask (integers, nearest) or scores (floats, linear) [D,H,W] on the prepared grid."""
  for step in preparation.steps:
    array = _scale(array[step.kept], step.grid)
  return array


def from_grid(array: np.ndarray, preparation: Preparation) -> np.ndarray:
  """A mask or scores on the prepared grid, mapped back to the grid [D,H,W]; 0 where it was cropped.

  Masks (integers, nearest) keep their dtype; scores (floats, linear) are float32.
  """
  for step in reversed(preparation.steps):
    kept = _scale(array, step.size)
    array = np.zeros(step.shape, kept.dtype)
    array[step.kept] = kept
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
