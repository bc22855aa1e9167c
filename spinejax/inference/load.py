"""A trained network compiled to predict images, within the memory that there is."""
import bisect
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from spinejax import steps
from spinejax.data import augment, datasets
from spinejax.inference import styles, tiles
from spinejax.inference.restore import Run, restore_run
from spinejax.models import wave_ct
from spinejax.readers import memory


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A compiled network, and how its run prepares and classifies images.

  Attributes:
    config, info, step: as in `Run`.
    batch_size: images per call of `logits`.
    logits: maps images float32 [batch_size, *S, C], gray levels at the network's size, to logits
      float32 [batch_size, *S, K].
    transfer: maps such images to the style of the training image nearest to each, in gray levels;
      None if images are segmented as they are.
    tile: size of the tiles that `logits` segments one at a time; () for whole images.
    num_bytes: memory that the compiled network needs, with its weights; 0 if unknown.
    run: the network itself.
  """
  config: ConfigDict
  info: dict[str, Any]
  step: int
  batch_size: int
  logits: Callable[[np.ndarray], np.ndarray]
  transfer: Callable[[np.ndarray], np.ndarray] | None = None
  tile: tuple[int, ...] = ()
  num_bytes: int = 0
  run: Run | None = None


@dataclasses.dataclass(frozen=True)
class _Program:
  """A step compiled for images of one shape.

  `num_bytes` is the memory that it needs, and `num_new_bytes` that without its arguments.
  """
  compiled: jax.stages.Compiled
  mesh: jax.sharding.Mesh
  num_bytes: int = 0  # 0 if the backend does not tell
  num_new_bytes: int = 0

  def __call__(self, state: Any, images: np.ndarray) -> Any:
    return jax.device_get(self.compiled(state, images))


def load_predictor(workdir: str, *, checkpoint: str = 'best',
                   overrides: Mapping[str, Any] | None = None, **options: Any) -> Predictor:
  """Restores a run and compiles it; `options` and errors are those of `create_predictor`."""
  return create_predictor(restore_run(workdir, checkpoint, overrides), **options)


def create_predictor(run: Run, *, style_transfer: bool | None = None,
                     training: datasets.Source | None = None, tile: Sequence[int] = (),
                     memory_limit: float | None = None) -> Predictor:
  """Compiles the network of a run.

  Args:
    run: of `restore_run`.
    style_transfer: whether a wave_ct network segments images after a transfer to the style of the
      nearest training image; None does as `config.model.style_transfer` says.
    training: the training cases of the run, if they are loaded. They bring styles.npz of a wave_ct
      network up to date even without a transfer.
    tile: size of overlapping tiles to segment one at a time; () for whole images.
    memory_limit: bytes that the compiled network may need on each device, or on all devices of a
      CPU together. The predictor takes fewer images at a time or, if one is too large and `tile`
      is not given, the largest of `tiles.tile_sizes` that fits. None: no limit but the free memory.

  Raises:
    FileNotFoundError: no styles, and no training data to compute them from.
    ValueError: a style transfer by another network; other training data than those of the run; a
      tile that does not fit; too little memory.
  """
  size = tuple(run.config.data.image_size)
  transfers = styles.uses_style_transfer(run.model, style_transfer)
  part = tuple(tile) or size
  tiles.tile_starts(size, part)  # raises if the tile does not fit

  @functools.cache
  def compile_network(batch_size, part):
    mesh = steps.create_mesh(batch_size, part, jax.local_devices())
    predict = functools.partial(steps.predict_step, mesh=mesh)
    return _compile(run, predict, run.variables, (batch_size, *part), mesh)

  batch_size = run.config.eval_batch_size
  if memory_limit is not None:
    batch_size, part = _find_largest(
        lambda *option: compile_network(*option).num_bytes, memory_limit, batch_size,
        [part] if tile else tiles.tile_sizes(size))
  network = compile_network(batch_size, part)
  smaller = ','.join(str(max(n // 2, 1)) for n in part)
  _require_memory(network, f'segmenting {batch_size} x {" x ".join(map(str, part))} pixels at once',
                  f'give --tile={smaller} or smaller')
  variables = jax.device_put(run.variables, steps.replicated(network.mesh))
  logits = functools.partial(network, variables)
  if part != size:
    logits = functools.partial(tiles.predict_in_tiles, logits, tile=part)
  predictor = Predictor(run.config, run.info, run.step, batch_size, logits,
                        tile=part if part != size else (), num_bytes=network.num_bytes, run=run)
  if not isinstance(run.model, wave_ct.WaveCT) or not (transfers or training is not None):
    return predictor

  def compile_whole(step, state):
    program = _compile(run, step, state, (batch_size, *size), network.mesh)
    _require_memory(program, 'a style transfer of whole images',
                    'use --nostyle_transfer or free some', memory_limit)
    return functools.partial(program, state)

  bank = styles.load_styles(
      run, compile_whole(styles.style_step, variables), batch_size, training)
  if not transfers:
    return predictor
  bank = jax.device_put(bank, steps.replicated(network.mesh))
  transfer = compile_whole(styles.transfer_step, (variables, bank))
  mean = np.float32(run.info['mean'])
  std = np.maximum(np.float32(run.info['std']), np.float32(1e-6))
  return dataclasses.replace(predictor, transfer=lambda images: transfer(images) * std + mean)


def _compile(run: Run, step: Callable, state: Any, shape: Sequence[int], mesh: jax.sharding.Mesh
             ) -> _Program:
  """Compiles `step(state, images)` of the run's network for images of a shape [N, *S]."""
  normalize_fn = functools.partial(augment.normalize, mean=run.info['mean'], std=run.info['std'])
  step = functools.partial(step, model=run.model, normalize_fn=normalize_fn)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
  images = jax.ShapeDtypeStruct((*shape, run.config.data.channels), jnp.float32)
  compiled = steps.parallelize_eval_step(step, mesh).lower(shapes, images).compile()
  analysis = compiled.memory_analysis()
  if analysis is None:
    return _Program(compiled, mesh)
  # The virtual devices of a CPU share one memory, each with its own copy.
  copies = 1 if mesh.devices.flat[0].memory_stats() else mesh.size
  new = copies * (analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
  return _Program(compiled, mesh, new + copies * analysis.argument_size_in_bytes, new)


def _find_largest(count_bytes: Callable[[int, tuple[int, ...]], int], limit: float, batch_size: int,
                  tiles: Sequence[tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
  """The largest batch size and tile (largest first) that need no more bytes than a limit.

  It halves the number of images first, and then takes smaller tiles of one image.
  """
  batch_sizes = [batch_size >> k for k in range(batch_size.bit_length())]
  options = [(n, tiles[0]) for n in batch_sizes] + [(1, tile) for tile in tiles[1:]]

  largest = count_bytes(*options[0])
  if not largest:
    raise ValueError('this device does not tell how much memory a program needs; give --tile '
                     'instead of --memory.')
  if largest <= limit:
    return options[0]
  place = bisect.bisect_left(
      options, True, lo=1, key=lambda option: count_bytes(*option) <= limit)
  if place == len(options):
    smallest = ' x '.join(map(str, options[-1][1]))
    raise ValueError(
        f'even {smallest} pixels at a time need {count_bytes(*options[-1]) / 2**30:.3g} GiB of '
        f'memory, but --memory allows {limit / 2**30:.3g} GiB; give more.')
  return options[place]


def _require_memory(program: _Program, subject: str, remedy: str, limit: float | None = None
                    ) -> None:
  """Raises ValueError if a program needs more memory than is left on its devices, or a limit."""
  stats = program.mesh.devices.flat[0].memory_stats()  # None on CPU
  memory.require(program.num_new_bytes, subject, remedy,
                 stats['bytes_limit'] - stats['bytes_in_use'] if stats else None)
  if limit is not None:
    memory.require(program.num_bytes, subject, remedy, int(limit))
