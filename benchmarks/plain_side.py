"""The process of plain Flax: the same networks with XLA's own operations only.

A Flax user who writes these networks with `nn.Conv`, `nn.ConvTranspose`, `nn.max_pool` and
`jax.image.resize` gets these programs. The parameters are those of spinejax.
"""
from collections.abc import Callable

import jax

from benchmarks import spinejax_side
from benchmarks.programs import Ops
from spinejax.models import cpu_kernels


def native_only(*, cpu: Callable, default: Callable) -> Callable:
  """A replacement of `cpu_kernels.dispatch` that always chooses the native form."""
  del cpu
  return default


def configure() -> None:
  """Replaces the fast forms by the native ones for the rest of this process."""
  jax.config.update('jax_enable_compilation_cache', False)
  cpu_kernels.dispatch = native_only


OPS: Ops = {'build': spinejax_side.build}
