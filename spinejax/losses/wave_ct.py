"""Objective of WaveCT: segmentation and reconstruction by a wavelet autoencoder."""
import jax.numpy as jnp

from spinejax.losses.cross_entropy import class_cross_entropy
from spinejax.losses.objective import Arrays, Objective


def wave_ct_loss(outputs: Arrays, batch: Arrays, *, reconstruction_weight: float = 1.0
                 ) -> Objective:
  """`CE + lambda mean((autoencoder(x) - x)^2)`: both halves of `models.wave_ct`.

  The halves share no parameters, so lambda (`reconstruction_weight`) only scales the gradient of
  the autoencoder. The network returns `reconstruction_residual` [N, H, W, C] in training only.
  """
  loss = class_cross_entropy(outputs, batch, 'wave_ct')
  parts = {'cross_entropy': loss}
  if 'reconstruction_residual' in outputs:
    parts['reconstruction'] = jnp.mean(
        jnp.square(outputs['reconstruction_residual']), axis=(1, 2, 3))
    loss += reconstruction_weight * parts['reconstruction']
  return loss, parts
