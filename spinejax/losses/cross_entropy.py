"""Cross entropies, computed from logits and averaged over pixels."""
import jax
import jax.numpy as jnp
import optax

from spinejax.losses.objective import Arrays, Objective, binary_logits


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Mean of `-t log p - (1 - t) log(1 - p)` with p = sigmoid(logits): [N, ...] -> [N].

  RSN-U-net (Huang et al., 2020, eq. 2). Targets are in [0, 1]. Finite for all finite logits.
  """
  return _pixel_mean(optax.sigmoid_binary_cross_entropy(logits, target))


def weighted_binary_cross_entropy(
    logits: jax.Array, target: jax.Array, positive_weight: float) -> jax.Array:
  """Mean of `-w t log p - (1 - t) log(1 - p)` with w = `positive_weight`: [N, ...] -> [N].

  B-U-net (C-U-net, Wong et al., 2021). The paper gives no weight: see `balanced_positive_weight`.
  """
  positive = target * jax.nn.log_sigmoid(logits)
  negative = (1 - target) * jax.nn.log_sigmoid(-logits)
  return _pixel_mean(-positive_weight * positive - negative)


def balanced_positive_weight(num_positive: int, num_negative: int, limit: float = 100.0) -> float:
  """`min(num_negative / num_positive, limit)` of the pixel counts of a training set.

  This choice is ours. Without positive pixels the weight is `limit`.
  """
  return float(min(num_negative / num_positive, limit)) if num_positive else float(limit)


def softmax_cross_entropy(
    logits: jax.Array, label: jax.Array, *, divide_by_classes: bool = False) -> jax.Array:
  """Mean of `-log softmax(logits)[label]`: SEAM (Zhao et al., 2021, eq. 8).

  Takes logits [N, ..., K] and labels int [N, ...] in [0, K); returns [N]. Other labels add 0 to the
  sum and count as pixels of the mean. `divide_by_classes` also divides by K, as SADANet prints (eq.
  5). Its Dice weight of 3 would then act as 12, so this is off by default.
  """
  num_classes = logits.shape[-1]
  # The loss of Optax for integer labels takes seconds to compile for CPU.
  one_hot = jax.nn.one_hot(label, num_classes, dtype=logits.dtype)
  loss = _pixel_mean(optax.softmax_cross_entropy(logits, one_hot))
  return loss / num_classes if divide_by_classes else loss


def _pixel_mean(values: jax.Array) -> jax.Array:
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def class_cross_entropy(
    outputs: Arrays, batch: Arrays, name: str, *, divide_by_classes: bool = False) -> jax.Array:
  """`softmax_cross_entropy` of a network with a logit for every class, background included.

  Raises ValueError if it has a single logit, whose softmax is always 1; `name` is the loss.
  """
  logits = outputs['logits']
  if logits.shape[-1] == 1:
    raise ValueError(
        f'loss {name!r} expects a logit for every class, background included, got 1. Set '
        "config.model.num_classes to 2 or more or choose the loss 'bce_tv'.")
  return softmax_cross_entropy(logits, batch['label'], divide_by_classes=divide_by_classes)


def cross_entropy(outputs: Arrays, batch: Arrays, *, divide_by_classes: bool = False) -> Objective:
  """`softmax_cross_entropy` as an objective."""
  loss = class_cross_entropy(outputs, batch, 'cross_entropy', divide_by_classes=divide_by_classes)
  return loss, {'cross_entropy': loss}


def weighted_bce(outputs: Arrays, batch: Arrays, *, positive_weight: float) -> Objective:
  """`weighted_binary_cross_entropy` of one logit per pixel; every class above 0 is foreground."""
  logits, target = binary_logits(outputs, batch, 'weighted_bce')
  loss = weighted_binary_cross_entropy(logits, target, positive_weight)
  return loss, {'weighted_binary_cross_entropy': loss}
