"""Layers shared by every network, each in the form that runs fastest, with PyTorch's semantics.

Arrays are channels-last, [N,H,W,C] or [N,D,H,W,C]; the same code serves both. Parameters carry
the names, and up to an axis order the shapes, of the PyTorch modules they mirror: `kernel`
[*window, in, out] and `bias` of a convolution, `scale`, `bias`, `mean` and `var` of a norm.
"""
from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Dtype = Any
Initializer = Any

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
kaiming_fan_in = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
classifier_init = nn.initializers.normal(0.01)


class Conv(nn.Module):
  """Convolution y = sum_i k_i x_(s o + d i - p) + b with PyTorch's explicit symmetric padding.

  Takes one array [N,*S,C] or a sequence of arrays that agree in all but C; a sequence gives the
  convolution of its concatenation along C, computed with the kernel split instead of the arrays
  joined. The window is odd and the padding dilation * (window - 1) / 2: 'same' at stride 1, and
  PyTorch's usual choice at stride 2. With `same` it is TensorFlow's 'same', which differs there:
  ceil(n / s) outputs of n pixels, and of an odd number of zeros one more after than before. With
  `doubled`, window 3 and stride 1, x is doubled by `upsample_nearest` first: `convolve_doubled`.

  With `defer_bias` the bias is returned beside the output and not added: see `BatchNorm`.
  """
  features: int
  window: int = 3
  stride: int = 1
  dilation: int = 1
  use_bias: bool = True
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32
  defer_bias: bool = False
  bias_init: Initializer = nn.initializers.zeros
  same: bool = False
  doubled: bool = False

  @nn.compact
  def __call__(self, x: Array | Sequence[Array]) -> Any:
    parts = [part.astype(self.dtype) for part in (x if isinstance(x, Sequence) else [x])]
    rank = parts[0].ndim - 2
    channels = sum(part.shape[-1] for part in parts)
    kernel = self.param('kernel', self.kernel_init,
                        (self.window,) * rank + (channels, self.features), jnp.float32)
    ends = list(itertools.accumulate(part.shape[-1] for part in parts))
    kernels = jnp.split(kernel.astype(self.dtype), ends[:-1], axis=-2)
    apply = convolve_doubled if self.doubled else functools.partial(
        convolve, stride=self.stride, dilation=self.dilation, same=self.same)
    y = functools.reduce(jnp.add, map(apply, parts, kernels))
    bias = None
    if self.use_bias:
      bias = self.param('bias', self.bias_init, (self.features,), jnp.float32)
    if self.defer_bias:
      return y, bias
    return y if bias is None else y + jnp.expand_dims(bias.astype(self.dtype), range(rank + 1))


def convolve(x: Array, kernel: Array, stride: int = 1, dilation: int = 1,
             same: bool = False) -> Array:
  """Convolution of x [N,*S,C] with kernel [*window,C,features], padded as in `Conv`.

  A 1x1 convolution is a slice and a matrix product. On CPU, where XLA's convolution for the
  gradient of a kernel reaches a quarter of the speed of the others, that gradient of a 2-D
  convolution at stride 1 is made of matrix products too, and a 3-D convolution at stride 1 is the
  sum of the 2-D convolutions of its depth taps.
  """
  rank = x.ndim - 2
  if kernel.shape[0] == 1:
    x = x[(slice(None),) + (slice(None, None, stride),) * rank]
    y = _product(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[-2:]))
    return y.reshape(*x.shape[:-1], -1)
  if jax.default_backend() == 'cpu' and stride == 1:
    if rank == 3:
      return _convolve_by_depth(x, kernel, dilation)
    if rank == 2 and min(kernel.shape[-2:]) >= _MIN_CHANNELS:
      return _convolve_on_cpu(x, kernel, dilation)
  return _convolve(x, kernel, stride, dilation, same)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
  """x kernel of matrices, whose derivative by the kernel is x^T dy as it stands.

  JAX's own is the transpose of dy^T x, which costs an optimizer, that reads it row by row, more
  than all of its arithmetic.
  """
  return x @ kernel


def _product_forward(x, kernel):
  return x @ kernel, (x, kernel)


def _product_backward(saved, dy):
  x, kernel = saved
  return _dot(dy, kernel, 1, 1), _dot(x, dy, 0, 0)


def _dot(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
  """Sum of products of two matrices over an axis of each."""
  return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())))


_product.defvjp(_product_forward, _product_backward)


def _convolve_by_depth(x: Array, kernel: Array, dilation: int) -> Array:
  """3-D convolution at stride 1: y_d = sum_i (k_i * x)_(d + i), with 2-D convolutions *.

  One 2-D convolution gives the products with all depth taps k_i, side by side as channels, and
  shifts along the depth add them up. Of a single channel the shifts of x are the channels instead.
  """
  n, depth, height, width, channels = x.shape
  window, features = kernel.shape[0], kernel.shape[-1]
  shifts = [dilation * (i - window // 2) for i in range(window)]
  plane = lambda x: x.reshape(-1, height, width, x.shape[-1])
  if channels == 1:
    x = jnp.concatenate([_shift(x, -shift, 1) for shift in shifts], -1)
    y = convolve(plane(x), kernel[..., 0, :].transpose(1, 2, 0, 3), 1, dilation)
    return y.reshape(n, depth, height, width, features)
  kernel = kernel.transpose(1, 2, 3, 0, 4).reshape(window, window, channels, -1)
  y = convolve(plane(x), kernel, 1, dilation).reshape(n, depth, height, width, -1)
  taps = jnp.split(y, window, -1)
  return functools.reduce(jnp.add, [_shift(tap, -shift, 1) for tap, shift in zip(taps, shifts)])


def _shift(x: Array, by: int, axis: int) -> Array:
  """x moved by so many places along an axis, toward its end if positive, with zeros behind it."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (by, -by, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _convolve(x: Array, kernel: Array, stride: int, dilation: int, same: bool = False) -> Array:
  """XLA's convolution, in as many groups as the channels of x are times those of the kernel."""
  rank = x.ndim - 2
  pad = dilation * (kernel.shape[0] - 1) // 2
  spatial = 'DHW'[-rank:]
  layout = ('N' + spatial + 'C', spatial + 'IO', 'N' + spatial + 'C')
  return lax.conv_general_dilated(
      x, kernel, (stride,) * rank, 'SAME' if same else ((pad, pad),) * rank,
      rhs_dilation=(dilation,) * rank, dimension_numbers=layout,
      feature_group_count=x.shape[-1] // kernel.shape[-2])


# Fewer channels than this make matrix products too thin to win.
_MIN_CHANNELS = 8
# A kernel so many times as large as the array it is applied to is better not turned over.
_LARGE_KERNEL = 2
# The gradient of a kernel is summed over blocks of about so many pixels, which stay in the cache,
_BLOCK_PIXELS = 256
# if an example has at least so many numbers; below, all examples make one block.
_LARGE_EXAMPLE = 2 ** 19
# More examples than this are taken for the planes of a volume and summed together.
_MAX_EXAMPLES = 32


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_on_cpu(x: Array, kernel: Array, dilation: int) -> Array:
  return _convolve(x, kernel, 1, dilation)


def _convolve_forward(x, kernel, dilation):
  return _convolve(x, kernel, 1, dilation), (x, kernel)


def _convolve_backward(dilation, saved, dy):
  x, kernel = saved
  return (_input_gradient(x.shape, kernel, dy, dilation),
          _kernel_gradient(x, dy, kernel.shape[0], dilation))


_convolve_on_cpu.defvjp(_convolve_forward, _convolve_backward)


def _input_gradient(shape: Sequence[int], kernel: Array, dy: Array, dilation: int) -> Array:
  """dx_pq = sum_ij k_ij dy_(p - d (i - r), q - d (j - r)) [N,H,W,C], r = (window - 1) / 2.

  A convolution of dy [N,H,W,F] with the kernel [window,window,C,F] turned over in four axes. Where
  that turning costs more than it does, for the kernel is larger than dy, it is one matrix product
  with all taps, which then are shifted and added.
  """
  if kernel.size < _LARGE_KERNEL * dy.size:
    dx, = jax.linear_transpose(lambda x: _convolve(x, kernel, 1, dilation),
                               jax.ShapeDtypeStruct(shape, dy.dtype))(dy)
    return dx
  window, features = kernel.shape[0], dy.shape[-1]
  taps = _dot(dy.reshape(-1, features), kernel.reshape(-1, features), 1, 1)
  taps = taps.reshape(*shape[:-1], window ** 2, shape[-1])
  by = [dilation * (i - window // 2) for i in range(window)]
  places = itertools.product(by, repeat=2)
  return functools.reduce(jnp.add, [_shift(_shift(taps[..., i, :], rows, 1), columns, 2)
                                    for i, (rows, columns) in enumerate(places)])


def _kernel_gradient(x: Array, dy: Array, window: int, dilation: int) -> Array:
  """dk_ij = sum_pq x_(p + d (i - r), q + d (j - r)) dy_pq with r = (window - 1) / 2.

  Takes x [N,H,W,C] and dy [N,H,W,F]; returns [window,window,C,F]. The shifts of dy along W stand
  side by side as [pixels, window F], so each row i of taps is one matrix product.
  """
  n, height, width, channels = x.shape
  features = dy.shape[-1]
  # One sum per example, or per device where the examples are the planes of a volume, keeps a
  # sharded batch from being reduced in every turn of the loop.
  groups = n if n <= _MAX_EXAMPLES else math.gcd(n, jax.device_count())
  reach = dilation * (window - 1) // 2
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0), (0, 0)))

  def products(x, dy, groups):
    shifts = range(reach, -reach - 1, -dilation)
    columns = jnp.concatenate([_shift(dy, -shift, 2) for shift in shifts], -1)
    columns = columns.reshape(groups, -1, window * features)
    rows = [x[:, start:start + dy.shape[1]].reshape(groups, -1, channels)
            for start in range(0, window * dilation, dilation)]
    return jnp.stack([jnp.einsum('npc,npf->ncf', row, columns,
                                 preferred_element_type=jnp.float32) for row in rows])

  if n // groups * height * width * max(channels, features) < _LARGE_EXAMPLE:
    total = products(x, dy, 1)
  else:
    pixels = n // groups * width
    block = max(size for size in range(1, height + 1)
                if height % size == 0 and (size * pixels <= _BLOCK_PIXELS or size == 1))

    def add_block(i, total):
      return total + products(lax.dynamic_slice_in_dim(x, i * block, block + 2 * reach, 1),
                              lax.dynamic_slice_in_dim(dy, i * block, block, 1), groups)

    total = lax.fori_loop(0, height // block, add_block,
                          jnp.zeros((window, groups, channels, window * features), jnp.float32))
  total = total.sum(1).reshape(window, channels, window, features)
  return total.transpose(0, 2, 1, 3).astype(dy.dtype)


# Of an output at an even and at an odd place of a doubled axis: which of the pixels h - 1, h, h + 1
# before doubling the three taps read.
_READ_BY_TAPS = np.array([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]],
                         np.float32)


def convolve_doubled(x: Array, kernel: Array) -> Array:
  """convolve(upsample_nearest(x), kernel) at stride 1: [N,H,W,C] -> [N,2H,2W,features].

  The 3x3 taps at each of the four places within a doubled pixel read 2x2 pixels of x, so one
  convolution with sums of taps gives the four side by side as channels. As many operations, a
  quarter of the memory, and matrix products four times as wide, which few features need.
  """
  n, height, width, channels = x.shape
  features = kernel.shape[-1]
  kernel = jnp.einsum('ahi,bwj,ijcf->hwcabf', _READ_BY_TAPS, _READ_BY_TAPS,
                      kernel.astype(jnp.float32), precision=lax.Precision.HIGHEST).astype(x.dtype)
  y = convolve(x, kernel.reshape(3, 3, channels, 4 * features))
  y = y.reshape(n, height, width, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(n, 2 * height, 2 * width, features)


class DepthwiseConv(nn.Module):
  """Convolution of every channel by itself, y_c = sum_i k_ic x_(o + i - p),c, padded as in `Conv`.

  [N,*S,C] -> [N,*S,C] at stride 1, without a bias. The kernel is [*window,1,C].
  """
  window: int = 3
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('kernel', self.kernel_init,
                        (self.window,) * (x.ndim - 2) + (1, x.shape[-1]), jnp.float32)
    return convolve_depthwise(x.astype(self.dtype), kernel.astype(self.dtype))


class SeparableConv(nn.Module):
  """`DepthwiseConv`, then a 1x1 `Conv` across channels, with nothing between them.

  [N,*S,C] -> [N,*S,features]; `defer_bias` as in `Conv`.
  """
  features: int
  window: int = 3
  use_bias: bool = True
  kernel_init: Initializer = kaiming_fan_out
  dtype: Dtype = jnp.float32
  defer_bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Any:
    x = DepthwiseConv(self.window, self.kernel_init, self.dtype, name='depthwise')(x)
    return Conv(self.features, 1, use_bias=self.use_bias, kernel_init=self.kernel_init,
                dtype=self.dtype, defer_bias=self.defer_bias, name='pointwise')(x)


def convolve_depthwise(x: Array, kernel: Array) -> Array:
  """Convolution of every channel of x [N,*S,C] with its own kernel [*window,1,C] at stride 1.

  On CPU, where XLA computes a convolution of as many groups as channels by a naive loop, it is the
  sum over the taps of shifted products.
  """
  if jax.default_backend() == 'cpu':
    return _convolve_depthwise_on_cpu(x, kernel)
  return _convolve(x, kernel, 1, 1)


@jax.custom_vjp
def _convolve_depthwise_on_cpu(x: Array, kernel: Array) -> Array:
  window = kernel.shape[0]
  x = _pad_spatial(x, window // 2)
  size = [n - window + 1 for n in x.shape[1:-1]]
  taps = kernel.reshape(-1, *(1,) * (x.ndim - 1), x.shape[-1])
  places = itertools.product(range(window), repeat=x.ndim - 2)
  return functools.reduce(jnp.add, [_window(x, place, size) * tap
                                    for place, tap in zip(places, taps, strict=True)])


def _convolve_depthwise_forward(x, kernel):
  return _convolve_depthwise_on_cpu(x, kernel), (x, kernel)


def _convolve_depthwise_backward(saved, dy):
  x, kernel = saved
  flipped = jnp.flip(kernel, range(x.ndim - 2))
  return (_convolve_depthwise_on_cpu(dy, flipped),
          _depthwise_kernel_gradient(x, dy, kernel.shape[0]).astype(kernel.dtype))


_convolve_depthwise_on_cpu.defvjp(_convolve_depthwise_forward, _convolve_depthwise_backward)

# So many blocks of rows are added up elementwise before the rest is summed: XLA's sum of a product
# over all axes but the last runs at a sixth of the speed of an elementwise loop.
_FOLDS = 8


def _depthwise_kernel_gradient(x: Array, dy: Array, window: int) -> Array:
  """dk_ic = sum_p x_(p + i - r),c dy_pc with r = (window - 1) / 2, float32 [*window,1,C].

  Takes x and dy [N,*S,C]. The products of each tap are added in blocks of the first axis of S, and
  the rest is summed as a product of a row of ones and a matrix [pixels,C].
  """
  channels = x.shape[-1]
  extra = -x.shape[1] % _FOLDS
  fill = [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2)
  x, dy = (jnp.pad(array.astype(jnp.float32), fill) for array in (x, dy))
  x = _pad_spatial(x, window // 2)
  size = list(dy.shape[1:-1])
  blocks = jnp.split(dy, _FOLDS, 1)

  def total(place):
    parts = jnp.split(_window(x, place, size), _FOLDS, 1)
    folded = functools.reduce(jnp.add, [part * block for part, block in zip(parts, blocks)])
    folded = folded.reshape(-1, channels)
    return jnp.ones((1, folded.shape[0]), jnp.float32) @ folded

  places = itertools.product(range(window), repeat=x.ndim - 2)
  return jnp.stack([total(place) for place in places]).reshape(
      *(window,) * (x.ndim - 2), 1, channels)


def _pad_spatial(x: Array, pad: int) -> Array:
  return jnp.pad(x, [(0, 0)] + [(pad, pad)] * (x.ndim - 2) + [(0, 0)])


def _window(x: Array, place: Sequence[int], size: Sequence[int]) -> Array:
  """`size` pixels of [N,*S,C] from a place on."""
  return x[(slice(None), *(slice(start, start + n) for start, n in zip(place, size)))]


class ConvTranspose(nn.Module):
  """Transposed convolution with a 2x2(x2) window at stride 2: y_(2h+i) = k_i x_h + b.

  [N,*S,C] -> [N,*2S,features]: a matrix product to 2^d features followed by depth-to-space. The
  kernel [2,...,2,C,features] is PyTorch's in another axis order, and that of `nn.ConvTranspose`
  with its window flipped.
  """
  features: int
  kernel_init: Initializer = kaiming_fan_in
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    n, *size, channels = x.shape
    rank = len(size)
    kernel = self.param('kernel', self.kernel_init, (2,) * rank + (channels, self.features),
                        jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    kernel = jnp.moveaxis(kernel.astype(self.dtype), -2, 0).reshape(channels, -1)
    y = x.astype(self.dtype).reshape(-1, channels) @ kernel
    y = y.reshape(n, *size, *(2,) * rank, self.features)
    y = y + jnp.expand_dims(bias.astype(self.dtype), range(2 * rank + 1))
    pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank)]
    return y.transpose(0, *pairs, 2 * rank + 1).reshape(n, *(2 * s for s in size), self.features)


class BatchNorm(nn.Module):
  """Batch norm y = scale (x - mean) / sqrt(var + epsilon) + bias over all axes but the last.

  In training mean and variance are those of the whole batch: of the global batch where it is
  sharded under `jit`, and of all devices along `axis_name` under `pmap`. As in PyTorch, the
  running variance is the unbiased one unless `unbiased` is False, as in Keras; `momentum` 0.9 is
  PyTorch's 0.1. Statistics are float32 whatever `dtype` is.

  `shift` [C] is a bias of x not yet added to it: what is normalized is x + shift. In training the
  mean takes it away again, so only the running mean sees it, and its gradient is exactly zero
  where PyTorch's is rounding noise that Adam turns into full steps.
  """
  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Initializer = nn.initializers.ones
  dtype: Dtype = jnp.float32
  unbiased: bool = True

  @nn.compact
  def __call__(self, x: Array, *, train: bool, shift: Array | None = None) -> Array:
    features = x.shape[-1]
    scale = self.param('scale', self.scale_init, (features,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (features,), jnp.float32)
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    shift = jnp.zeros((), jnp.float32) if shift is None else shift
    if train:
      mean, square = jnp.mean(x, axes), jnp.mean(lax.square(x), axes)
      count = math.prod(x.shape[:-1])
      if self.axis_name is not None and not self.is_initializing():
        mean, square = lax.pmean((mean, square), self.axis_name)
        count *= lax.axis_size(self.axis_name)
      var = jnp.maximum(square - lax.square(mean), 0.0)
      if not self.is_initializing():
        rest = 1 - self.momentum
        correction = count / max(count - 1, 1) if self.unbiased else 1.0
        running_mean.value = self.momentum * running_mean.value + rest * (mean + shift)
        running_var.value = self.momentum * running_var.value + rest * (var * correction)
    else:
      mean, var = running_mean.value - shift, running_var.value
    factor = scale * lax.rsqrt(var + self.epsilon)
    offset = bias - mean * factor
    y = x * jnp.expand_dims(factor, axes) + jnp.expand_dims(offset, axes)
    return y.astype(self.dtype)


class ConvNorm(nn.Module):
  """Convolution, batch norm and leaky ReLU max(x, slope x), by default ReLU; no bias by default.

  A `negative_slope` of 1 leaves the activation out.
  """
  features: int
  window: int = 3
  stride: int = 1
  dilation: int = 1
  use_bias: bool = False
  negative_slope: float = 0.0
  kernel_init: Initializer = kaiming_fan_out
  scale_init: Initializer = nn.initializers.ones
  axis_name: str | None = None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array | Sequence[Array], *, train: bool) -> Array:
    x, bias = Conv(self.features, self.window, self.stride, self.dilation, self.use_bias,
                   self.kernel_init, self.dtype, defer_bias=True, name='conv')(x)
    x = BatchNorm(self.axis_name, scale_init=self.scale_init, dtype=self.dtype, name='bn')(
        x, train=train, shift=bias)
    if self.negative_slope == 1:
      return x
    return nn.leaky_relu(x, self.negative_slope) if self.negative_slope else nn.relu(x)


def classify(x: Array, num_classes: int, dropout: float = 0.0, *, train: bool, name: str,
             bias_init: Initializer = nn.initializers.zeros) -> Array:
  """Dropout of whole channels and a 1x1 convolution: [N,*S,C] -> logits float32 [N,*S,num_classes].

  For a compact method, whose module gets the convolution under `name`.
  """
  axes = tuple(range(1, x.ndim - 1))
  x = nn.Dropout(dropout, broadcast_dims=axes, deterministic=not train)(x.astype(jnp.float32))
  return Conv(num_classes, window=1, kernel_init=classifier_init, bias_init=bias_init, name=name)(x)


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
  return lax.max(a, b)


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
  (a, b), (da, db) = primals, tangents
  return lax.max(a, b), jnp.where(a >= b, da, db)


@functools.partial(jax.jit, static_argnames=('window', 'stride', 'pad', 'same'))
def max_pool(x: Array, window: int = 2, stride: int = 2, pad: int = 0, *,
             same: bool = False) -> Array:
  """Maximum over windows, padded with -inf: [N,*S,C] -> [N,*S',C] as PyTorch's MaxPool.

  Padded by `pad` on each side, or with `same` as TensorFlow's 'same' (see `Conv`).

  Taken axis by axis as the maximum of strided slices. Of equal values in a window the first one,
  in row-major order, gets the whole gradient.
  """
  rank = x.ndim - 2
  pads = [(pad, pad)] * rank
  if same:
    pads = lax.padtype_to_pads(x.shape[1:-1], (window,) * rank, (stride,) * rank, 'SAME')
  if any(map(any, pads)):
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, lowest, [(0, 0, 0), *((*sides, 0) for sides in pads), (0, 0, 0)])
  for axis in range(x.ndim - 2, 0, -1):
    size = (x.shape[axis] - window) // stride + 1
    taps = [lax.slice_in_dim(x, i, i + stride * (size - 1) + 1, stride, axis)
            for i in range(window)]
    x = functools.reduce(_maximum, taps)
  return x


def upsample_bilinear(x: Array, factor: int = 2) -> Array:
  """Bilinear interpolation [N,*S,C] -> [N,*factor S,C], half-pixel centers, as blends of shifts."""
  for axis in range(1, x.ndim - 1):
    size = x.shape[axis]
    part = functools.partial(lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
    places = [(i + 0.5) / factor - 0.5 for i in range(factor)]  # in pixels from the pixel's center
    blends = [(1 - abs(place)) * x + abs(place) * (before if place < 0 else after)
              for place in places]
    x = jnp.stack(blends, axis + 1).reshape(*x.shape[:axis], factor * size, *x.shape[axis + 1:])
  return x


def upsample_nearest(x: Array, factor: int = 2) -> Array:
  """Every value repeated `factor` times along each axis: [N,*S,C] -> [N,*factor S,C]."""
  n, *size, channels = x.shape
  spread = jnp.expand_dims(x, range(2, 2 * len(size) + 1, 2))
  shape = [extent for s in size for extent in (s, factor)]
  return jnp.broadcast_to(spread, (n, *shape, channels)).reshape(
      n, *(factor * s for s in size), channels)


def resize_bilinear(x: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
  """Bilinear resize [N,*S,C] -> [N,*size,C], no antialiasing.

  Pixel o of n' reads the place (o + 1/2) n / n' - 1/2 of n pixels (half-pixel centers), or with
  `align_corners` o (n - 1) / (n' - 1), so that the first and last centers stay where they are; a
  single pixel is the first.
  """
  if not align_corners:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'bilinear', antialias=False)
  for axis, (before, after) in enumerate(zip(x.shape[1:-1], size, strict=True), 1):
    places = np.linspace(0, before - 1, after)[:, None]
    x = _mix(x, np.maximum(1 - np.abs(places - np.arange(before)), 0), axis)
  return x


def adaptive_average_pool(x: Array, bins: int) -> Array:
  """Means over bins^rank windows that cover the array: [N,*S,C] -> [N,bins,...,bins,C].

  As PyTorch's AdaptiveAvgPool, window b of an axis of n pixels goes from floor(b n / bins) to
  ceil((b + 1) n / bins): windows differ in size and overlap where n is no multiple of `bins`, and
  fewer pixels than bins repeat.
  """
  for axis in range(1, x.ndim - 1):
    pixels = x.shape[axis]
    starts = np.arange(bins) * pixels // bins
    ends = -(-np.arange(1, bins + 1) * pixels // bins)
    inside = (np.arange(pixels) >= starts[:, None]) & (np.arange(pixels) < ends[:, None])
    x = _mix(x, inside / (ends - starts)[:, None], axis)
  return x


def _mix(x: Array, weights: np.ndarray, axis: int) -> Array:
  """Weighted sums along one axis: weights [after,before] turns its `before` pixels to `after`."""
  mixed = jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,)),
                        precision=lax.Precision.HIGHEST)
  return jnp.moveaxis(mixed, -1, axis)


def pad_to_multiple(x: Array, multiple: int) -> Array:
  """Repeats the last row and column (and slice) until each axis of [N,*S,C] is a multiple.

  Cropping the result to the first S pixels undoes it; sizes that fit already are not touched.
  """
  pads = [(0, 0)] + [(0, -size % multiple) for size in x.shape[1:-1]] + [(0, 0)]
  return jnp.pad(x, pads, mode='edge') if any(after for _, after in pads) else x


def crop(x: Array, size: Sequence[int]) -> Array:
  """The first `size` pixels of [N,*S,C]."""
  return x[(slice(None), *(slice(n) for n in size))]
