"""Reads an image, or a volume, with its label as a record, and checks many of them before work."""
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spinejax.readers import contents, corner_tables, images, landmarks, masks, records, trimaps
from spinejax.readers import volumes
from spinejax.readers.records import Pair, ReadOptions, Record

_DEFAULTS = ReadOptions()
_MOST_VOLUMES = 2  # read at a time, to bound the memory


def read_pair(pair: Pair, options: ReadOptions = _DEFAULTS) -> Record:
  """Reads both files of a pair of `layouts.find_pairs`.

  Of an image, the label is the mask, or is made of the corners of its vertebrae. The spacing is the
  one of the pair (cases.csv), else the one of a DICOM file. Of a volume, the axes are those of
  `orientation` and the label is 1 in laminae: the mask, or cubes of 3x3x3 voxels around the
  landmarks of a table. The landmarks are those of the table, or the centroids of the mask.

  Raises:
    FileNotFoundError, ValueError: as the readers of these files; sizes that differ; no lamina or
      vertebral body.
  """
  return (_read_volume if volumes.is_volume(pair.image) else _read_image)(pair, options)


def _read_volume(pair: Pair, options: ReadOptions) -> Record:
  volume = volumes.read_volume(pair.image, options.axes)
  mask, points, region = volume.label, volume.landmarks, volume.region
  if contents.suffix_of(pair.mask, landmarks.TABLES):
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


def _read_label(pair: Pair, options: ReadOptions, size: tuple[int, int]
                ) -> tuple[np.ndarray, list[str]]:
  """The label of an image of `size`, uint8 [H,W], and notes."""
  if corner_tables.is_table(pair.mask):
    corners, notes = corner_tables.read_corners(pair.mask, size, pair.line)
    make_label = functools.partial(trimaps.label_corners, corners, size)
  else:
    is_drawn = options.labels in trimaps.DRAWN
    mask, notes = masks.read_mask(pair.mask, options.palette) if is_drawn else masks.read_mask(
        pair.mask, options.palette, options.label_map, options.num_classes)
    if size != mask.shape:
      sizes = ['{} x {}'.format(*shape) for shape in (mask.shape, size)]
      raise ValueError(f'{pair.mask}: the mask is {sizes[0]} (height x width), but its image is '
                       f'{sizes[1]}; save the mask at the size of its image.')
    if not is_drawn:
      return mask, list(notes)
    make_label = functools.partial(trimaps.label_bodies, mask)
  try:
    label, more = make_label(options.labels, options.border, options.num_labels)
  except ValueError as error:
    raise ValueError(f'{pair.mask}: {error}') from None
  if options.label_map:
    label = np.asarray(options.label_map, np.uint8)[label]
  return label, [*notes, *more]


def check_pairs(pairs: Sequence[Pair], options: ReadOptions,
                progress: Callable[[], Any] = lambda: None) -> tuple[list[Pair], list[str]]:
  """Decodes both files of every pair and collects every fault.

  Args:
    pairs: of `layouts.find_pairs`.
    options: how to read them; num_classes is required.
    progress: called once per pair.

  Returns:
    The sound pairs with their facts; and the faults, one line each: path, what is wrong, what was
    expected.
  """
  are_volumes = any(volumes.is_volume(pair.image) for pair in pairs)
  workers = _MOST_VOLUMES if are_volumes else os.cpu_count()
  sound, faults = [], []
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for checked, found in pool.map(functools.partial(_check_pair, options=options), pairs):
      sound += [] if checked is None else [checked]
      faults += found
      progress()
  return sound, faults


def _check_pair(pair: Pair, options: ReadOptions) -> tuple[Pair | None, list[str]]:
  """The pair with its facts, or None and its faults."""
  try:
    record = read_pair(pair, options)
  except (ValueError, FileNotFoundError) as error:
    faults = [str(error)]
    if not (volumes.is_volume(pair.image) or corner_tables.is_table(pair.mask)
            or options.labels in trimaps.DRAWN):
      try:  # a fault of the mask, which reading the pair does not reach if its image has one
        masks.read_mask(pair.mask, options.palette, options.label_map, options.num_classes)
      except (ValueError, FileNotFoundError) as second:
        faults.append(str(second))
    return None, list(dict.fromkeys(faults))
  assert record.label is not None and options.num_classes is not None
  counts = np.bincount(record.label.reshape(-1), minlength=options.num_classes).tolist()
  return dataclasses.replace(
      pair, size=record.label.shape, is_float=record.image.dtype == np.float32,
      counts=tuple(counts), digest=records.digest(record), notes=record.notes), []


def check_volume_settings(num_classes: int, channels: int, label_map: Sequence[int]) -> None:
  """Raises ValueError unless the settings fit volumes: background and lamina, gray."""
  if num_classes != 2 or channels != 1 or label_map:
    raise ValueError('volumes have one channel and 2 labels (background, lamina): give 2 classes, '
                     'channels=1 and no label_map.')
