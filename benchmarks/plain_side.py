"""What the process of plain Flax does: the same networks, of the operations Flax's modules call.

A user of Flax who writes these networks with `nn.Conv`, `nn.ConvTranspose`, `nn.max_pool` and
`jax.image.resize` gets these programs, on the devices that JAX finds. Names and shapes of the
parameters are ours, so both sides have the same weights.
"""
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from benchmarks import spinejax_side
from spinejax.models import layers


class Conv(layers.Conv):
  """`layers.Conv` that concatenates its inputs."""

  def __call__(self, x: jax.Array | Sequence[jax.Array]) -> Any:
    return super().__call__(jnp.concatenate(x, -1) if isinstance(x, Sequence) else x)


class ConvTranspose(layers.ConvTranspose):
  """`layers.ConvTranspose` by XLA's transposed convolution."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    rank = x.ndim - 2
    kernel = self.param('kernel', self.kernel_init, (2,) * rank + (x.shape[-1], self.features),
                        jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    spatial = 'DHW'[-rank:]
    layout = ('N' + spatial + 'C', spatial + 'IO', 'N' + spatial + 'C')
    kernel = jnp.flip(kernel.astype(self.dtype), range(rank))
    y = lax.conv_transpose(x.astype(self.dtype), kernel, (2,) * rank, 'VALID',
                           dimension_numbers=layout)
    return y + jnp.expand_dims(bias.astype(self.dtype), range(rank + 1))


def convolve(x, kernel, stride=1, dilation=1, same=False):
  return layers._convolve(x, kernel, stride, dilation, same)


def convolve_doubled(x, kernel):
  return convolve(upsample_nearest(x), kernel)


def convolve_depthwise(x, kernel):
  return convolve(x, kernel)


def max_pool(x, window=2, stride=2, pad=0, *, same=False):
  rank = x.ndim - 2
  pads = 'SAME' if same else ((pad, pad),) * rank
  return nn.max_pool(x, (window,) * rank, (stride,) * rank, pads)


def upsample_bilinear(x, factor=2):
  return _resize(x, factor, 'bilinear')


def upsample_nearest(x, factor=2):
  return _resize(x, factor, 'nearest')


def _resize(x, factor, method):
  return jax.image.resize(x, (x.shape[0], *(factor * n for n in x.shape[1:-1]), x.shape[-1]),
                          method)


FORMS = {form.__name__: form for form in (
    Conv, ConvTranspose, convolve, convolve_doubled, convolve_depthwise, max_pool,
    upsample_bilinear, upsample_nearest)}


def configure() -> None:
  """Puts the plain forms in the place of ours, for the rest of this process."""
  jax.config.update('jax_enable_compilation_cache', False)
  for name, form in FORMS.items():
    setattr(layers, name, form)


OPS = {'build': spinejax_side.build}
