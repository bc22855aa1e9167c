"""Total variation of a probability map."""
from typing import Literal

import jax
import jax.numpy as jnp

from spinejax.losses import objective

Normalization = Literal['terms', 'paper']


def total_variation(probs: jax.Array, *, normalization: Normalization = 'terms') -> jax.Array:
  """Mean squared difference of vertical plus that of horizontal neighbors.

  RSN-U-net (Huang et al., 2020, eq. 3): `sum (y[i,j] - y[i+1,j])^2 / V +
  sum (y[i,j] - y[i,j+1])^2 / Z`. There are (H-1)W vertical and H(W-1) horizontal differences, but
  the paper prints V = H(W-1) and Z = (H-1)W.

  Args:
    probs: float [N, H, W].
    normalization: 'terms' divides each sum by its own number of differences, which deviates from
      the paper. 'paper' divides as printed.

  Returns:
    float [N]. A direction of one pixel has no differences and adds 0.

  Raises:
    ValueError: on another `normalization`.
  """
  objective.check_choice('normalization', normalization, Normalization)
  _, height, width = probs.shape
  num_vertical, num_horizontal = (height - 1) * width, height * (width - 1)
  if normalization == 'paper':
    num_vertical, num_horizontal = num_horizontal, num_vertical
  vertical = jnp.sum(jnp.square(probs[:, 1:] - probs[:, :-1]), axis=(1, 2))
  horizontal = jnp.sum(jnp.square(probs[:, :, 1:] - probs[:, :, :-1]), axis=(1, 2))
  return vertical / max(num_vertical, 1) + horizontal / max(num_horizontal, 1)
