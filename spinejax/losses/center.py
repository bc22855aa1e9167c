"""SEAM's structure supervision of the key map: class and center of every bone."""
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spinejax.losses import pixel

NUM_CELLS = 256  # values of a uint8 cell id; 0 marks a class that is absent


def class_supervision(key_logits: jax.Array, label: jax.Array) -> jax.Array:
  """Mean cross entropy of the key map against the labels at its size.

  SEAM (Zhao et al., 2021, eq. 6).

  Args:
    key_logits: float [N, h, w, K].
    label: int [N, H, W] in [0, K), resized by nearest neighbor to (h, w).

  Returns:
    float [N].
  """
  return pixel.softmax_cross_entropy(key_logits, resize_nearest(label, key_logits.shape[1:3]))


def center_regression(
    key_logits: jax.Array, label: jax.Array, cells: jax.Array | None = None, *,
    center: str = 'component', epsilon: float = 1e-6) -> jax.Array:
  """`1 / max(M, 1) sum_m A_m sum_xy smooth_l1(c_hat_m - c_m)` over bones m of A_m pixels.

  SEAM (Zhao et al., 2021, eq. 7). With k' = softmax(key_logits), R_m the cell of component m
  of class n and p the pixel positions, the estimated center is the soft-argmax
  `c_hat_m = sum_{R_m} k'_n p / max(sum_{R_m} k'_n, epsilon)`; c_m is the mean position of the
  component's pixels and M the number of bone pixels, all on the key map's grid.

  The paper sums differences of offsets over pixels. An offset difference is the center's error,
  constant within a bone, hence the weight A_m. The paper leaves open which pixels a bone owns;
  here they are those nearest to it.

  Args:
    key_logits: float [N, h, w, K].
    label: int [N, H, W] in [0, K), resized by nearest neighbor to (h, w).
    cells: uint8 [N, H, W, K-1]; cells[..., n-1] is the 1-based id of the component of class n
      nearest to the pixel. Resized like `label`. Not read when `center` is 'class'.
    center: 'component', or 'class' for one center per class. The latter is an ablation: it
      puts the center of a left and right pair of bones between them.
    epsilon: smallest mass, in pixels, that is divided by.

  Returns:
    float [N], in squared fractions of the image's height and width: position (i, j) is
    ((i + 0.5) / h, (j + 0.5) / w). 0 without foreground. A bone too small for a pixel of the
    key map adds 0.

  Raises:
    ValueError: on another `center`, or 'component' without `cells`.
  """
  if center not in ('component', 'class'):
    raise ValueError(
        f"center regression: center must be 'component' or 'class', got {center!r}")
  size, num_bones = key_logits.shape[1:3], key_logits.shape[-1] - 1
  probs = jax.nn.softmax(key_logits)[..., 1:]
  classes = jnp.arange(1, num_bones + 1, dtype=label.dtype)
  bones = resize_nearest(label, size)[..., None] == classes[None, None, None, :]

  segments = jnp.broadcast_to(jnp.arange(num_bones, dtype=jnp.int32), probs.shape)
  num_segments = num_bones
  if center == 'component':
    if cells is None:
      raise ValueError("center regression: center='component' needs cells, got None")
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
  """Nearest-neighbor resize of [N, H, W, ...] to [N, h, w, ...], half-pixel centers.

  Row i of h takes row floor((i + 0.5) H / h): at stride 4, rows 2, 6, 10, ...
  """
  rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new)
                   for old, new in zip(array.shape[1:3], size))
  return array[:, rows][:, :, columns]


def _moments(
    weights: jax.Array, segments: jax.Array, num_segments: int) -> tuple[jax.Array, jax.Array]:
  """Sums of weights [h, w, B] and of weighted positions: [num_segments, 1] and [..., 2]."""
  height, width, _ = weights.shape
  y = (jnp.arange(height, dtype=weights.dtype) + 0.5) / height
  x = (jnp.arange(width, dtype=weights.dtype) + 0.5) / width
  values = jnp.stack([weights, weights * y[:, None, None], weights * x[None, :, None]], axis=-1)
  sums = jax.ops.segment_sum(values.reshape(-1, 3), segments.reshape(-1), num_segments)
  return sums[:, :1], sums[:, 1:]
