"""Losses that judge every pixel alone: cross entropies from logits."""
import jax
import jax.numpy as jnp
import optax


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Mean over pixels of `-t log p - (1 - t) log(1 - p)`, p = sigmoid(logits).

  RSN-U-net (Huang et al., 2020, eq. 2), computed from logits so that it stays finite.

  Args:
    logits: float [N, ...], one per pixel; every axis but the first is averaged.
    target: float, shape of `logits`, in [0, 1].

  Returns:
    float [N].
  """
  return _pixel_mean(optax.sigmoid_binary_cross_entropy(logits, target))


def weighted_binary_cross_entropy(
    logits: jax.Array, target: jax.Array, positive_weight: float) -> jax.Array:
  """Mean over pixels of `-w t log p - (1 - t) log(1 - p)`, w = `positive_weight`.

  The weighted cross entropy of B-U-net (C-U-net, Wong et al., 2021), which prints no weight:
  see `balanced_positive_weight`.

  Args:
    logits: float [N, ...], one per pixel or voxel; every axis but the first is averaged.
    target: float, shape of `logits`, in [0, 1].
    positive_weight: weight of the foreground term; 1 gives `binary_cross_entropy`.

  Returns:
    float [N].
  """
  positive = target * jax.nn.log_sigmoid(logits)
  negative = (1 - target) * jax.nn.log_sigmoid(-logits)
  return _pixel_mean(-positive_weight * positive - negative)


def balanced_positive_weight(
    num_positive: int, num_negative: int, limit: float = 100.0) -> float:
  """`min(num_negative / num_positive, limit)`, from the pixel counts of a training set.

  A stated choice where C-U-net (Wong et al., 2021) prints none. Without a positive pixel the
  weight is `limit`.
  """
  return float(min(num_negative / num_positive, limit)) if num_positive else float(limit)


def softmax_cross_entropy(
    logits: jax.Array, label: jax.Array, *, divide_by_classes: bool = False) -> jax.Array:
  """Mean over pixels of `-log softmax(logits)[label]`.

  SEAM (Zhao et al., 2021, eq. 8). Multiplies one-hot labels with log-softmax: the form with
  integer labels takes seconds to compile for CPU.

  Args:
    logits: float [N, ..., K].
    label: int [N, ...] in [0, K). A value outside adds 0 and still counts as a pixel.
    divide_by_classes: divide by K too, as SADANet (eq. 5) prints. The default does not:
      it would make SADANet's Dice weight of 3 act as 12.

  Returns:
    float [N].
  """
  num_classes = logits.shape[-1]
  one_hot = jax.nn.one_hot(label, num_classes, dtype=logits.dtype)
  loss = _pixel_mean(optax.softmax_cross_entropy(logits, one_hot))
  return loss / num_classes if divide_by_classes else loss


def _pixel_mean(values: jax.Array) -> jax.Array:
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))
