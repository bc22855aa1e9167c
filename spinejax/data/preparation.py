"""The preparation of volumes by C-U-net (Wong et al., 2021, section II), and the way back.

A volume loses its top layer (skin, muscle and fat), is cropped to the region around the dark column
of the spinous processes, and is scaled to the grid of the network; `examples` then normalizes it.
Each step returns what it did as a `Step`, so that masks and points on the grid can be mapped back
to the volume. The paper gives no parameters; the thresholds and widths below are our choice.
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
  """What a step did to the grid.

  Attributes:
    name: one of STEPS.
    shape: (D, H, W) before.
    start, size: first voxel and extent of the part that was kept.
    grid: (D, H, W) after; the kept part was scaled to it.
    note: one sentence about what the step could not do; '' if it succeeded.
  """
  name: str
  shape: tuple[int, ...]
  start: tuple[int, ...]
  size: tuple[int, ...]
  grid: tuple[int, ...]
  note: str = ''


class Preparation(NamedTuple):
  """The steps in order, and the spacing float32 [3] in mm of the prepared volume (NaN unknown)."""
  steps: tuple[Step, ...]
  spacing: np.ndarray


@dataclasses.dataclass(frozen=True)
class Options:
  """How a volume is prepared.

  Attributes:
    steps: some of STEPS, in order.
    shape: (D, H, W) of the prepared volume.
    top_layer: of `crop_top_layer`.
    column_width: of `crop_to_column`.
    labels: 'cubes' of 3x3x3 voxels around the landmarks, as in the paper, or 'mask', the label
      resized to the nearest voxel.

  Raises:
    ValueError: an unknown step, a step twice, or other labels.
  """
  steps: tuple[str, ...]
  shape: tuple[int, ...]
  top_layer: float | str = 'interface'
  column_width: float = 60.0
  labels: str = 'cubes'

  def __post_init__(self) -> None:
    if not set(self.steps) <= set(STEPS) or len(set(self.steps)) != len(self.steps):
      raise ValueError(f'data.preparation must name steps out of {", ".join(STEPS)}, each once at '
                       f'most, not {", ".join(map(str, self.steps))}.')
    if self.labels not in LABELS:
      raise ValueError(f"data.labels must be 'cubes' or 'mask', not {self.labels!r}.")


def options_of(config: Mapping[str, Any]) -> Options:
  """The options in config.data of volumes, without 'z_score', which `examples` applies."""
  return Options(
      steps=tuple(step for step in config['preparation'] if step != 'z_score'),
      shape=tuple(config['image_size']), top_layer=config['top_layer'],
      column_width=config['column_width'], labels=config['labels'])


# ------------------------------------------------------------------------------------------ steps


def _crop(image: np.ndarray, name: str, axis: int, start: int, stop: int, note: str = ''
          ) -> tuple[np.ndarray, Step]:
  """Keeps start to stop - 1 of one axis."""
  starts, size = [0, 0, 0], list(image.shape)
  starts[axis], size[axis] = start, stop - start
  kept = image[tuple(slice(a, a + n) for a, n in zip(starts, size))]
  return kept, Step(name, image.shape, tuple(starts), tuple(size), tuple(size), note=note)


def crop_top_layer(image: np.ndarray, spacing: Numbers, layer: float | str = 'interface'
                   ) -> tuple[np.ndarray, Step]:
  """Removes a layer of constant thickness next to the skin.

  'interface' detects the layer. It takes the mean gray value of the swept (nonzero) voxels at each
  depth and finds its first maximum. It cuts where the gray value has fallen halfway to its minimum
  within 15 % of the depth. If the fall is less than a quarter of the brightness there is no such
  layer: the volume stays whole and the step has a note.

  Args:
    image: [D,H,W], the skin at the start of the last axis.
    spacing: [3] mm; only required for a layer in mm.
    layer: 'interface', or mm from the start; 0 removes nothing.

  Returns:
    The cropped image [D,H,W-n] and the step.

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
  """The dark column of the spinous processes in the coronal projection, the maximum over the depth.

  The column is a smooth least-cost path from top to bottom. The cost is the projection, smoothed by
  8 mm down and 2.5 mm across, minus its surroundings, smoothed by 10 mm across. Voxels outside of
  the sweep (zeros) do not count, and 8 mm next to them are left out.

  Args:
    image: [D,H,W].
    spacing: [3] mm, known.

  Returns:
    Position across at each row, int [D]; and the contrast, by which the path is darker than its
    surroundings, in standard deviations of the projection (0 for a constant image).
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


def crop_to_column(
    image: np.ndarray, spacing: Numbers, width: float = 60.0) -> tuple[np.ndarray, Step]:
  """Crops the volume to a box around the dark spinous column.

  The box reaches half a width beyond the leftmost and the rightmost point of the column, so it is
  wider for a curved spine. If no column stands out, the whole width is kept and the step has a
  note.

  Args:
    image: [D,H,W].
    spacing: [3] mm.
    width: mm around a straight column.

  Returns:
    The cropped image [D,h,W] and the step.

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
    return _crop(image, 'crop_to_column', 1, 0, across,
                 'no dark spinous column stands out; the whole width is kept')
  start = min(max(math.floor(path.min() + 0.5 - half), 0), across - 2)
  stop = max(min(math.ceil(path.max() + 0.5 + half), across), start + 2)
  return _crop(image, 'crop_to_column', 1, start, stop)


def rescale(image: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, Step]:
  """Scales a volume [D,H,W] to a grid linearly, without a filter, as C-U-net does: float32."""
  shape = tuple(int(n) for n in shape)
  if len(shape) != 3 or min(shape) < 1:
    raise ValueError(f'the grid must be three positive numbers of voxels, not {shape}.')
  step = Step('rescale', image.shape, (0, 0, 0), image.shape, shape)
  return resize.resize_bilinear(image.astype(np.float32), shape), step


def _number(name: str, value: Any) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not (math.isfinite(number) and number >= 0):
    raise ValueError(f'{name} must be a number of at least 0, not {value!r}.')
  return number


def prepare(image: np.ndarray, spacing: Numbers, options: Options
            ) -> tuple[np.ndarray, Preparation]:
  """Runs the steps of the options in order.

  Args:
    image: [D,H,W] gray values.
    spacing: [3] mm; NaN where unknown.
    options: steps and their settings.

  Returns:
    float32 [*options.shape] and the preparation.

  Raises:
    ValueError: the volume does not come out with this shape; see the steps.
  """
  image, spacing, done = np.asarray(image), np.asarray(spacing, np.float32), []
  for name in options.steps:
    if name == 'crop_top_layer':
      image, step = crop_top_layer(image, spacing, options.top_layer)
    elif name == 'crop_to_column':
      image, step = crop_to_column(image, spacing, options.column_width)
    else:
      image, step = rescale(image, options.shape)
    spacing = spacing * np.asarray(step.size, np.float32) / np.asarray(step.grid, np.float32)
    done.append(step)
  if image.shape != tuple(options.shape):
    raise ValueError(f'the volume has {image.shape} voxels, but the network takes '
                     f"{tuple(options.shape)}; add 'rescale' to data.preparation.")
  return np.ascontiguousarray(image, np.float32), Preparation(tuple(done), spacing)


def prepare_record(record: Record, options: Options) -> tuple[Record, Preparation]:
  """The record of a volume with image float32, label, landmarks and spacing of the prepared grid.

  A landmark outside of the crop stays, without a cube. A record without landmarks keeps its label.

  Raises:
    ValueError: see `prepare`; no lamina is left.
  """
  image, preparation = prepare(record.image[..., 0], record.spacing, options)
  prepared = dataclasses.replace(record, image=image[..., None], spacing=preparation.spacing)
  if record.landmarks is not None:
    points = points_to_grid(record.landmarks, preparation)
    if options.labels == 'cubes':
      label = landmark_tables.cubes(points, image.shape)
    else:
      assert record.label is not None  # records with landmarks have a label
      label = to_grid(record.label, preparation)
    if not label.any():
      raise ValueError(f'none of the {len(points)} laminae is left after '
                       f'{", ".join(options.steps)}; check data.preparation and the orientation of '
                       'the volume.')
    prepared = dataclasses.replace(prepared, landmarks=points.astype(np.float32), label=label)
  return prepared, preparation


# --------------------------------------------------------------------------------- there and back


def _scale(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Scales scores (floats) linearly and masks (integers) to the nearest voxel."""
  if array.dtype.kind == 'f':
    return resize.resize_bilinear(array, shape)
  return resize.resize_nearest(array, shape)


def to_grid(array: np.ndarray, preparation: Preparation) -> np.ndarray:
  """A mask (integers, nearest) or scores (floats, linear) [D,H,W] on the prepared grid."""
  for step in preparation.steps:
    array = array[tuple(slice(a, a + n) for a, n in zip(step.start, step.size))]
    array = _scale(array, step.grid)
  return array


def from_grid(array: np.ndarray, preparation: Preparation, fill: float = 0) -> np.ndarray:
  """A prediction on the prepared grid, mapped back to the grid of the volume.

  Args:
    array: [d,h,w], a mask (integers, nearest) or scores (floats, linear).
    fill: value of what was cropped.

  Returns:
    [D,H,W] of the same dtype; scores are float32.
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
