"""Structure supervision of SEAM's key map: the class of its pixels and the center of every bone."""
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spinejax.losses import objective
from spinejax.losses import pixel

Center = Literal['component', 'class']
NUM_CELLS = 256  # values of a uint8 cell id; 0 marks an absent class


def class_supervision(key_logits: jax.Array, label: jax.Array) -> jax.Array:
  """Mean cross entropy of the key map: SEAM (Zhao et al., 2021, eq. 6).

  Args:
    key_logits: float [N, h, w, K].
    label: int [N, H, W] in [0, K), resized to (h, w) by nearest neighbor.

  Returns:
    float [N].
  """
  return pixel.softmax_cross_entropy(key_logits, resize_nearest(label, key_logits.shape[1:3]))


def center_regression(
    key_logits: jax.Array, label: jax.Array, cells: jax.Array | None = None, *,
    center: Center = 'component', epsilon: float = 1e-6) -> jax.Array:
  """`1 / max(M, 1) sum_m A_m sum_xy smooth_l1(c_hat_m - c_m)` over bones m of A_m pixels.

  SEAM (Zhao et al., 2021, eq. 7). Let k' = softmax(key_logits), R_m the cell of bone m of class n
  and p the position of a pixel. The estimated center is the soft-argmax
  `c_hat_m = sum_{R_m} k'_n p / max(sum_{R_m} k'_n, epsilon)`. The true center c_m is the mean
  position of the bone's pixels. M is the number of bone pixels. All are taken on the key map's
  grid.

  The paper sums differences of offsets over pixels. Such a difference is the error of the center,
  which is constant within a bone; hence the weight A_m. The paper does not say which pixels belong
  to a bone. Here they are the pixels nearest to it.

  Args:
    key_logits: float [N, h, w, K].
    label: int [N, H, W] in [0, K), resized by nearest neighbor to (h, w).
    cells: uint8 [N, H, W, K-1]; cells[..., n-1] is the 1-based id of the component of class n
      that is nearest to the pixel. Resized like `label`. Not used if `center` is 'class'.
    center: 'component', or 'class' for one center per class. The latter is an ablation: the center
      of a left and a right bone of a class lies between them.
    epsilon: smallest mass, in pixels, to divide by.

  Returns:
    float [N] in squared fractions of the image's height and width: pixel (i, j) is at
    ((i + 0.5) / h, (j + 0.5) / w). 0 without foreground. A bone that covers no pixel of the key
    map adds 0.

  Raises:
    ValueError: on another `center`, or 'component' without `cells`.
  """
  objective.check_choice('center', center, Center)
  size, num_bones = key_logits.shape[1:3], key_logits.shape[-1] - 1
  probs = jax.nn.softmax(key_logits)[..., 1:]
  classes = jnp.arange(1, num_bones + 1, dtype=label.dtype)
  bones = resize_nearest(label, size)[..., None] == classes[None, None, None, :]

  segments = jnp.broadcast_to(jnp.arange(num_bones, dtype=jnp.int32), probs.shape)
  num_segments = num_bones
  if center == 'component':
    if cells is None:
      raise ValueError("center='component' needs cells, got None.")
    segments = segments * NUM_CELLS + resize_nearest(cells, size).astype(jnp.int32)
    num_segments = num_bones * NUM_CELLS

  moments = jax.vmap(functools.partial(_moments, num_segments=num_segments))
  mass, estimate = moments(probs, segments)
  area, truth = moments(bones.astype(probs.dtype), segments)
  error = estimate / jnp.maximum(mass, epsilon) - truth / jnp.maximum(area, 1)
  total = jnp.sum(area * smooth_l1(error), axis=(1, 2))
  return total / jnp.maximum(jnp.sum(area, axis=(1, 2)), 1)


def smooth_l1(difference: jax.Array, beta: float = 1.0) -> jax.Array:
  """Elementwise `d^2 / (2 beta)` where |d| < beta, else `|d| - beta / 2`."""
  return optax.huber_loss(difference, delta=beta) / beta


def resize_nearest(array: jax.Array, size: Sequence[int]) -> jax.Array:
  """Nearest-neighbor resize of [N, H, W, ...] to [N, h, w, ...] with half-pixel centers.

  Row i of the result is row floor((i + 0.5) H / h): at stride 4, rows 2, 6, 10, ...
  """
  rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new)
                   for old, new in zip(array.shape[1:3], size))
  return array[:, rows][:, :, columns]


def _moments(
    weights: jax.Array, segments: jax.Array, num_segments: int) -> tuple[jax.Array, jax.Array]:
  """Sums over each segment of weights [h, w, B] and of weighted positions.

  Returns arrays [num_segments, 1] and [num_segments, 2].
  """
  height, width, _ = weights.shape
  y = (jnp.arange(height, dtype=weights.dtype) + 0.5) / height
  x = (jnp.arange(width, dtype=weights.dtype) + 0.5) / width
  values = jnp.stack([weights, weights * y[:, None, None], weights * x[None, :, None]], axis=-1)
  sums = jax.ops.segment_sum(values.reshape(-1, 3), segments.reshape(-1), num_segments)
  return sums[:, :1], sums[:, 1:]
