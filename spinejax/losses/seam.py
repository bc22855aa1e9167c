"""SEAM's objective: cross entropy plus supervision of the attention's key map."""
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spinejax.losses.cross_entropy import class_cross_entropy, softmax_cross_entropy
from spinejax.losses.objective import Arrays, Objective, check_choice

Center = Literal['component', 'class']
Unit = Literal['image', 'pixel', 'bone']
NUM_CELLS = 256  # values of a uint8 cell id; 0 marks an absent class


def seam_loss(outputs: Arrays, batch: Arrays, *, structure_weight: float = 0.4,
              center_weight: float = 0.5, center: Center = 'component', center_unit: Unit = 'image'
              ) -> Objective:
  """`CE + lambda (class supervision + beta center regression)`: SEAM (Zhao et al., 2021, eq. 9).

  lambda is `structure_weight` and beta is `center_weight`. If one of them is 0, the center
  regression is not computed. Needs `outputs['key_logits']` and, where `losses.needs_cells` says so,
  `batch['cells']`; see `center_regression`.
  """
  key_logits, label = outputs['key_logits'], batch['label']
  parts = {
      'cross_entropy': class_cross_entropy(outputs, batch, 'seam'),
      'class_supervision': class_supervision(key_logits, label),
  }
  structure = parts['class_supervision']
  if structure_weight and center_weight:
    cells = batch['cells'] if center == 'component' else None
    parts['center_regression'] = center_regression(key_logits, label, cells, center=center,
                                                   unit=center_unit)
    structure += center_weight * parts['center_regression']
  return parts['cross_entropy'] + structure_weight * structure, parts


def class_supervision(key_logits: jax.Array, label: jax.Array) -> jax.Array:
  """Mean cross entropy of the key map: SEAM (Zhao et al., 2021, eq. 6).

  Takes key logits [N, h, w, K] and labels [N, H, W], resized by `resize_nearest`; returns [N].
  """
  return softmax_cross_entropy(key_logits, resize_nearest(label, key_logits.shape[1:3]))


def center_regression(
    key_logits: jax.Array, label: jax.Array, cells: jax.Array | None = None, *,
    center: Center = 'component', unit: Unit = 'image', epsilon: float = 1e-6) -> jax.Array:
  """`1 / max(M, 1) sum_m A_m sum_xy smooth_l1(c_hat_m - c_m)` over bones m of A_m pixels.

  SEAM (Zhao et al., 2021, eq. 7), with smooth_l1(d) = d^2 / 2 where |d| < 1, else |d| - 1/2. Let
  k' = softmax(key_logits), R_m the cell of bone m of class n and p the position of a pixel. The
  estimated center is the soft-argmax `c_hat_m = sum_{R_m} k'_n p / max(sum_{R_m} k'_n, epsilon)`.
  The true center c_m is the mean position of the bone's pixels. M is the number of bone pixels. All
  are taken on the key map's grid: pixel (i, j) is at ((i + 0.5) / h, (j + 0.5) / w).

  The paper sums differences of offsets over pixels. Such a difference is the error of the center,
  which is constant within a bone; hence the weight A_m. The paper does not say which pixels belong
  to a bone. Here they are the pixels nearest to it.

  Args:
    key_logits: float [N, h, w, K].
    label: int [N, H, W] in [0, K), resized by `resize_nearest`.
    cells: uint8 [N, H, W, K-1]; cells[..., n-1] is the 1-based id of the component of class n
      that is nearest to the pixel. Resized like `label`. Not used if `center` is 'class'.
    center: 'component', or 'class' for the ablation with one center per class, which lies between
      a left and a right bone of the class.
    unit: of the distances. 'image' is that of the paper, the height and the width of the map.
      'pixel' is a pixel of the map, and 'bone' the square root of the bone's area on the map. On
      phantoms with maps of 128x64 the norm of the gradient is 0.0005 to 0.014 of that of the class
      supervision with 'image', 5 to 15 with 'pixel' and 0.05 to 0.8 with 'bone'. The larger values
      are those of random and of blurred key maps, the smaller ones those of sharp maps.
    epsilon: smallest mass, in pixels, to divide by.

  Returns:
    float [N]; 0 without foreground. A bone that covers no pixel of the key map adds 0.

  Raises:
    ValueError: on another `center` or `unit`, or 'component' without `cells`.
  """
  check_choice('center', center, Center)
  check_choice('unit', unit, Unit)
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
  if unit != 'image':
    error *= jnp.asarray(size, error.dtype)[None, None]
  if unit == 'bone':
    error /= jnp.sqrt(jnp.maximum(area, 1))
  total = jnp.sum(area * optax.huber_loss(error), axis=(1, 2))
  return total / jnp.maximum(jnp.sum(area, axis=(1, 2)), 1)


def _moments(
    weights: jax.Array, segments: jax.Array, num_segments: int) -> tuple[jax.Array, jax.Array]:
  """Sums over each segment of weights [h, w, B] and of positions: [segments, 1], [segments, 2]."""
  height, width, _ = weights.shape
  y = (jnp.arange(height, dtype=weights.dtype) + 0.5) / height
  x = (jnp.arange(width, dtype=weights.dtype) + 0.5) / width
  values = jnp.stack([weights, weights * y[:, None, None], weights * x[None, :, None]], axis=-1)
  sums = jax.ops.segment_sum(values.reshape(-1, 3), segments.reshape(-1), num_segments)
  return sums[:, :1], sums[:, 1:]


def resize_nearest(array: jax.Array, size: Sequence[int]) -> jax.Array:
  """Nearest-neighbor resize of [N, H, W, ...] to [N, h, w, ...] with half-pixel centers.

  Row i of the result is row floor((i + 0.5) H / h): at stride 4, rows 2, 6, 10, ...
  """
  rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new)
                   for old, new in zip(array.shape[1:3], size))
  return array[:, rows][:, :, columns]
