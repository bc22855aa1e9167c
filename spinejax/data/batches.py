"""Batches of training examples. The batch of step k is a pure function of (seed, k).

An example is a case and a position in it. Small sets are kept on the device and gathered there,
large ones are read by threads while the device works. Both give bitwise equal arrays.
"""
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
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
    batch_at: step (from 0) -> image [B,*image_size,C], label uint8 [B,*image_size], cells uint8
      [B,*image_size,K-1] if asked for, slot int32 [B] and, for dense patches, position int32 [B,d];
      `augment` takes it.
    names_at: step -> names of the cases in its batch.
    cache: 'device' or 'stream'.
  """
  mean: tuple[float, ...]
  std: tuple[float, ...]
  steps_per_epoch: int
  batch_at: Callable[[int], dict[str, Any]]
  names_at: Callable[[int], list[str]]
  cache: str


class Order(NamedTuple):
  """Which examples each step takes, and this process's part of them.

  Attributes:
    indices_at: of `train_indices`.
    positions: of `patch_positions`.
    process_index, process_count: this process makes its contiguous part of each batch.
  """
  indices_at: Callable[[int], np.ndarray]
  positions: np.ndarray | None
  process_index: int = 0
  process_count: int = 1

  def index_at(self, step: int) -> Arrays:
    """`index_batch` of a step."""
    return index_batch(self.indices_at(step), self.positions, self.process_index,
                       self.process_count)


def patch_positions(
    image_size: Sequence[int], patch_size: Sequence[int], patch_stride: Sequence[int]
) -> np.ndarray | None:
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

  Args:
    indices: int32 [B,2] of `train_indices`; B must be a multiple of process_count.
    positions: int32 [P,d] of `patch_positions`.

  Returns:
    case int32 [b], slot int32 [b] (place in the global batch) and, with positions, position int32
    [b,d].

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


def gather(arrays: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
  """The cases of `index_batch` from arrays [M,...], and the rest of the index; NumPy or JAX."""
  index = dict(index)
  case = index.pop('case')
  return {**{name: array[case] for name, array in arrays.items()}, **index}


def _read_cases(source: Source, config: Config, cells: bool) -> Iterator[Arrays]:
  """All cases of a source, prepared by one thread per core, in order and a few ahead."""

  def read(index: int) -> Arrays:
    return examples.prepare_case(source[index], config, cells)

  threads = os.cpu_count() or 1
  return iter(grain.MapDataset.range(len(source)).map(read).to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def load_to_memory(source: Source, config: Config, cells: bool = False,
                   progress: Callable[[], Any] = lambda: None) -> Arrays:
  """Reads every case once: arrays [M,...] of what `examples.prepare_case` returns.

  Args:
    source: of one or more records.
    config, cells: see `examples.prepare_case`.
    progress: called once per case.
  """
  cases = []
  for case in _read_cases(source, config, cells):
    cases.append(case)
    progress()
  return {name: np.stack([case[name] for case in cases]) for name in cases[0]}


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


def stream(source: Source, config: Config, order: Order, cells: bool = False, start_step: int = 0
           ) -> Iterator[Arrays]:
  """Batches from `start_step` on, read ahead by threads; equal to gathering from memory.

  Args:
    source, config, cells: see `load_to_memory`.
    order: of the examples.
    start_step: first step; no earlier case is read.
  """
  size = len(order.index_at(0)['case'])

  def read(k: int) -> Arrays:
    step, slot = divmod(k, size)
    return examples.prepare_case(source[int(order.index_at(step)['case'][slot])], config, cells)

  threads = os.cpu_count() or 1
  cases = iter(grain.MapDataset.range(start_step * size, 2**62).map(read).to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size)))
  for step in itertools.count(start_step):
    batch = list(itertools.islice(cases, size))
    arrays = {name: np.stack([case[name] for case in batch]) for name in batch[0]}
    index = order.index_at(step)
    del index['case']
    yield {**arrays, **index}


def size_in_memory(source: Source, config: Config, cells: bool = False) -> int:
  """Bytes of `load_to_memory`, estimated from the first case."""
  case = examples.prepare_case(source[0], config, cells)
  return len(source) * sum(array.nbytes for array in case.values())


def _fits_on_device(num_bytes: int) -> bool:
  """Whether a quarter of the memory of the default device holds so many bytes."""
  import jax

  stats = jax.local_devices()[0].memory_stats() or {}
  physical = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return num_bytes <= stats.get('bytes_limit', physical) // _DEVICE_SHARE


def create_feed(
    source: Source, config: Config, *, cells: bool = False,
    progress: Callable[[], Any] = lambda: None, process_index: int = 0, process_count: int = 1
) -> Feed:
  """Creates the batches of a training set.

  Args:
    source: training set, not empty.
    config: the whole config. Used are seed, batch_size, and of data: image_size, patch_size,
      patch_stride, channels, classes, preparation, mean, std (one number or one per channel; std 0:
      both are computed from the training images at the network's size) and cache ('auto': 'device'
      if the arrays need at most a quarter of its memory, else 'stream').
    cells: whether to add `regions.component_cells`.
    progress: called once per case while loading.
    process_index, process_count: this process makes its contiguous part of each batch.

  Raises:
    ValueError: a field out of range, or a fault in a file.
  """
  data = config['data']
  positions = patch_positions(data['image_size'], data['patch_size'], data['patch_stride'])
  num_positions = 1 if positions is None else len(positions)
  indices_at = train_indices(len(source), num_positions, config['batch_size'], config['seed'])
  order = Order(indices_at, positions, process_index, process_count)
  order.index_at(0)  # raises early
  cache = data['cache']
  if cache == 'auto':
    fits = _fits_on_device(size_in_memory(source, data, cells))
    cache = 'device' if fits else 'stream'
  statistics = _given_statistics(data)
  if cache == 'device':
    arrays = load_to_memory(source, data, cells, progress)
    batch_at = _from_device(arrays, order)
    statistics = statistics or image_statistics(arrays['image'])
  else:
    batch_at = _from_stream(functools.partial(stream, source, data, order, cells))
    images = (case['image'] for case in _read_cases(source, data, False))
    statistics = statistics or image_statistics(images, progress)

  def names_at(step: int) -> list[str]:
    return [source.names[case] for case in indices_at(step)[:, 0]]

  num_steps = -(-len(source) * num_positions // config['batch_size'])
  mean, std = (tuple(map(float, np.ravel(value))) for value in statistics)
  return Feed(mean, std, num_steps, batch_at, names_at, cache)


def _given_statistics(data: Config) -> tuple[Any, Any] | None:
  """data.mean and data.std; None if they are to be computed."""
  for name in ('mean', 'std'):
    if np.size(data[name]) not in (1, data['channels']):
      raise ValueError(f"data.{name} must have one value, or one for each of {data['channels']} "
                       f'channels, not {np.size(data[name])}.')
  return (data['mean'], data['std']) if np.all(data['std']) else None


def _from_device(arrays: Arrays, order: Order) -> Callable[[int], dict[str, Any]]:
  """step -> batch, gathered from arrays on the default device."""
  import jax
  import jax.numpy as jnp

  resident = jax.tree.map(jnp.asarray, arrays)
  take = jax.jit(gather)

  def batch_at(step: int) -> dict[str, Any]:
    return take(resident, order.index_at(step))

  return batch_at


def _from_stream(start_at: Callable[..., Iterator[Arrays]]) -> Callable[[int], dict[str, Any]]:
  """step -> batch of a stream that continues while steps are consecutive, and else restarts."""
  batches: Iterator[Arrays] = iter(())
  next_step = None

  def batch_at(step: int) -> dict[str, Any]:
    nonlocal batches, next_step
    if step != next_step:
      batches = start_at(start_step=step)
    batch = next(batches)
    next_step = step + 1
    return batch

  return batch_at
