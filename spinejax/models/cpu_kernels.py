"""Forms of the layers that are faster on CPU than XLA's own, and the choice between the two.

XLA's CPU backend is slow at some operations: the gradient of a convolution by its kernel, 3-D and
depthwise convolutions, transposed convolutions, and max-pooling. Each function here equals the
native operation in values and gradients. `layers` and `attention` choose by `dispatch`.
"""
from collections.abc import Callable, Sequence
import functools
import itertools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Form = Callable[..., Array]


def dispatch(*, cpu: Form, default: Form) -> Form:
  """Returns a function that is `cpu` when compiled for a CPU and `default` elsewhere.

  Both have the same values and gradients. The choice is made when a program is lowered for a
  platform, separately for the forward and the backward pass. So an export made on a CPU holds the
  form of every platform that it is made for. The backward pass differentiates the chosen form at
  the saved arguments. XLA merges what it computes again with the forward pass.
  """
  def apply(*args: Any) -> Array:
    return lax.platform_dependent(*args, cpu=cpu, default=default)

  def pullback(form: Form) -> Callable[[tuple, Array], tuple]:
    return lambda args, dy: jax.vjp(form, *args)[1](dy)

  def backward(args: tuple, dy: Array) -> tuple:
    return lax.platform_dependent(args, dy, cpu=pullback(cpu), default=pullback(default))

  function = jax.custom_vjp(apply)
  function.defvjp(lambda *args: (apply(*args), args), backward)
  return function


_MIN_CHANNELS = 8  # with fewer, the kernel gradient by matrix products is slower than XLA's
# A kernel this many times as large as the gradient of the output is not transposed, but multiplied
# as it is.
_LARGE_KERNEL = 2
_BLOCK_PIXELS = 256  # in a block of the sum over pixels, so that a block stays in the cache
_LARGE_EXAMPLE = 2 ** 19  # examples with fewer numbers are summed in one block
# Batches larger than this are the planes of a volume. They are summed over all planes at once.
_MAX_EXAMPLES = 32


def convolve(x: Array, kernel: Array, *, native: Form, stride: int, dilation: int) -> Array:
  """Convolution of x [N,*S,C] with an odd kernel [*kernel_size,C,F], padded symmetrically.

  `native` is XLA's convolution, for the cases without a faster form.
  """
  rank = x.ndim - 2
  if kernel.shape[0] == 1:  # a slice and a matrix product
    x = x[(slice(None),) + (slice(None, None, stride),) * rank]
    y = _product(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[-2:]))
    return y.reshape(*x.shape[:-1], -1)
  if stride == 1 and rank == 3:
    return _convolve_by_depth(x, kernel, dilation)
  if stride == 1 and rank == 2:
    return _convolve_2d(x, kernel, dilation)
  return native(x, kernel)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
  """Matrix product whose kernel gradient is x^T dy.

  JAX computes the transpose of dy^T x, whose memory order is slow to read for an optimizer.
  """
  return x @ kernel


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), lambda saved, dy: (
    _contract(dy, saved[1], 1), _contract(saved[0], dy, 0)))


def _contract(a: Array, b: Array, axis: int) -> Array:
  """Sum of products of two matrices over the same axis of both."""
  return lax.dot_general(a, b, (((axis,), (axis,)), ((), ())))


def _convolve_by_depth(x: Array, kernel: Array, dilation: int) -> Array:
  """3-D convolution at stride 1 as y_d = sum_i (k_i * x)_(d + i), with 2-D convolutions *.

  One 2-D convolution computes the products with all depth taps k_i as channels. Shifts along the
  depth add them. With a single input channel, the shifts of x are the channels instead.
  """
  n, depth, height, width, channels = x.shape
  size, features = kernel.shape[0], kernel.shape[-1]
  shifts = [dilation * (size // 2 - i) for i in range(size)]
  if channels == 1:
    x = jnp.concatenate([_shift(x, shift, 1) for shift in shifts], -1)
    y = _convolve_2d(x.reshape(-1, height, width, size),
                     kernel[..., 0, :].transpose(1, 2, 0, 3), dilation)
    return y.reshape(n, depth, height, width, features)
  kernel = kernel.transpose(1, 2, 3, 0, 4).reshape(size, size, channels, -1)
  y = _convolve_2d(x.reshape(-1, height, width, channels), kernel, dilation)
  taps = jnp.split(y.reshape(n, depth, height, width, -1), size, -1)
  return functools.reduce(jnp.add, [_shift(tap, shift, 1) for tap, shift in zip(taps, shifts)])


def _shift(x: Array, by: int, axis: int) -> Array:
  """Moves x by so many places along an axis and fills with zeros."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (by, -by, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _convolve_2d(x: Array, kernel: Array, dilation: int) -> Array:
  """2-D convolution at stride 1, with a faster kernel gradient where there are enough channels."""
  if min(kernel.shape[-2:]) < _MIN_CHANNELS:
    return _native_2d(x, kernel, dilation)
  return _convolve_wide(x, kernel, dilation)


def _native_2d(x: Array, kernel: Array, dilation: int) -> Array:
  pad = dilation * (kernel.shape[0] - 1) // 2
  return lax.conv_general_dilated(
      x, kernel, (1, 1), ((pad, pad),) * 2, rhs_dilation=(dilation,) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_wide(x: Array, kernel: Array, dilation: int) -> Array:
  return _native_2d(x, kernel, dilation)


_convolve_wide.defvjp(
    lambda x, kernel, dilation: (_native_2d(x, kernel, dilation), (x, kernel)),
    lambda dilation, saved, dy: (_input_gradient(saved[0].shape, saved[1], dy, dilation),
                                 _kernel_gradient(saved[0], dy, saved[1].shape[0], dilation)))


def _input_gradient(shape: Sequence[int], kernel: Array, dy: Array, dilation: int) -> Array:
  """dx_pq = sum_ij k_ij dy_(p - d (i - r), q - d (j - r)) [N,H,W,C] with r = (size - 1) / 2.

  Takes dy [N,H,W,F] and the kernel [size,size,C,F]. This is a convolution of dy with the kernel
  transposed in four axes. Where transposing a large kernel costs more than the convolution, it is
  one matrix product with all taps, which are then shifted and added.
  """
  if kernel.size < _LARGE_KERNEL * dy.size:
    dx, = jax.linear_transpose(lambda x: _native_2d(x, kernel, dilation),
                               jax.ShapeDtypeStruct(shape, dy.dtype))(dy)
    return dx
  size, features = kernel.shape[0], dy.shape[-1]
  taps = _contract(dy.reshape(-1, features), kernel.reshape(-1, features), 1)
  taps = taps.reshape(*shape[:-1], size ** 2, shape[-1])
  offsets = [dilation * (i - size // 2) for i in range(size)]
  return functools.reduce(jnp.add, [
      _shift(_shift(taps[..., i, :], rows, 1), columns, 2)
      for i, (rows, columns) in enumerate(itertools.product(offsets, repeat=2))])


def _kernel_gradient(x: Array, dy: Array, size: int, dilation: int) -> Array:
  """dk_ij = sum_pq x_(p + d (i - r), q + d (j - r)) dy_pq with r = (size - 1) / 2.

  Takes x [N,H,W,C] and dy [N,H,W,F]; returns [size,size,C,F]. The shifts of dy along W are
  concatenated as [pixels, size F], so each row i of taps is one matrix product. Sums are float32.
  """
  n, height, width, channels = x.shape
  features = dy.shape[-1]
  # One sum per example (per device for the planes of a volume), so that the blocks of a sharded
  # batch are not reduced across devices in every turn of the loop.
  groups = n if n <= _MAX_EXAMPLES else math.gcd(n, jax.device_count())
  reach = dilation * (size - 1) // 2
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0), (0, 0)))

  def products(x: Array, dy: Array, groups: int) -> Array:
    shifts = range(reach, -reach - 1, -dilation)
    columns = jnp.concatenate([_shift(dy, -shift, 2) for shift in shifts], -1)
    columns = columns.reshape(groups, -1, size * features)
    rows = [x[:, start:start + dy.shape[1]].reshape(groups, -1, channels)
            for start in range(0, size * dilation, dilation)]
    return jnp.stack([jnp.einsum('npc,npf->ncf', row, columns,
                                 preferred_element_type=jnp.float32) for row in rows])

  if n // groups * height * width * max(channels, features) < _LARGE_EXAMPLE:
    total = products(x, dy, 1)
  else:
    pixels = n // groups * width
    block = max(rows for rows in range(1, height + 1)
                if height % rows == 0 and (rows * pixels <= _BLOCK_PIXELS or rows == 1))

    def add_block(i: Array, total: Array) -> Array:
      return total + products(lax.dynamic_slice_in_dim(x, i * block, block + 2 * reach, 1),
                              lax.dynamic_slice_in_dim(dy, i * block, block, 1), groups)

    total = lax.fori_loop(0, height // block, add_block,
                          jnp.zeros((size, groups, channels, size * features), jnp.float32))
  total = total.sum(1).reshape(size, channels, size, features)
  return total.transpose(0, 2, 1, 3).astype(dy.dtype)


# Which of the input pixels h - 1, h, h + 1 the three taps of a kernel read at the first and at the
# second of the two output pixels that upsampling makes of h.
_READ_BY_TAPS = np.array([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]],
                         np.float32)


def convolve_upsampled(x: Array, kernel: Array) -> Array:
  """3x3 convolution of x [N,H,W,C] after nearest doubling: [N,2H,2W,F].

  At each of the four output pixels of an input pixel the taps read 2x2 pixels of x. So one
  convolution of x with sums of taps computes the four outputs as channels. It needs as many
  operations and a quarter of the memory, and its matrix products are four times as wide.
  """
  n, height, width, channels = x.shape
  features = kernel.shape[-1]
  kernel = jnp.einsum('ahi,bwj,ijcf->hwcabf', _READ_BY_TAPS, _READ_BY_TAPS,
                      kernel.astype(jnp.float32), precision=lax.Precision.HIGHEST).astype(x.dtype)
  y = _convolve_2d(x, kernel.reshape(3, 3, channels, 4 * features), 1)
  y = y.reshape(n, height, width, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(n, 2 * height, 2 * width, features)


@jax.custom_vjp
def convolve_depthwise(x: Array, kernel: Array) -> Array:
  """Convolution of each channel of x [N,*S,C] with its own kernel [*kernel_size,1,C] at stride 1.

  The sum over the taps of shifted products. XLA's grouped convolution is a slow loop.
  """
  size = kernel.shape[0]
  x = _pad_spatial(x, size // 2)
  extent = [n - size + 1 for n in x.shape[1:-1]]
  taps = kernel.reshape(-1, *(1,) * (x.ndim - 1), x.shape[-1])
  places = itertools.product(range(size), repeat=x.ndim - 2)
  return functools.reduce(jnp.add, [_part(x, place, extent) * tap
                                    for place, tap in zip(places, taps, strict=True)])


convolve_depthwise.defvjp(
    lambda x, kernel: (convolve_depthwise(x, kernel), (x, kernel)),
    lambda saved, dy: (convolve_depthwise(dy, jnp.flip(saved[1], range(dy.ndim - 2))),
                       _depthwise_kernel_gradient(saved[0], dy, saved[1])))

# Blocks of rows that are added elementwise before the rest is summed. XLA's sum over all axes but
# the last runs at a sixth of the speed of an elementwise loop.
_FOLDS = 8


def _depthwise_kernel_gradient(x: Array, dy: Array, kernel: Array) -> Array:
  """dk_ic = sum_p x_(p + i - r),c dy_pc with r = (size - 1) / 2, summed in float32.

  Takes x and dy [N,*S,C]. The products of each tap are added in blocks of the first axis of S. The
  rest is summed as a product of a row of ones and a matrix [pixels,C].
  """
  size = kernel.shape[0]
  fill = [(0, 0), (0, -x.shape[1] % _FOLDS)] + [(0, 0)] * (x.ndim - 2)
  x, dy = (jnp.pad(array.astype(jnp.float32), fill) for array in (x, dy))
  x = _pad_spatial(x, size // 2)
  extent = list(dy.shape[1:-1])
  blocks = jnp.split(dy, _FOLDS, 1)

  def total(place: Sequence[int]) -> Array:
    parts = jnp.split(_part(x, place, extent), _FOLDS, 1)
    folded = functools.reduce(jnp.add, [part * block for part, block in zip(parts, blocks)])
    folded = folded.reshape(-1, x.shape[-1])
    return jnp.ones((1, folded.shape[0]), jnp.float32) @ folded

  places = itertools.product(range(size), repeat=x.ndim - 2)
  return jnp.stack([total(place) for place in places]).reshape(kernel.shape).astype(kernel.dtype)


def _pad_spatial(x: Array, pad: int) -> Array:
  return jnp.pad(x, [(0, 0)] + [(pad, pad)] * (x.ndim - 2) + [(0, 0)])


def _part(x: Array, start: Sequence[int], extent: Sequence[int]) -> Array:
  """`extent` pixels of [N,*S,C] from `start` on."""
  return x[(slice(None), *(slice(i, i + n) for i, n in zip(start, extent)))]


def convolve_transposed(x: Array, kernel: Array) -> Array:
  """Transposed convolution of x [N,*S,C] with a kernel [2,...,2,C,F] at stride 2: [N,*2S,F].

  A matrix product to 2^rank F features, then depth-to-space.
  """
  n, *size, channels = x.shape
  rank, features = len(size), kernel.shape[-1]
  y = x.reshape(-1, channels) @ jnp.moveaxis(kernel, -2, 0).reshape(channels, -1)
  y = y.reshape(n, *size, *(2,) * rank, features)
  pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank)]
  return y.transpose(0, *pairs, 2 * rank + 1).reshape(n, *(2 * s for s in size), features)


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
  return lax.max(a, b)


@_maximum.defjvp
def _maximum_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  """The first of two equal values gets the whole gradient, as in XLA's pooling."""
  (a, b), (da, db) = primals, tangents
  return lax.max(a, b), jnp.where(a >= b, da, db)


def max_pool(x: Array, *, kernel_size: int, stride: int, pads: Sequence[tuple[int, int]]) -> Array:
  """Max-pooling of [N,*S,C], padded with -inf: axis by axis the maximum of strided slices."""
  if any(map(any, pads)):
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, lowest, [(0, 0, 0), *((*sides, 0) for sides in pads), (0, 0, 0)])
  for axis in range(x.ndim - 2, 0, -1):
    size = (x.shape[axis] - kernel_size) // stride + 1
    taps = [lax.slice_in_dim(x, i, i + stride * (size - 1) + 1, stride, axis)
            for i in range(kernel_size)]
    x = functools.reduce(_maximum, taps)
  return x


def upsample_bilinear(x: Array, *, factor: int) -> Array:
  """Bilinear upsampling [N,*S,C] -> [N,*factor S,C] as weighted sums of x and its shifts."""
  for axis in range(1, x.ndim - 1):
    size = x.shape[axis]
    part = functools.partial(lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
    # Distances in input pixels from the center of the input pixel that holds the output pixel.
    places = [(i + 0.5) / factor - 0.5 for i in range(factor)]
    blends = [(1 - abs(place)) * x + abs(place) * (before if place < 0 else after)
              for place in places]
    x = jnp.stack(blends, axis + 1).reshape(*x.shape[:axis], factor * size, *x.shape[axis + 1:])
  return x
