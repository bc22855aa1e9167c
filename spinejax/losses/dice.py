"""Dice losses with linear and with squared denominators, in two or three dimensions."""
import jax
import jax.numpy as jnp

EPSILON = 1e-7  # in denominators only: a sum of no probability and no target is not divided by 0


def dice(probs: jax.Array, target: jax.Array, *, smooth: float = 0.0) -> jax.Array:
  """`1 - (2 sum(p t) + s) / (sum p + sum t + s)` for each class, averaged over classes.

  C-U-net (Wong et al., 2021, eq. 1) with K = 1 and s = `smooth` = 0.

  Args:
    probs: float [N, (D,) H, W, K] in [0, 1].
    target: float, shape of `probs`, in [0, 1].
    smooth: 0 as in the paper: a class without target has loss 1 and no gradient. Above 0,
      for patches that may hold no target, an empty prediction of it has loss 0 instead.

  Returns:
    float [N].
  """
  axes = _pixel_axes(probs)
  return jnp.mean(_dice_loss(
      jnp.sum(probs * target, axis=axes),
      jnp.sum(probs, axis=axes) + jnp.sum(target, axis=axes), smooth), axis=-1)


def squared_dice(
    probs: jax.Array, target: jax.Array, *, reduction: str = 'class',
    smooth: float = 0.0) -> jax.Array:
  """`1 - (2 sum(p t) + s) / (sum p^2 + sum t^2 + s)`.

  SADANet (eq. 6) with s = `smooth` = 0.

  Args:
    probs: float [N, (D,) H, W, K] in [0, 1].
    target: float, shape of `probs`, in [0, 1].
    reduction: 'class' takes the ratio for each class and averages, so that small bones weigh
      as much as the background; 'global' sums over pixels and classes first, as printed.
    smooth: as in `dice`.

  Returns:
    float [N].

  Raises:
    ValueError: on another `reduction`.
  """
  if reduction not in ('class', 'global'):
    raise ValueError(f"squared Dice: reduction must be 'class' or 'global', got {reduction!r}")
  axes = _pixel_axes(probs)
  overlap = jnp.sum(probs * target, axis=axes)
  total = jnp.sum(jnp.square(probs), axis=axes) + jnp.sum(jnp.square(target), axis=axes)
  if reduction == 'global':
    return _dice_loss(jnp.sum(overlap, axis=-1), jnp.sum(total, axis=-1), smooth)
  return jnp.mean(_dice_loss(overlap, total, smooth), axis=-1)


def _dice_loss(overlap: jax.Array, total: jax.Array, smooth: float) -> jax.Array:
  return 1 - (2 * overlap + smooth) / (total + smooth + EPSILON)


def _pixel_axes(array: jax.Array) -> tuple[int, ...]:
  return tuple(range(1, array.ndim - 1))
