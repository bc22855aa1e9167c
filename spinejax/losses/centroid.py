"""Centroid loss: distances between the centroids of predicted and true components."""
import functools
import math
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp
import optax

from spinejax.losses import components, dice, objective
from spinejax.losses.components import Connectivity
from spinejax.losses.objective import Arrays, Objective

Array = jax.Array
Gradient = Literal['straight_through', 'published']
_THRESHOLD = 0.5  # pixels with at least this probability form the predicted components
_COLLAR = 3  # pixels around a hard component that belong to its soft centroid


def centroid_loss(
    outputs: Arrays, batch: Arrays, *, gradient: Gradient = 'straight_through',
    distance_floor: float = 1.0, connectivity: Connectivity = 'face') -> Objective:
  """`centroid_dice` of one logit per voxel [N, D, H, W, 1]: C-U-net (Wong et al., 2021).

  Every class above 0 is a lamina. Raises ValueError on images instead of volumes.
  """
  logits, target = objective.binary_logits(outputs, batch, 'centroid')
  if logits.ndim != 4:
    raise ValueError("loss 'centroid' expects volumes, logits [N, D, H, W, 1], got an array of "
                     f'{logits.ndim + 1} axes.')
  return centroid_dice(jax.nn.sigmoid(logits), target, gradient=gradient,
                       distance_floor=distance_floor, connectivity=connectivity)


def centroid_dice(
    probs: Array, target: Array, *, gradient: Gradient = 'straight_through',
    distance_floor: float = 1.0, connectivity: Connectivity = 'face') -> Objective:
  """`L_D (L_d + floor) L_N`: C-U-net (Wong et al., 2021, eq. 6).

    L_d = d_c + d_s                                                     (eq. 4)
    L_N = max(1, |N_c - N'_c| + |N_s - N'_s|)                           (eq. 5)

  L_D is the Dice loss (eq. 1). d, N and N' are the distance and the numbers of true and predicted
  components in the coronal and in the sagittal projection, see `projected_distance`.

  Thresholds, components and counts are piecewise constant. The gradient as published is therefore
  that of Dice, scaled by L_d L_N for each volume; it is 0 where prediction and truth do not
  overlap. 'straight_through' keeps the value and gives d the gradient of a soft centroid. The
  paper's loss vanishes with the distance even if Dice is not 0; `distance_floor` prevents this.

  Takes probabilities and a target of 0 and 1, [N, D, H, W] with the axes superior-inferior,
  left-right and anterior-posterior. Raises ValueError on another `gradient` or `connectivity`.
  """
  objective.check_choice('gradient', gradient, Gradient)
  distance = jax.vmap(functools.partial(
      projected_distance, gradient=gradient, connectivity=connectivity))
  coronal, coronal_counts = distance(jnp.max(probs, 3), jnp.max(target, 3) > 0)
  sagittal, sagittal_counts = distance(jnp.max(probs, 2), jnp.max(target, 2) > 0)
  difference = jnp.abs(coronal_counts) + jnp.abs(sagittal_counts)
  parts = {
      'dice': dice.dice(probs[..., None], target.astype(probs.dtype)[..., None]),
      'coronal_distance': coronal,
      'sagittal_distance': sagittal,
      'count_difference': difference,
  }
  loss = parts['dice'] * (coronal + sagittal + distance_floor) * jnp.maximum(1.0, difference)
  return loss, parts


def projected_distance(
    probs: Array, target: Array, *, gradient: Gradient = 'straight_through',
    connectivity: Connectivity = 'face') -> tuple[Array, Array]:
  """`d = mean_i min_j |g_i - h_j|` over true centroids g and predicted centroids h (eq. 2 and 3).

  The value is that of the hard components of probs >= 0.5. The gradient is that of H(|g_i - s_j|),
  where j is the component nearest to i and s_j its soft centroid:

    s_j = sum_R P u / sum_R P,  d_i = |g_i - h_j| + H(|g_i - s_j|) - stop(H(|g_i - s_j|))

  P are the probabilities, u pixel positions and R the pixels within 3 of component j. H(x) is
  x^2 / 2 below one pixel and x - 1/2 above, so that the gradient fades near the truth. The matching
  and R are constants.

  With `gradient='published'` the gradient is 0.

  Takes probs float32 [H, W] and target bool [H, W]. Returns d in pixels, and the number of true
  minus that of predicted components. d is the diagonal of the projection without predicted
  components, and 1 without true ones; both are constants.
  """
  true, is_true = components.centroids(
      components.label_components(target, connectivity=connectivity))
  roots = components.label_components(
      lax.stop_gradient(probs) >= _THRESHOLD, connectivity=connectivity)
  hard, is_hard = components.centroids(roots)
  nearest, distance = _match(true, is_true, hard, is_hard)
  if gradient == 'straight_through':
    regions = components.grow_components(roots, _COLLAR)
    mass = components.sums_by_root(probs, regions)
    soft = components.sums_by_root(probs[..., None] * components.grid(probs.shape), regions)
    soft = soft / jnp.where(is_hard, mass, 1.0)[:, None]
    pull = optax.huber_loss(optax.safe_norm(true - soft[nearest], 0.0, axis=-1))
    distance += pull - lax.stop_gradient(pull)
  num_true, num_hard = (jnp.sum(x, dtype=jnp.float32) for x in (is_true, is_hard))
  mean = jnp.sum(jnp.where(is_true, distance, 0.0)) / jnp.maximum(num_true, 1)
  d = jnp.where(num_true == 0, 1.0, jnp.where(
      num_hard == 0, math.hypot(*probs.shape), mean))
  return d, num_true - num_hard


def _match(true: Array, is_true: Array, hard: Array, is_hard: Array) -> tuple[Array, Array]:
  """Row and distance [P] of the predicted centroid nearest to each true one, 0 in other rows.

  Centroids are [P, d]; `is_true` and `is_hard` [P] say which rows hold one. The work is linear in
  the number of true centroids, not in P.
  """
  size = len(is_true)
  rows, = jnp.nonzero(is_true, size=size, fill_value=size)
  places = jnp.arange(size, dtype=jnp.int32)
  axes = [jnp.where(is_hard, hard[:, axis], jnp.inf) for axis in range(hard.shape[1])]

  def match(i, state):
    nearest, distance = state
    row = rows[i]
    squares = sum(jnp.square(axis - center) for axis, center in zip(axes, true[row]))
    least = jnp.min(squares)  # on CPU two minima take a tenth of the time of an argmin
    best = jnp.min(jnp.where(squares == least, places, size - 1))
    return nearest.at[row].set(best), distance.at[row].set(jnp.sqrt(least))

  start = jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.float32)
  return lax.fori_loop(0, jnp.sum(is_true), match, start)
