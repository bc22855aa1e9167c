"""Reads an image, or a volume, with its label as a record."""
import functools

import numpy as np

from spinejax.readers import corner_tables
from spinejax.readers import images
from spinejax.readers import landmarks
from spinejax.readers import masks
from spinejax.readers import trimaps
from spinejax.readers import volumes
from spinejax.readers.records import Pair, ReadOptions, Record

_DEFAULTS = ReadOptions()


def read_pair(pair: Pair, options: ReadOptions = _DEFAULTS) -> Record:
  """Reads both files of a pair.

  Of an image, the label is the mask, or is made of the corners of its vertebrae. The spacing is the
  one of the pair (cases.csv), else the one of a DICOM file.

  Of a volume, the axes are those of `orientation` and the label is 1 in laminae: the mask, or cubes
  of 3x3x3 voxels around the landmarks of a table. The landmarks are those of the table, or the
  centroids of the mask.

  Args:
    pair: of `layouts.find_pairs` or `checks.check_pairs`.
    options: how to read it.

  Raises:
    FileNotFoundError, ValueError: as `images.read_picture`, `masks.inspect_mask` and
      `corner_tables.read_corners`, or as `volumes.read_volume`, `volumes.read_mask` and
      `landmarks.read_landmarks`; sizes that differ; no lamina or vertebral body.
  """
  read = _read_volume if volumes.is_volume(pair.image) else _read_image
  return read(pair, options)


def _read_volume(pair: Pair, options: ReadOptions) -> Record:
  volume = volumes.read_volume(pair.image, options.axes)
  mask, points, region = volume.label, volume.landmarks, volume.region
  if landmarks.suffix_of(pair.mask):
    mask, (points, region) = None, landmarks.read_landmarks(pair.mask, volume.geometry)
  elif pair.mask != pair.image:
    mask, points = volumes.read_mask(pair.mask, volume.geometry), None
  if points is None:
    if mask is None:
      raise ValueError(f'{pair.image}: the volume has no laminae; expected label or landmarks in '
                       f'the file, or a file masks/{pair.name}.nii.gz or '
                       f'landmarks/{pair.name}.csv.')
    points, region = landmarks.landmarks_of_mask(mask)
  if not len(points):
    raise ValueError(f'{pair.mask}: there is no lamina in it; mark one, or leave the volume out.')
  if region is None:
    region = np.full(len(points), landmarks.UNKNOWN, np.int8)
  label = landmarks.cubes(points, volume.array.shape) if mask is None else mask > 0
  return Record(pair.name, pair.patient, volume.array[..., None], label.astype(np.uint8),
                volume.spacing, points.astype(np.float32), region)


def _read_image(pair: Pair, options: ReadOptions) -> Record:
  picture = images.read_picture(pair.image, options.channels)
  label, said = _read_label(pair, options, picture.pixels.shape[:2])
  spacing = np.array(pair.spacing, np.float32)
  stored = np.array(picture.spacing, np.float32)
  if np.isfinite([*spacing, *stored]).all() and not np.allclose(spacing, stored, rtol=0.01):
    said.append('{:.4g} x {:.4g} mm a pixel of cases.csv used instead'.format(*spacing))
  return Record(pair.name, pair.patient, picture.pixels, label,
                np.where(np.isnan(spacing), stored, spacing),
                notes=(*(f'{pair.image.name}: {note}' for note in picture.notes),
                       *(f'{pair.mask.name}: {note}' for note in said)))


def _read_label(
    pair: Pair, options: ReadOptions, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
  """The label of an image of `size`, uint8 [H,W], and notes."""
  if corner_tables.is_table(pair.mask):
    corners, notes = corner_tables.read_corners(pair.mask, size, pair.line)
    make_label = functools.partial(trimaps.label_corners, corners, size)
  elif options.labels in trimaps.DRAWN:
    mask, notes = masks.inspect_mask(pair.mask, options.palette)
    _check_size(pair, size, mask)
    make_label = functools.partial(trimaps.label_bodies, mask)
  else:
    label, notes = masks.inspect_mask(
        pair.mask, options.palette, options.label_map, options.num_classes)
    _check_size(pair, size, label)
    return label, list(notes)
  try:
    label, more = make_label(options.labels, options.border, options.num_labels)
  except ValueError as error:
    raise ValueError(f'{pair.mask}: {error}') from None
  if options.label_map:
    label = np.asarray(options.label_map, np.uint8)[label]
  return label, [*notes, *more]


def _check_size(pair: Pair, size: tuple[int, int], label: np.ndarray) -> None:
  if size != label.shape:
    sizes = ['{} x {}'.format(*shape) for shape in (label.shape, size)]
    raise ValueError(f'{pair.mask}: the mask is {sizes[0]} (height x width), but its image is '
                     f'{sizes[1]}; save the mask at the size of its image.')
