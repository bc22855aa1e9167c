"""Our form of each layer against the one plain Flax has: value and gradient, in one process."""
from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain_side
from benchmarks import spinejax_side
from spinejax.models import layers

TOLERANCE = 1e-4  # of value and gradients, relative to those of the plain form


class Layer(NamedTuple):
  """A layer as functions of the same arrays: input [N,*S,C] and, if it has one, its kernel."""
  ours: Callable
  plain: Callable
  shapes: tuple[tuple[int, ...], ...]


def _transposed(module: Callable) -> Callable:
  """A transposed convolution as a function of its input and its kernel [*window,C,features]."""
  def apply(x, kernel):
    params = {'kernel': kernel, 'bias': jnp.zeros(kernel.shape[-1])}
    return module(kernel.shape[-1]).apply({'params': params}, x)
  return apply


def _convolution(*shapes: tuple[int, ...], stride: int = 1) -> Layer:
  return Layer(functools.partial(layers.convolve, stride=stride),
               functools.partial(plain_side.convolve, stride=stride), shapes)


def _transposed_convolution(*shapes: tuple[int, ...]) -> Layer:
  return Layer(_transposed(layers.ConvTranspose), _transposed(plain_side.ConvTranspose), shapes)


LAYERS = {
    'layer_conv': _convolution((2, 128, 64, 64), (3, 3, 64, 64)),
    'layer_conv_wide': _convolution((2, 8, 4, 512), (3, 3, 512, 512)),
    'layer_conv_3d': _convolution((1, 96, 48, 24, 16), (3, 3, 3, 16, 16)),
    'layer_conv_1x1': _convolution((2, 64, 32, 256), (1, 1, 256, 64)),
    'layer_conv_1x1_stride_2': _convolution(
        (2, 64, 32, 256), (1, 1, 256, 512), stride=2),
    'layer_conv_depthwise': Layer(layers.convolve_depthwise, plain_side.convolve_depthwise,
                                  ((3, 80, 80, 64), (3, 3, 1, 64))),
    'layer_conv_doubled': Layer(layers.convolve_doubled, plain_side.convolve_doubled,
                                ((3, 80, 80, 32), (3, 3, 32, 3))),
    'layer_conv_transposed': _transposed_convolution((2, 64, 32, 128), (2, 2, 128, 64)),
    'layer_conv_transposed_3d': _transposed_convolution((1, 48, 24, 12, 32), (2, 2, 2, 32, 16)),
    'layer_max_pool': Layer(layers.max_pool, plain_side.max_pool, ((2, 256, 128, 32),)),
    'layer_max_pool_3d': Layer(layers.max_pool, plain_side.max_pool, ((1, 96, 48, 24, 16),)),
    'layer_bilinear': Layer(
        layers.upsample_bilinear, plain_side.upsample_bilinear, ((2, 64, 32, 128),)),
    'layer_nearest': Layer(
        layers.upsample_nearest, plain_side.upsample_nearest, ((2, 64, 32, 128),)),
}


def build(name: str, shrink: int = 1):
  """Programs of both forms, {'spinejax', 'plain'}, and how far they are apart (relative norms).

  Args:
    name: of `LAYERS`.
    shrink: what sizes of the input and numbers of channels above 4 are divided by.
  """
  layer, rng = LAYERS[name], np.random.default_rng(0)
  arrays = [rng.standard_normal([n // shrink if n > 4 * shrink else n for n in shape], np.float32)
            for shape in layer.shapes]
  mix = rng.standard_normal(jax.eval_shape(layer.plain, *arrays).shape, np.float32)
  programs, results = {}, []
  for side, form in (('spinejax', layer.ours), ('plain', layer.plain)):
    objective = lambda arrays, mix, form=form: jnp.vdot(form(*arrays), mix)
    function = jax.value_and_grad(objective)
    programs[side], _ = spinejax_side.jitted(function, arrays, mix)
    results.append(jax.tree.leaves(jax.jit(function)(arrays, mix)))
  norm = lambda x: float(np.linalg.norm(np.asarray(x, np.float64)))
  return programs, max(norm(a - b) / max(norm(b), 1e-30) for a, b in zip(*results, strict=True))
