"""Total variation of a probability map."""
import jax
import jax.numpy as jnp


def total_variation(probs: jax.Array, *, normalization: str = 'terms') -> jax.Array:
  """Squared differences between vertical and between horizontal neighbors, each averaged.

  RSN-U-net (Huang et al., 2020, eq. 3): `sum (y[i,j] - y[i+1,j])^2 / V +
  sum (y[i,j] - y[i,j+1])^2 / Z`. There are (H-1)W vertical and H(W-1) horizontal differences,
  yet the paper prints V = H(W-1) and Z = (H-1)W.

  Args:
    probs: float [N, H, W].
    normalization: 'terms' divides each direction by its own number of differences (deviates
      from the print); 'paper' divides as printed.

  Returns:
    float [N]; a direction of one pixel has no differences and adds 0.

  Raises:
    ValueError: on another `normalization`.
  """
  _, height, width = probs.shape
  num_vertical, num_horizontal = (height - 1) * width, height * (width - 1)
  if normalization == 'paper':
    num_vertical, num_horizontal = num_horizontal, num_vertical
  elif normalization != 'terms':
    raise ValueError(
        f"total variation: normalization must be 'terms' or 'paper', got {normalization!r}")
  vertical = jnp.sum(jnp.square(probs[:, 1:] - probs[:, :-1]), axis=(1, 2))
  horizontal = jnp.sum(jnp.square(probs[:, :, 1:] - probs[:, :, :-1]), axis=(1, 2))
  return vertical / max(num_vertical, 1) + horizontal / max(num_horizontal, 1)
