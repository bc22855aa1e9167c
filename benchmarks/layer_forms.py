"""The fast form of each layer beside the native one: value and gradient, in one process."""
import dataclasses
import functools
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain_side
from benchmarks.compiled import jitted
from benchmarks.programs import Program
from spinejax.models import convolutions
from spinejax.models import cpu_kernels
from spinejax.models import resizing

TOLERANCE = 1e-4  # largest relative error of value and gradients


@dataclasses.dataclass(frozen=True)
class Layer:
  """A function of arrays, and their shapes: an input [N, *S, C] and, if it has one, a kernel."""
  function: Callable
  shapes: tuple[tuple[int, ...], ...]


LAYERS = {
    'layer_conv': Layer(convolutions.convolve, ((2, 128, 64, 64), (3, 3, 64, 64))),
    'layer_conv_wide': Layer(convolutions.convolve, ((2, 8, 4, 512), (3, 3, 512, 512))),
    'layer_conv_3d': Layer(convolutions.convolve, ((1, 96, 48, 24, 16), (3, 3, 3, 16, 16))),
    'layer_conv_1x1': Layer(convolutions.convolve, ((2, 64, 32, 256), (1, 1, 256, 64))),
    'layer_conv_1x1_stride_2': Layer(functools.partial(convolutions.convolve, stride=2),
                                     ((2, 64, 32, 256), (1, 1, 256, 512))),
    'layer_conv_depthwise': Layer(convolutions.convolve_depthwise,
                                  ((3, 80, 80, 64), (3, 3, 1, 64))),
    'layer_conv_doubled': Layer(convolutions.convolve_upsampled, ((3, 80, 80, 32), (3, 3, 32, 3))),
    'layer_conv_transposed': Layer(convolutions.convolve_transposed,
                                   ((2, 64, 32, 128), (2, 2, 128, 64))),
    'layer_conv_transposed_3d': Layer(convolutions.convolve_transposed,
                                      ((1, 48, 24, 12, 32), (2, 2, 2, 32, 16))),
    'layer_max_pool': Layer(resizing.max_pool, ((2, 256, 128, 32),)),
    'layer_max_pool_3d': Layer(resizing.max_pool, ((1, 96, 48, 24, 16),)),
    'layer_bilinear': Layer(resizing.upsample_bilinear, ((2, 64, 32, 128),)),
    'layer_nearest': Layer(resizing.upsample_nearest, ((2, 64, 32, 128),)),
}


def build(name: str, shrink: int = 1) -> tuple[dict[str, Program], float]:
  """Programs {'spinejax', 'plain'} of both forms, and the relative distance of their results.

  Args:
    name: of `LAYERS`.
    shrink: divides sizes of the input and numbers of channels above 4 times itself.
  """
  layer, rng = LAYERS[name], np.random.default_rng(0)
  arrays = [rng.standard_normal([n // shrink if n > 4 * shrink else n for n in shape], np.float32)
            for shape in layer.shapes]
  mix = rng.standard_normal(jax.eval_shape(layer.function, *arrays).shape, np.float32)
  programs, results = {}, []
  for side, dispatch in (('spinejax', cpu_kernels.dispatch), ('plain', plain_side.native_only)):
    def objective(arrays, mix):
      return jnp.vdot(layer.function(*arrays), mix)

    with mock.patch.object(cpu_kernels, 'dispatch', dispatch):
      jax.clear_caches()  # a jitted layer keeps the form of its first call
      function = jax.value_and_grad(objective)
      programs[side], _ = jitted(function, arrays, mix)
      results.append(jax.tree.leaves(jax.jit(function)(arrays, mix)))
  return programs, max(_relative_distance(*pair) for pair in zip(*results, strict=True))


def _relative_distance(array: jax.Array, reference: jax.Array) -> float:
  a, b = (np.asarray(x, np.float64) for x in (array, reference))
  return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)
