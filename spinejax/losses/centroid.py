"""Centroid loss: distances between the centroids of predicted and true components."""
import functools

import jax
from jax import lax
import jax.numpy as jnp

from spinejax.losses import components
from spinejax.losses import dice

Array = jax.Array
_COLLAR = 3  # pixels around a hard component that take part in its soft centroid


def centroid_loss(
    probs: Array, target: Array, *, gradient: str = 'straight_through',
    distance_floor: float = 1.0, connectivity: str = 'face', threshold: float = 0.5,
    smooth: float = 0.0) -> tuple[Array, dict[str, Array]]:
  """`L_D (L_d + floor) L_N`: C-U-net (Wong et al., 2021, eq. 6).

    L_d = d_c + d_s                                                     (eq. 4)
    L_N = max(1, |N_c - N'_c| + |N_s - N'_s|)                           (eq. 5)

  d and the numbers of components N of truth and N' of prediction are those of the coronal and the
  sagittal projection, see `projected_distance`; L_D is the Dice loss of eq. 1.

  Thresholds, components and counts are piecewise constant, so as published ('published') the
  gradient is L_d L_N times that of Dice: a weight per volume, and none at all where prediction and
  truth do not overlap. 'straight_through' keeps the value and gives d the gradient of a soft
  centroid. The value vanishes with the distance though Dice is not solved; `distance_floor` (0 is
  the paper) keeps it.

  Args:
    probs: float [N,D,H,W], probabilities; axes are superior-inferior, left-right and
      anterior-posterior.
    target: float or bool [N,D,H,W], 0 or 1.
    gradient: 'straight_through' or 'published'.
    distance_floor: added to L_d, in pixels.
    connectivity: of components, 'face' or 'full'.
    threshold: probability from which a pixel belongs to a component.
    smooth: of the Dice loss.

  Returns:
    float [N] and its parts [N]: dice, coronal_distance, sagittal_distance, count_difference.

  Raises:
    ValueError: another `gradient` or `connectivity`.
  """
  if gradient not in ('straight_through', 'published'):
    raise ValueError(
        f"loss.gradient must be 'straight_through' or 'published', not {gradient!r}.")
  distance = jax.vmap(functools.partial(
      projected_distance, gradient=gradient, connectivity=connectivity, threshold=threshold))
  coronal, coronal_counts = distance(jnp.max(probs, 3), jnp.max(target, 3) > 0)
  sagittal, sagittal_counts = distance(jnp.max(probs, 2), jnp.max(target, 2) > 0)
  difference = jnp.abs(coronal_counts) + jnp.abs(sagittal_counts)
  parts = {
      'dice': dice.dice(probs[..., None], target.astype(probs.dtype)[..., None], smooth=smooth),
      'coronal_distance': coronal,
      'sagittal_distance': sagittal,
      'count_difference': difference,
  }
  loss = parts['dice'] * (coronal + sagittal + distance_floor) * jnp.maximum(1.0, difference)
  return loss, parts


def projected_distance(
    probs: Array, target: Array, *, gradient: str = 'straight_through',
    connectivity: str = 'face', threshold: float = 0.5) -> tuple[Array, Array]:
  """d = mean_i min_j |g_i - h_j| over true centroids g and predicted ones h (eq. 2 and 3).

  The forward value is that of the hard components of probs >= threshold. Backward, with j(i) the
  nearest component of i, R_j that component and the pixels within 3 of it, and P the
  probabilities,

    s_j = sum_R P u / sum_R P,  d_i = |g_i - h_j| + H(|g_i - s_j|) - stop(H(|g_i - s_j|))

  with H(x) = x^2 / 2 below one pixel and x - 1/2 above: near the truth the pull fades instead of
  keeping its length, so that it settles. Matching and R are constants.

  Args:
    probs: float32 [H,W].
    target: bool [H,W].
    gradient: 'published' leaves the gradient zero.
    connectivity, threshold: as `centroid_loss`.

  Returns:
    d in pixels, and the number of true components less that of predicted ones. Without a predicted
    component d is the diagonal of the projection, without a true one 1, both constant.
  """
  true, is_true = components.centroids(
      components.label_components(target, connectivity=connectivity))
  roots = components.label_components(
      lax.stop_gradient(probs) >= threshold, connectivity=connectivity)
  hard, is_hard = components.centroids(roots)
  nearest, distance = _match(true, is_true, hard, is_hard)
  if gradient == 'straight_through':
    regions = components.grow_components(roots, _COLLAR)
    mass = components.sums_by_root(probs, regions)
    soft = components.sums_by_root(probs[..., None] * components.grid(probs.shape), regions)
    soft = soft / jnp.where(is_hard, mass, 1.0)[:, None]
    pull = _huber(_norm(true - soft[nearest]))
    distance += pull - lax.stop_gradient(pull)
  num_true, num_hard = (jnp.sum(x, dtype=jnp.float32) for x in (is_true, is_hard))
  mean = jnp.sum(jnp.where(is_true, distance, 0.0)) / jnp.maximum(num_true, 1)
  d = jnp.where(num_true == 0, 1.0, jnp.where(
      num_hard == 0, components.diagonal(probs.shape), mean))
  return d, num_true - num_hard


def _match(true: Array, is_true: Array, hard: Array, is_hard: Array) -> tuple[Array, Array]:
  """For the true centroid in each row the row of the nearest predicted one, and its distance.

  Takes [P,d] and bool [P] each; returns int32 [P] and float32 [P], 0 in rows without a true
  centroid. One turn of a loop per true component, however many there are.
  """
  size = len(is_true)
  rows, = jnp.nonzero(is_true, size=size, fill_value=size)
  places = jnp.arange(size, dtype=jnp.int32)
  axes = [jnp.where(is_hard, hard[:, axis], jnp.inf) for axis in range(hard.shape[1])]

  def match(i, state):
    nearest, distance = state
    row = rows[i]
    squares = sum(jnp.square(axis - center) for axis, center in zip(axes, true[row]))
    least = jnp.min(squares)  # two minima take a tenth of the time of an argmin on CPU
    best = jnp.min(jnp.where(squares == least, places, size - 1))
    return nearest.at[row].set(best), distance.at[row].set(jnp.sqrt(least))

  start = jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.float32)
  return lax.fori_loop(0, jnp.sum(is_true), match, start)


def _norm(x: Array) -> Array:
  """Length over the last axis, with gradient 0 at 0."""
  square = jnp.sum(jnp.square(x), -1)
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _huber(x: Array) -> Array:
  return jnp.where(x < 1, 0.5 * jnp.square(x), x - 0.5)
