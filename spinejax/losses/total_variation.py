"""RSN-U-net's objective: a cross entropy plus the total variation of the prediction."""
from typing import Literal

import jax
import jax.numpy as jnp

from spinejax.losses import cross_entropy
from spinejax.losses.objective import Arrays, Objective, binary_logits, check_choice

Normalization = Literal['terms', 'paper']


def total_variation(probs: jax.Array, *, normalization: Normalization = 'terms') -> jax.Array:
  """Mean squared difference of vertical plus that of horizontal neighbors: [N, H, W] -> [N].

  RSN-U-net (Huang et al., 2020, eq. 3): `sum (y[i,j] - y[i+1,j])^2 / V +
  sum (y[i,j] - y[i,j+1])^2 / Z`. There are (H-1)W vertical and H(W-1) horizontal differences, but
  the paper prints V = H(W-1) and Z = (H-1)W. The `normalization` 'terms' divides each sum by its
  own number of differences, which deviates from the paper; 'paper' divides as printed; ValueError
  on another one. A direction of one pixel adds 0.
  """
  check_choice('normalization', normalization, Normalization)
  _, height, width = probs.shape
  num_vertical, num_horizontal = (height - 1) * width, height * (width - 1)
  if normalization == 'paper':
    num_vertical, num_horizontal = num_horizontal, num_vertical
  vertical = jnp.sum(jnp.square(probs[:, 1:] - probs[:, :-1]), axis=(1, 2))
  horizontal = jnp.sum(jnp.square(probs[:, :, 1:] - probs[:, :, :-1]), axis=(1, 2))
  return vertical / max(num_vertical, 1) + horizontal / max(num_horizontal, 1)


def bce_tv(outputs: Arrays, batch: Arrays, *, tv_weight: float = 0.4,
           normalization: Normalization = 'terms') -> Objective:
  """`BCE + lambda TV` of one logit per pixel: RSN-U-net (Huang et al., 2020, eq. 1).

  lambda is `tv_weight`; 0 trains a plain U-Net. Every class above 0 is foreground. The total
  variation is that of the probabilities.
  """
  logits, target = binary_logits(outputs, batch, 'bce_tv')
  parts = {
      'binary_cross_entropy': cross_entropy.binary_cross_entropy(logits, target),
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
      'cross_entropy': cross_entropy.class_cross_entropy(outputs, batch, 'cross_entropy_tv'),
      'total_variation': jnp.mean(variation.reshape(maps.shape[:2]), 1),
  }
  return parts['cross_entropy'] + tv_weight * parts['total_variation'], parts
