"""Cross entropies, computed from logits and averaged over pixels."""
import jax
import jax.numpy as jnp
import optax


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Mean of `-t log p - (1 - t) log(1 - p)` with p = sigmoid(logits).

  RSN-U-net (Huang et al., 2020, eq. 2). Finite for all finite logits.

  Args:
    logits: float [N, ...].
    target: float [N, ...] in [0, 1].

  Returns:
    float [N], the mean over all axes but the first.
  """
  return _pixel_mean(optax.sigmoid_binary_cross_entropy(logits, target))


def weighted_binary_cross_entropy(
    logits: jax.Array, target: jax.Array, positive_weight: float) -> jax.Array:
  """Mean of `-w t log p - (1 - t) log(1 - p)` with w = `positive_weight`.

  B-U-net (C-U-net, Wong et al., 2021). The paper gives no weight: see `balanced_positive_weight`.

  Args:
    logits: float [N, ...].
    target: float [N, ...] in [0, 1].
    positive_weight: weight of the foreground term; 1 gives `binary_cross_entropy`.

  Returns:
    float [N], the mean over all axes but the first.
  """
  positive = target * jax.nn.log_sigmoid(logits)
  negative = (1 - target) * jax.nn.log_sigmoid(-logits)
  return _pixel_mean(-positive_weight * positive - negative)


def balanced_positive_weight(
    num_positive: int, num_negative: int, limit: float = 100.0) -> float:
  """`min(num_negative / num_positive, limit)` of the pixel counts of a training set.

  This choice is ours. Without positive pixels the weight is `limit`.
  """
  return float(min(num_negative / num_positive, limit)) if num_positive else float(limit)


def softmax_cross_entropy(
    logits: jax.Array, label: jax.Array, *, divide_by_classes: bool = False) -> jax.Array:
  """Mean of `-log softmax(logits)[label]`: SEAM (Zhao et al., 2021, eq. 8).

  Multiplies with one-hot labels, because the form with integer labels takes seconds to compile for
  CPU.

  Args:
    logits: float [N, ..., K].
    label: int [N, ...] in [0, K). Other values add 0 to the sum and count as pixels of the mean.
    divide_by_classes: also divide by K, as SADANet prints (eq. 5). Its Dice weight of 3 would then
      act as 12, so this is off by default.

  Returns:
    float [N], the mean over all axes but the first.
  """
  num_classes = logits.shape[-1]
  one_hot = jax.nn.one_hot(label, num_classes, dtype=logits.dtype)
  loss = _pixel_mean(optax.softmax_cross_entropy(logits, one_hot))
  return loss / num_classes if divide_by_classes else loss


def _pixel_mean(values: jax.Array) -> jax.Array:
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))
