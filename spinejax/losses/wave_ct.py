"""Objective of WaveCT: segmentation and reconstruction by a wavelet autoencoder."""
import jax.numpy as jnp

from spinejax.losses.objective import Arrays, Objective, class_cross_entropy


def wave_ct_loss(outputs: Arrays, batch: Arrays, *, reconstruction_weight: float = 1.0
                 ) -> Objective:
  """`CE + lambda mean((autoencoder(x) - x)^2)`: both halves of `models.wave_ct`.

  The halves share no parameters, so lambda (`reconstruction_weight`) only scales the gradient of
  the autoencoder. The second term needs `outputs['reconstruction_residual']`, float [N, H, W, C],
  which the network returns in training only.
  """
  loss = class_cross_entropy(outputs, batch, 'wave_ct')
  parts = {'cross_entropy': loss}
  if 'reconstruction_residual' in outputs:
    parts['reconstruction'] = jnp.mean(
        jnp.square(outputs['reconstruction_residual']), axis=(1, 2, 3))
    loss += reconstruction_weight * parts['reconstruction']
  return loss, parts
