"""Checks of a folder before work: every file is decoded, every fault is one line."""
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spinejax.readers import corner_tables
from spinejax.readers import masks
from spinejax.readers import pairs as pairs_lib
from spinejax.readers import records
from spinejax.readers import trimaps
from spinejax.readers import volumes
from spinejax.readers.records import Pair, ReadOptions

_MOST_VOLUMES = 2  # read at a time, to bound the memory


def check_pairs(
    pairs: Sequence[Pair], options: ReadOptions, progress: Callable[[], Any] = lambda: None,
) -> tuple[list[Pair], list[str]]:
  """Decodes both files of every pair and collects every fault.

  Args:
    pairs: of `layouts.find_pairs`.
    options: how to read them; num_classes is required.
    progress: called once per pair.

  Returns:
    The sound pairs with size, is_float, counts, digest and notes (such as 'NAME.png: 12 pixels
    (0.1%) snapped to the nearest color'); and the faults, one line each: path, what is wrong, what
    was expected.
  """
  def check(pair: Pair) -> tuple[Pair | None, list[str]]:
    found = _check_pair(pair, options)
    progress()
    return found

  are_volumes = any(volumes.is_volume(pair.image) for pair in pairs)
  workers = _MOST_VOLUMES if are_volumes else os.cpu_count()
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    checked = list(pool.map(check, pairs))
  return ([pair for pair, _ in checked if pair is not None],
          [fault for _, faults in checked for fault in faults])


def _check_pair(pair: Pair, options: ReadOptions) -> tuple[Pair | None, list[str]]:
  """The pair with its facts, or None and its faults."""
  try:
    record = pairs_lib.read_pair(pair, options)
  except (ValueError, FileNotFoundError) as error:
    return None, list(dict.fromkeys([str(error), *_mask_faults(pair, options)]))
  assert record.label is not None and options.num_classes is not None
  counts = np.bincount(record.label.reshape(-1), minlength=options.num_classes).tolist()
  return dataclasses.replace(
      pair, size=record.label.shape, is_float=record.image.dtype == np.float32,
      counts=tuple(counts), digest=records.digest(record), notes=record.notes), []


def _mask_faults(pair: Pair, options: ReadOptions) -> list[str]:
  """Faults of a mask, which reading the pair does not reach if its image has one."""
  if (volumes.is_volume(pair.image) or corner_tables.is_table(pair.mask)
      or options.labels in trimaps.DRAWN):
    return []
  try:
    masks.read_mask(pair.mask, options.palette, options.label_map, options.num_classes)
  except (ValueError, FileNotFoundError) as error:
    return [str(error)]
  return []


def check_volume_settings(num_classes: int, channels: int, label_map: Sequence[int]) -> None:
  """Raises ValueError unless the settings fit volumes: background and lamina, gray."""
  if num_classes != 2 or channels != 1 or label_map:
    raise ValueError('volumes have one channel and 2 labels (background, lamina): give 2 classes, '
                     'channels=1 and no label_map.')
