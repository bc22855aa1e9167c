"""Batches of training examples. The batch of step k is a pure function of (seed, k).

An example is a case and a position in it. Small sets are kept on the device and gathered there,
large ones are read by threads while the device works. Both give bitwise equal arrays.
"""
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np

from spinejax.data import examples
from spinejax.data.datasets import Source
from spinejax.data.examples import Arrays, Config

_DEVICE_SHARE = 4  # the training set is kept on the device if it needs at most a 4th of its memory


class Feed(NamedTuple):
  """Training batches of a config; see `create_feed`.

  Attributes:
    mean, std: gray levels to normalize with, one for all channels or one per channel.
    steps_per_epoch: steps that show every example at least once.
    batch_at: step (from 0) -> what `augment` takes: image [B,*image_size,C], label uint8, cells
      uint8 if asked for, slot int32 [B] and, for dense patches, position int32 [B,d].
    names_at: step -> names of the cases in its batch.
    cache: 'device' or 'stream'.
  """
  mean: tuple[float, ...]
  std: tuple[float, ...]
  steps_per_epoch: int
  batch_at: Callable[[int], dict[str, Any]]
  names_at: Callable[[int], list[str]]
  cache: str


def patch_positions(image_size: Sequence[int], patch_size: Sequence[int],
                    patch_stride: Sequence[int]) -> np.ndarray | None:
  """First pixels of dense patches, int32 [P,d]; the last patches end at the border.

  SEAM (Zhao et al., 2021, section 3.1) uses dense patches and gives no stride. A stride of zeros
  means random crops: None.

  Raises:
    ValueError: a patch larger than the image, or a stride that is negative or partly zero.
  """
  sizes = tuple(zip(image_size, patch_size, patch_stride, strict=True))
  if any(not 0 < patch <= image for image, patch, _ in sizes):
    raise ValueError(f'data.patch_size {tuple(patch_size)} must be within data.image_size '
                     f'{tuple(image_size)}.')
  if not any(patch_stride):
    return None
  if any(stride < 1 for *_, stride in sizes):
    raise ValueError(f'data.patch_stride {tuple(patch_stride)} must be above 0 along each axis, or '
                     '(0, 0) for random crops.')
  starts = [sorted({*range(0, image - patch + 1, stride), image - patch})
            for image, patch, stride in sizes]
  return np.array(list(itertools.product(*starts)), np.int32)


def train_indices(num_cases: int, num_positions: int, batch_size: int, seed: int
                  ) -> Callable[[int], np.ndarray]:
  """The order of the examples: step -> int32 [B,2] (case, position), by random access.

  Every epoch is another permutation of all num_cases * num_positions examples. Batches continue
  across the end of an epoch, so none is partial. If a batch is larger than an epoch, examples
  repeat in it.

  Raises:
    ValueError: no case, or a batch size below 1.
  """
  if num_cases < 1 or num_positions < 1 or batch_size < 1:
    raise ValueError(f'a batch needs a case and a size above 0, not {num_cases} cases and '
                     f'batch_size={batch_size}.')
  num_examples = num_cases * num_positions

  @functools.lru_cache(maxsize=2)
  def order(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed % 2**63, epoch)).permutation(num_examples)

  def indices_at(step: int) -> np.ndarray:
    first, end = step * batch_size, (step + 1) * batch_size
    epochs = range(first // num_examples, (end - 1) // num_examples + 1)
    start = first % num_examples
    chosen = np.concatenate([order(epoch) for epoch in epochs])[start:start + batch_size]
    return np.stack(np.divmod(chosen, num_positions), axis=-1).astype(np.int32)

  return indices_at


def index_batch(indices: np.ndarray, positions: np.ndarray | None, process_index: int = 0,
                process_count: int = 1) -> Arrays:
  """The contiguous part of a batch that a process makes.

  `indices` are [B,2] of `train_indices` and `positions` [P,d] of `patch_positions`. Returns int32
  case [b], slot [b] (place in the global batch) and, with positions, position [b,d].

  Raises:
    ValueError: B is not a multiple of process_count.
  """
  size, rest = divmod(len(indices), process_count)
  if rest:
    raise ValueError(f'batch_size {len(indices)} is not a multiple of the {process_count} '
                     'processes.')
  slot = np.arange(process_index * size, (process_index + 1) * size, dtype=np.int32)
  case, position = indices[slot].T
  batch = dict(case=case, slot=slot)
  return batch if positions is None else {**batch, 'position': positions[position]}


def image_statistics(images: Iterable[np.ndarray], progress: Callable[[], Any] = lambda: None
                     ) -> tuple[float, float]:
  """Mean and standard deviation over all pixels and channels; (0, 0) without images."""
  count, total, squares = 0, 0.0, 0.0
  for image in images:
    pixels = image.astype(np.float64)
    count, total, squares = count + pixels.size, total + pixels.sum(), squares + (pixels**2).sum()
    progress()
  mean = total / max(count, 1)
  return float(mean), float(max(squares / max(count, 1) - mean**2, 0.0) ** 0.5)


def create_feed(source: Source, config: Config, *, cells: bool = False,
                progress: Callable[[], Any] = lambda: None, process_index: int = 0,
                process_count: int = 1) -> Feed:
  """Creates the batches of a training set by the whole config, with `component_cells` if asked for.

  data.mean and data.std are one number or one per channel. With std 0 both are computed from the
  training images at the network's size. data.cache='auto' means 'device' if the arrays need at most
  a quarter of its memory, else 'stream'. `progress` is called once per case while loading. Each
  process makes its contiguous part of a batch.

  Raises:
    ValueError: a field out of range, or a fault in a file.
  """
  data, batch_size = config['data'], config['batch_size']
  positions = patch_positions(data['image_size'], data['patch_size'], data['patch_stride'])
  num_positions = 1 if positions is None else len(positions)
  indices_at = train_indices(len(source), num_positions, batch_size, config['seed'])

  def index_at(step: int) -> Arrays:
    return index_batch(indices_at(step), positions, process_index, process_count)

  def read(case: int, cells: bool = cells) -> Arrays:
    return examples.prepare_case(source[case], data, cells)

  index_at(0)  # raises early
  read_all = functools.partial(_read_ahead, start=0, stop=len(source),
                               num_ahead=2 * (os.cpu_count() or 1))
  cache = data['cache']
  if cache == 'auto':
    stats = jax.local_devices()[0].memory_stats() or {}
    physical = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    size = len(source) * sum(array.nbytes for array in read(0).values())
    fits = size <= stats.get('bytes_limit', physical) // _DEVICE_SHARE
    cache = 'device' if fits else 'stream'
  statistics = _given_statistics(data)
  if cache == 'device':
    cases = []
    for case in read_all(read):
      cases.append(case)
      progress()
    arrays = {name: np.stack([case[name] for case in cases]) for name in cases[0]}
    batch_at = _from_device(arrays, index_at)
    statistics = statistics or image_statistics(arrays['image'])
  else:
    batch_at = _from_stream(read, index_at)
    images = read_all(lambda case: read(case, cells=False)['image'])
    statistics = statistics or image_statistics(images, progress)

  def names_at(step: int) -> list[str]:
    return [source.names[case] for case in indices_at(step)[:, 0]]

  num_steps = -(-len(source) * num_positions // batch_size)
  mean, std = (tuple(map(float, np.ravel(value))) for value in statistics)
  return Feed(mean, std, num_steps, batch_at, names_at, cache)


def _read_ahead(read: Callable[[int], Any], start: int, stop: int, num_ahead: int
                ) -> grain.IterDataset:
  """read(start), ..., read(stop - 1) in order; one thread per core reads a few ahead."""
  return grain.MapDataset.range(start, stop).map(read).to_iter_dataset(
      grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=num_ahead))


def _given_statistics(data: Config) -> tuple[Any, Any] | None:
  """data.mean and data.std; None if they are to be computed."""
  for name in ('mean', 'std'):
    if np.size(data[name]) not in (1, data['channels']):
      raise ValueError(f"data.{name} must have one value, or one for each of {data['channels']} "
                       f'channels, not {np.size(data[name])}.')
  return (data['mean'], data['std']) if np.all(data['std']) else None


def _from_device(arrays: Arrays, index_at: Callable[[int], Arrays]
                 ) -> Callable[[int], dict[str, Any]]:
  """step -> batch, gathered from arrays [M,...] on the default device."""
  resident = jax.tree.map(jnp.asarray, arrays)

  @jax.jit
  def take(arrays, case, rest):
    return {**{name: array[case] for name, array in arrays.items()}, **rest}

  def batch_at(step: int) -> dict[str, Any]:
    index = index_at(step)
    return take(resident, index.pop('case'), index)

  return batch_at


def _from_stream(read: Callable[[int], Arrays], index_at: Callable[[int], Arrays]
                 ) -> Callable[[int], dict[str, Any]]:
  """step -> batch, read ahead while steps are consecutive, and from a new start otherwise."""
  size = len(index_at(0)['case'])
  batches: Iterator[dict[str, Any]] = iter(())
  next_step = None

  def read_example(k: int) -> dict[str, Any]:
    step, place = divmod(k, size)
    index = {name: array[place] for name, array in index_at(step).items()}
    return {**read(int(index.pop('case'))), **index}

  def batch_at(step: int) -> dict[str, Any]:
    nonlocal batches, next_step
    if step != next_step:
      batches = iter(_read_ahead(read_example, step * size, 2**62, 2 * size).batch(size))
    batch = next(batches)
    next_step = step + 1
    return batch

  return batch_at
