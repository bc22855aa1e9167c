"""RSN-U-net's objective: a cross entropy plus the total variation of the prediction."""
import jax
import jax.numpy as jnp

from spinejax.losses import pixel
from spinejax.losses.objective import Arrays, Objective, binary_logits, class_cross_entropy
from spinejax.losses.total_variation import Normalization, total_variation


def bce_tv(outputs: Arrays, batch: Arrays, *, tv_weight: float = 0.4,
           normalization: Normalization = 'terms') -> Objective:
  """`BCE + lambda TV` of one logit per pixel: RSN-U-net (Huang et al., 2020, eq. 1).

  Every class above 0 is foreground. The total variation is that of the probabilities.

  Args:
    outputs, batch: see `objective`.
    tv_weight: lambda; 0 trains a plain U-Net.
    normalization: see `total_variation`.
  """
  logits, target = binary_logits(outputs, batch, 'bce_tv')
  parts = {
      'binary_cross_entropy': pixel.binary_cross_entropy(logits, target),
      'total_variation': total_variation(jax.nn.sigmoid(logits), normalization=normalization),
  }
  return parts['binary_cross_entropy'] + tv_weight * parts['total_variation'], parts


def cross_entropy_tv(outputs: Arrays, batch: Arrays, *, tv_weight: float = 0.4,
                     normalization: Normalization = 'terms') -> Objective:
  """`CE + lambda TV`: `bce_tv` for several classes.

  The total variation is the mean over the probability maps of all classes, background included.
  For two classes it equals that of `bce_tv`. This extension is ours: SEAM and SADANet compare with
  RSN-U-net on four classes and do not say how.
  """
  maps = jnp.moveaxis(jax.nn.softmax(outputs['logits']), -1, 1)
  variation = total_variation(maps.reshape(-1, *maps.shape[2:]), normalization=normalization)
  parts = {
      'cross_entropy': class_cross_entropy(outputs, batch, 'cross_entropy_tv'),
      'total_variation': jnp.mean(variation.reshape(maps.shape[:2]), 1),
  }
  return parts['cross_entropy'] + tv_weight * parts['total_variation'], parts
