"""Dice losses with linear and with squared denominators, for images and volumes."""
from typing import Literal

import jax
import jax.numpy as jnp

from spinejax.losses.cross_entropy import class_cross_entropy
from spinejax.losses.objective import Arrays, Objective, check_choice, probabilities

EPSILON = 1e-7  # added to denominators, which are 0 without any probability and target
Reduction = Literal['class', 'global']


def dice(probs: jax.Array, target: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
  """`1 - (2 sum(p t) + s) / (sum p + sum t + s)` of each class, averaged over classes.

  [N, *S, K] in [0, 1] -> [N]. C-U-net (Wong et al., 2021, eq. 1) has one class and s = 0.

  s is `smoothing`. With 0 a class without target has loss 1 and no gradient. Use a positive value
  for patches that may hold no target: an empty prediction then has loss 0.
  """
  axes = tuple(range(1, probs.ndim - 1))
  overlap = jnp.sum(probs * target, axis=axes)
  total = jnp.sum(probs, axis=axes) + jnp.sum(target, axis=axes)
  return jnp.mean(_ratio_loss(overlap, total, smoothing), axis=-1)


def squared_dice(probs: jax.Array, target: jax.Array, *, reduction: Reduction = 'class',
                 smoothing: float = 0.0) -> jax.Array:
  """`1 - (2 sum(p t) + s) / (sum p^2 + sum t^2 + s)`: SADANet (Xie et al., 2023, eq. 6), s = 0.

  [N, *S, K] in [0, 1] -> [N]. s is `smoothing`, see `dice`. The `reduction` 'class' averages the
  ratios of the classes, so that small classes count as much as the background. 'global' sums over
  pixels and classes first, as the paper prints. Raises ValueError on another `reduction`.
  """
  check_choice('reduction', reduction, Reduction)
  axes = tuple(range(1, probs.ndim - 1))
  overlap = jnp.sum(probs * target, axis=axes)
  total = jnp.sum(jnp.square(probs), axis=axes) + jnp.sum(jnp.square(target), axis=axes)
  if reduction == 'global':
    return _ratio_loss(jnp.sum(overlap, axis=-1), jnp.sum(total, axis=-1), smoothing)
  return jnp.mean(_ratio_loss(overlap, total, smoothing), axis=-1)


def dice_loss(outputs: Arrays, batch: Arrays, *, smoothing: float = 0.0) -> Objective:
  """`dice` of `objective.probabilities`: D-U-net (C-U-net, Wong et al., 2021, eq. 1).

  With several logits the mean over classes includes the background.
  """
  loss = dice(*probabilities(outputs, batch), smoothing=smoothing)
  return loss, {'dice': loss}


def squared_dice_loss(outputs: Arrays, batch: Arrays, *, reduction: Reduction = 'class',
                      smoothing: float = 0.0) -> Objective:
  """`squared_dice` of `objective.probabilities`: SADANet (Xie et al., 2023, eq. 6)."""
  loss = squared_dice(*probabilities(outputs, batch), reduction=reduction, smoothing=smoothing)
  return loss, {'squared_dice': loss}


def cross_entropy_dice(
    outputs: Arrays, batch: Arrays, *, dice_weight: float = 3.0, reduction: Reduction = 'class',
    smoothing: float = 0.0, divide_by_classes: bool = False) -> Objective:
  """`CE + lambda squared Dice`: SADANet (Xie et al., 2023, eq. 7), lambda = `dice_weight`.

  The other options are explained in `squared_dice` and `softmax_cross_entropy`.
  """
  _, parts = squared_dice_loss(outputs, batch, reduction=reduction, smoothing=smoothing)
  parts = {'cross_entropy': class_cross_entropy(
      outputs, batch, 'cross_entropy_dice', divide_by_classes=divide_by_classes), **parts}
  return parts['cross_entropy'] + dice_weight * parts['squared_dice'], parts


def _ratio_loss(overlap: jax.Array, total: jax.Array, smoothing: float) -> jax.Array:
  return 1 - (2 * overlap + smoothing) / (total + smoothing + EPSILON)
