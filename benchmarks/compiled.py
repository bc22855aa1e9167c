"""Programs of JAX, compiled ahead of time."""
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.programs import Program


def compile_for(step: Any, *arguments: Any) -> tuple[Any, float]:
  """A jitted function compiled for its arguments, and the seconds that this took."""
  start = time.perf_counter()
  compiled = step.lower(*arguments).compile()
  return compiled, time.perf_counter() - start


def jitted(function: Callable, *arguments: Any) -> tuple[Program, int]:
  """The program that calls a function, compiled for its arguments, and the bytes it needs."""
  placed = jax.device_put(arguments)
  compiled, _ = compile_for(jax.jit(function), *placed)
  return queued(lambda: compiled(*placed)), num_bytes(compiled)


def queued(call: Callable[[], Any]) -> Program:
  """A program whose calls queue on accelerators and finish one by one on CPU.

  On CPU several calls at once that share the virtual devices could wait for each other forever.
  """
  if jax.default_backend() == 'cpu':
    return Program(lambda: jax.block_until_ready(call()))
  results: list[Any] = []

  def queue():
    results[:] = [call()]

  return Program(queue, lambda: jax.block_until_ready(results))


def num_bytes(compiled: Any) -> int:
  """Bytes of arguments, results and temporary arrays on each device; 0 if unknown."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    return 0
  return (analysis.argument_size_in_bytes + analysis.output_size_in_bytes
          + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)
