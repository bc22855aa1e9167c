"""The cross entropies as training objectives."""
from spinejax.losses import pixel
from spinejax.losses.objective import Arrays, Objective, binary_logits, class_cross_entropy


def cross_entropy(outputs: Arrays, batch: Arrays, *, divide_by_classes: bool = False) -> Objective:
  """Softmax cross entropy: SEAM (Zhao et al., 2021, eq. 8).

  `divide_by_classes` is explained in `pixel.softmax_cross_entropy`.
  """
  loss = class_cross_entropy(outputs, batch, 'cross_entropy', divide_by_classes=divide_by_classes)
  return loss, {'cross_entropy': loss}


def weighted_bce(outputs: Arrays, batch: Arrays, *, positive_weight: float) -> Objective:
  """Weighted binary cross entropy of one logit per pixel: B-U-net (C-U-net, Wong et al., 2021).

  Every class above 0 is foreground. `pixel.balanced_positive_weight` suggests a weight.
  """
  logits, target = binary_logits(outputs, batch, 'weighted_bce')
  loss = pixel.weighted_binary_cross_entropy(logits, target, positive_weight)
  return loss, {'weighted_binary_cross_entropy': loss}
