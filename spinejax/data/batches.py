"""Batches of training examples: what step k sees is a pure function of (seed, k).

An example is a case and a position in it: small sets lie on the device and are gathered there,
large ones are read by threads while the device works. Both give the same arrays to the bit.
"""
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from spinejax.data import regions
from spinejax.data import resize
from spinejax.data.datasets import Record, Source

Config = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class Feed(NamedTuple):
  """Training batches of a config; see `create_feed`.

  Attributes:
    mean, std: gray levels to normalize with, one for all channels or one per channel: the
      config's, or those of the training images.
    steps_per_epoch: steps that show every example at least once.
    batch_at: step (from 0) -> image [B,H,W,C], label uint8 [B,H,W], cells uint8 [B,H,W,K-1] where
      asked for, slot int32 [B] and, of dense patches, position int32 [B,2]: `augment` takes it.
    names_at: step -> names of the cases in its batch.
    cache: 'device' or 'stream'.
  """
  mean: tuple[float, ...]
  std: tuple[float, ...]
  steps_per_epoch: int
  batch_at: Callable[[int], dict[str, Any]]
  names_at: Callable[[int], list[str]]
  cache: str


def patch_positions(
    image_size: Sequence[int], patch_size: Sequence[int], patch_stride: Sequence[int]
) -> np.ndarray | None:
  """First pixels of dense patches, int32 [P,d], the last ones flush with the border.

  SEAM (Zhao et al., 2021, section 3.1) extracts them densely and gives no stride. A stride of all
  zeros means random crops: None.

  Raises:
    ValueError: a patch larger than the image, a stride that is negative or only partly zero.
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


def train_indices(
    num_cases: int, num_positions: int, batch_size: int, seed: int
) -> Callable[[int], np.ndarray]:
  """Order of the examples: `batch_at(step)` -> int32 [B,2] (case, position), by random access.

  Every epoch is another permutation of all num_cases * num_positions examples, and batches go on
  across its end, so none is partial; where a batch is larger than an epoch, examples repeat in it.

  Raises:
    ValueError: no case, or a batch size below 1.
  """
  if num_cases < 1 or num_positions < 1 or batch_size < 1:
    raise ValueError(f'a batch needs a case and a size above 0, not {num_cases} cases and '
                     f'batch_size={batch_size}.')
  num_examples = num_cases * num_positions

  @functools.lru_cache(maxsize=2)
  def order(epoch):
    return np.random.default_rng((seed % 2**63, epoch)).permutation(num_examples)

  def batch_at(step):
    first, end = step * batch_size, (step + 1) * batch_size
    epochs = range(first // num_examples, (end - 1) // num_examples + 1)
    start = first % num_examples
    chosen = np.concatenate([order(epoch) for epoch in epochs])[start:start + batch_size]
    return np.stack(np.divmod(chosen, num_positions), axis=-1).astype(np.int32)

  return batch_at


def index_batch(
    indices: np.ndarray, positions: np.ndarray | None, process_index: int = 0,
    process_count: int = 1
) -> Arrays:
  """This process's contiguous part of a batch: case, slot int32 [b] and position int32 [b,d].

  Args:
    indices: int32 [B,2] of `train_indices`; B must be a multiple of process_count.
    positions: int32 [P,d] of `patch_positions`, or None: then there is no position.

  Raises:
    ValueError: a batch that the processes cannot share.
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
  """The cases of `index_batch` out of arrays [M,...] and the rest of the index; NumPy or JAX."""
  index = dict(index)
  case = index.pop('case')
  return {**{name: array[case] for name, array in arrays.items()}, **index}


def prepare_case(record: Record, config: Config, cells: bool = False) -> Arrays:
  """Brings a record to the size of the network.

  The image is resized as `prepare_image`, the label to the nearest pixel; cells are computed at the
  new size.

  Args:
    record: with image [H,W,C] and label [H,W], or None for an image to predict.
    config: config.data: image_size and classes.
    cells: add `regions.component_cells`.

  Returns:
    image uint8 or float32 [h,w,C] as `prepare_image`, label uint8 [h,w], cells uint8 [h,w,K-1];
    with an axis more for volumes.
  """
  case = dict(image=prepare_image(record.image, config))
  if record.label is not None:
    case['label'] = prepare_label(record.label, config)
    if cells:
      case['cells'] = regions.component_cells(case['label'], len(config['classes']))
  return case


def prepare_image(image: np.ndarray, config: Config) -> np.ndarray:
  """An image [*S,C] at the network's size, by the steps of config.data.preparation.

  'rescale' brings it to image_size, linearly and with antialiasing where it shrinks;
  'rescale_nearest' to the nearest pixel; 'fit' as 'rescale' with its aspect ratio kept, and zeros
  after its last row or column. They keep the dtype. 'z_score' makes it float32 of mean 0 and
  deviation 1, zero where it is constant, with zeros around a fitted image. What crops volumes is
  done with them: see `datasets`.

  Raises:
    ValueError: an image of another size, not to be rescaled.
  """
  steps = config.get('preparation', ('rescale',))
  size = network_size(image.shape[:-1], config)
  scale = resize.resize_nearest if 'rescale_nearest' in steps else resize.resize_image
  image = scale(image, size)
  if 'z_score' in steps:
    image = image.astype(np.float32)
    image = (image - image.mean()) / max(image.std(), np.float32(1e-6))
  return _fill(image, config)


def prepare_label(label: np.ndarray, config: Config) -> np.ndarray:
  """A label [*S] where `prepare_image` puts its image, to the nearest pixel; background around."""
  return _fill(resize.resize_nearest(label, network_size(label.shape, config)), config)


def network_size(size: Sequence[int], config: Config) -> tuple[int, ...]:
  """Pixels that an image of `size` takes in the network's image: all, or fewer after a 'fit'.

  Raises:
    ValueError: another size than the network's, not to be rescaled.
  """
  steps, whole = config.get('preparation', ('rescale',)), tuple(config['image_size'])
  if 'fit' in steps:
    factor = min(new / old for new, old in zip(whole, size))
    return tuple(min(max(round(factor * old), 1), new) for new, old in zip(whole, size))
  if not {'rescale', 'rescale_nearest'} & set(steps) and tuple(size) != whole:
    raise ValueError(f"an image of {tuple(size)} pixels does not fit data.image_size {whole}; "
                     "add 'rescale' to data.preparation.")
  return whole


def _fill(array: np.ndarray, config: Config) -> np.ndarray:
  """Zeros after the last row and column up to the network's size."""
  missing = [new - old for new, old in zip(config['image_size'], array.shape)]
  if not any(missing):
    return array
  return np.pad(array, [(0, n) for n in missing] + [(0, 0)] * (array.ndim - len(missing)))


def image_batches(images: Iterable[np.ndarray], config: Config, batch_size: int
                  ) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
  """Images [*S,C] of any sizes by the batch, and the same as `prepare_image` makes them.

  The second of each pair is float32 [batch_size,*image_size,C], the last one filled up.
  """
  images = iter(images)
  while chunk := list(itertools.islice(images, batch_size)):
    batch = np.stack([prepare_image(image, config) for image in chunk])
    filling = np.repeat(batch[:1], batch_size - len(batch), 0)
    yield chunk, np.concatenate([batch, filling]).astype(np.float32)


def _prepared(source: Source, config: Config, cells: bool) -> Iterator[Arrays]:
  """All cases of a source, prepared by one thread per core, in order and a few ahead."""
  prepare = lambda index: prepare_case(source[index], config, cells)
  dataset = grain.MapDataset.range(len(source)).map(prepare)
  threads = os.cpu_count() or 1
  return iter(dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def load_to_memory(
    source: Source, config: Config, cells: bool = False,
    progress: Callable[[], Any] = lambda: None
) -> Arrays:
  """Decodes and prepares every case once: arrays [M,...] of what `prepare_case` returns.

  Args:
    source: of one or more records.
    config, cells: as `prepare_case`.
    progress: called once a case.
  """
  cases = []
  for case in _prepared(source, config, cells):
    cases.append(case)
    progress()
  return {name: np.stack([case[name] for case in cases]) for name in cases[0]}


def image_statistics(
    images: Iterable[np.ndarray], progress: Callable[[], Any] = lambda: None
) -> tuple[float, float]:
  """Mean and standard deviation of the gray levels of all pixels and channels; (0, 0) of none."""
  count, total, squares = 0, 0.0, 0.0
  for image in images:
    pixels = image.astype(np.float64)
    count, total, squares = count + pixels.size, total + pixels.sum(), squares + (pixels**2).sum()
    progress()
  mean = total / max(count, 1)
  return float(mean), float(max(squares / max(count, 1) - mean**2, 0.0) ** 0.5)


def stream(
    source: Source, config: Config, indices_at: Callable[[int], np.ndarray],
    positions: np.ndarray | None, cells: bool = False, start_step: int = 0,
    process_index: int = 0, process_count: int = 1
) -> Iterator[Arrays]:
  """Batches from start_step on, read ahead by threads; gathering from memory gives the same.

  Args:
    source, config, cells: as `load_to_memory`.
    indices_at: of `train_indices`.
    positions: of `patch_positions`.
    start_step: first step; nothing before it is read.
    process_index, process_count: as `index_batch`.
  """
  index_at = lambda step: index_batch(indices_at(step), positions, process_index, process_count)
  size = len(indices_at(0)) // process_count

  def read(k):
    step, slot = divmod(k, size)
    return prepare_case(source[int(index_at(step)['case'][slot])], config, cells)

  threads = os.cpu_count() or 1
  examples = iter(grain.MapDataset.range(start_step * size, 2**62).map(read).to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size)))
  for step in itertools.count(start_step):
    cases = list(itertools.islice(examples, size))
    arrays = {name: np.stack([case[name] for case in cases]) for name in cases[0]}
    yield {**arrays, **{name: value for name, value in index_at(step).items() if name != 'case'}}


def size_in_memory(source: Source, config: Config, cells: bool = False) -> int:
  """Bytes of `load_to_memory`, from the first case."""
  case = prepare_case(source[0], config, cells)
  return len(source) * sum(array.nbytes for array in case.values())


def _fits_on_device(num_bytes: int) -> bool:
  """Whether a quarter of the memory of the default device holds so many bytes."""
  import jax

  stats = jax.local_devices()[0].memory_stats() or {}
  physical = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return num_bytes <= stats.get('bytes_limit', physical) // 4


def create_feed(
    source: Source, config: Config, *, cells: bool = False,
    progress: Callable[[], Any] = lambda: None, process_index: int = 0, process_count: int = 1
) -> Feed:
  """Feeds the training step: data on the device if it fits there, else read ahead by threads.

  Args:
    source: training set, not empty.
    config: the whole config; used are seed, batch_size and of data: image_size, patch_size,
      patch_stride, channels, classes, mean, std (a number, or a tuple of one or of one per channel;
      None: of the training images at the network's size; std 0: both are) and cache ('auto':
      'device' if the arrays take at most a quarter of its memory, else 'stream').
    cells: add cells, see `regions.component_cells`.
    progress: called once a case while loading.
    process_index, process_count: this process makes its contiguous part of each batch.

  Raises:
    ValueError: a field that does not fit, or a fault in a file.
  """
  data = config['data']
  if data['cache'] not in ('auto', 'device', 'stream'):
    raise ValueError(f"data.cache must be 'auto', 'device' or 'stream', not {data['cache']!r}.")
  positions = patch_positions(data['image_size'], data['patch_size'], data['patch_stride'])
  num_positions = 1 if positions is None else len(positions)
  indices_at = train_indices(len(source), num_positions, config['batch_size'], config['seed'])
  index_batch(indices_at(0), positions, process_index, process_count)  # refuses early
  cache = data['cache']
  if cache == 'auto':
    fits = _fits_on_device(size_in_memory(source, data, cells))
    cache = 'device' if fits else 'stream'
  given = _given_statistics(data)
  if cache == 'device':
    arrays = load_to_memory(source, data, cells, progress)
    computed = given if None not in given else _as_tuples(image_statistics(arrays['image']))
    batch_at = _from_device(arrays, indices_at, positions, process_index, process_count)
  else:
    images = (case['image'] for case in _prepared(source, data, False))
    computed = given if None not in given else _as_tuples(image_statistics(images, progress))
    batch_at = _from_stream(functools.partial(
        stream, source, data, indices_at, positions, cells, process_index=process_index,
        process_count=process_count))
  mean, std = (new if old is None else old for old, new in zip(given, computed))
  return Feed(
      mean, std, -(-len(source) * num_positions // config['batch_size']), batch_at,
      lambda step: [source.names[case] for case in indices_at(step)[:, 0]], cache)


def _as_tuples(statistics: Iterable[float | None]) -> tuple[Any, ...]:
  return tuple(None if value is None else tuple(map(float, np.ravel(value)))
               for value in statistics)


def _given_statistics(data: Config) -> tuple[Any, ...]:
  """data.mean and data.std as tuples, None where they are to be computed."""
  given = _as_tuples((data['mean'], data['std']))
  for name, values in zip(('mean', 'std'), given):
    if values is not None and len(values) not in (1, data['channels']):
      raise ValueError(f"data.{name} must have one value, or one for each of {data['channels']} "
                       f'channels, not {len(values)}.')
  return (None, None) if given[1] is not None and not all(given[1]) else given


def _from_device(
    arrays: Arrays, indices_at: Callable[[int], np.ndarray], positions: np.ndarray | None,
    process_index: int, process_count: int
) -> Callable[[int], dict[str, Any]]:
  """batch_at(step) that gathers from arrays on the default device."""
  import jax
  import jax.numpy as jnp

  resident = jax.tree.map(jnp.asarray, arrays)
  take = jax.jit(gather)
  return lambda step: take(
      resident, index_batch(indices_at(step), positions, process_index, process_count))


def _from_stream(
    start_at: Callable[..., Iterator[Arrays]]) -> Callable[[int], dict[str, Any]]:
  """batch_at(step) of a stream that goes on while steps follow each other, and else starts anew."""
  batches, next_step = iter(()), None

  def batch_at(step):
    nonlocal batches, next_step
    if step != next_step:
      batches = start_at(start_step=step)
    batch = next(batches)
    next_step = step + 1
    return batch

  return batch_at
