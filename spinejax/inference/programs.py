"""Compiled networks, the memory they need, and the largest one that fits into a limit."""
import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spinejax import steps
from spinejax.readers import memory


@dataclasses.dataclass(frozen=True)
class Program:
  """A step compiled for images of one shape.

  Attributes:
    compiled: maps (state, images) to arrays.
    mesh: devices that it runs on.
    num_bytes: memory it needs, with its arguments; 0 if the backend does not tell.
    num_new_bytes: the same without its arguments.
  """
  compiled: jax.stages.Compiled
  mesh: jax.sharding.Mesh
  num_bytes: int
  num_new_bytes: int

  def __call__(self, state: Any, images: np.ndarray) -> Any:
    return jax.device_get(self.compiled(state, images))


def compile_step(step: Callable, state: Any, shape: Sequence[int], mesh: jax.sharding.Mesh
                 ) -> Program:
  """Compiles `step(state, images)` for float32 images of a shape [N, *S, C]."""
  run = steps.parallelize_eval_step(step, mesh)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
  compiled = run.lower(shapes, jax.ShapeDtypeStruct(tuple(shape), jnp.float32)).compile()
  analysis = compiled.memory_analysis()
  if analysis is None:
    return Program(compiled, mesh, 0, 0)
  # The virtual devices of a CPU share one memory, each with its own copy.
  copies = 1 if mesh.devices.flat[0].memory_stats() else mesh.size
  new = copies * (analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
  return Program(compiled, mesh, new + copies * analysis.argument_size_in_bytes, new)


def find_largest(count_bytes: Callable[[int, tuple[int, ...]], int], limit: float, batch_size: int,
                 tiles: Sequence[tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
  """The largest batch size and tile that need no more memory than a limit.

  It halves the number of images first, and then takes smaller tiles of one image.

  Args:
    count_bytes: memory for a batch size and a tile.
    limit: bytes.
    batch_size: the largest batch size.
    tiles: sizes, the largest first.

  Raises:
    ValueError: nothing fits, or the device does not tell how much memory a program needs.
  """
  batch_sizes = [batch_size >> k for k in range(batch_size.bit_length())]
  options = [(n, tiles[0]) for n in batch_sizes] + [(1, tile) for tile in tiles[1:]]

  def fits(option):
    return count_bytes(*option) <= limit

  if not count_bytes(*options[0]):
    raise ValueError('this device does not tell how much memory a program needs; give --tile '
                     'instead of --memory.')
  if fits(options[0]):
    return options[0]
  place = bisect.bisect_left(options, True, lo=1, key=fits)
  if place == len(options):
    smallest = ' x '.join(map(str, options[-1][1]))
    raise ValueError(
        f'even {smallest} pixels at a time need {count_bytes(*options[-1]) / 2**30:.3g} GiB of '
        f'memory, but --memory allows {limit / 2**30:.3g} GiB; give more.')
  return options[place]


def require_memory(program: Program, subject: str, remedy: str, limit: float | None = None) -> None:
  """Raises ValueError if a program needs more memory than is left on its devices, or a limit."""
  stats = program.mesh.devices.flat[0].memory_stats()  # None on CPU
  memory.require(program.num_new_bytes, subject, remedy,
                 stats['bytes_limit'] - stats['bytes_in_use'] if stats else None)
  if limit is not None:
    memory.require(program.num_bytes, subject, remedy, int(limit))
