"""Small networks, random arrays and comparisons, shared by the tests of networks."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from spinejax.models import attention

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
RNGS = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}

PYRAMID = dict(num_classes=4, backbone='shallow', backbone_width=4, neck_features=8,
               head_features=8)
DILATED = dict(num_classes=4, backbone='shallow', backbone_width=4, head_features=8,
               auxiliary_features=8)
SMALL = {
    'ccnet': dict(DILATED, name='ccnet', query_features=4),
    'danet': dict(DILATED, name='danet', query_features=4),
    'emanet': dict(DILATED, name='emanet', ema_features=8, num_bases=4),
    'fpn': dict(PYRAMID, name='fpn'),
    'nonlocal': dict(DILATED, name='nonlocal'),
    'ppmu': dict(name='ppmu', num_classes=4, features=4),
    'psanet': dict(DILATED, name='psanet', mask_size=(5, 7)),
    'sadanet': dict(DILATED, name='sadanet', query_features=4),
    'seam': dict(PYRAMID, name='seam', query_features=4),
    'unet': dict(name='unet', num_classes=4, features=4, levels=2),
    'unet_s5d16': dict(name='unet_s5d16', num_classes=4, features=4),
    'wave_ct': dict(PYRAMID, name='wave_ct', autoencoder_features=4),
    'xception_unet': dict(name='xception_unet', num_classes=4, features=4),
}
# Ablations.
SMALL['wide'] = dict(SMALL['sadanet'], wide=True)
SMALL['wo_sca'] = dict(SMALL['sadanet'], spatial='position', channel='danet', branch_losses=True)
SMALL['wo_saa'] = dict(SMALL['sadanet'], affinity=False)
SMALL['wo_al'] = dict(SMALL['seam'], attention=False)


def random(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def init(model, shape):
  """Variables of training for images [1,*S,C]."""
  return jax.jit(lambda: model.init(RNGS, jnp.zeros(shape), train=True))()


def shapes(model, shape, train=True):
  """Shapes of outputs and variables."""
  return jax.eval_shape(lambda: model.init_with_output(RNGS, jnp.zeros(shape), train=train))


def nhwc(array):
  return jnp.asarray(np.moveaxis(array, 1, -1))


def nchw(array):
  return np.moveaxis(np.asarray(array), -1, 1)


def assert_within(actual, expected, tolerance):
  """Largest difference at most `tolerance` of the largest magnitude."""
  assert actual.shape == expected.shape
  assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def assert_same_function(f, g, *args, values=2e-5, gradients=1e-4):
  """Equal values and equal gradients of a random projection."""
  cotangent = random(*jax.eval_shape(f, *args).shape, seed=9)

  def values_and_gradients(function):
    y, pullback = jax.vjp(function, *args)
    return y, pullback(cotangent)

  (y, pulled), (z, expected) = jax.jit(
      lambda: (values_and_gradients(f), values_and_gradients(g)))()
  np.testing.assert_allclose(y, z, rtol=values, atol=values)
  for a, b in zip(pulled, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=gradients, atol=gradients)


def psa_affinity(mask, mask_size, direction):
  """All affinities [N,HW,HW] of point-wise attention, targets first: mask [N,H,W,mh*mw]."""
  n, height, width, _ = mask.shape
  windows = mask.reshape(n, height, width, *mask_size)
  rows = [attention.affinity_of_row(windows, jnp.int32(row), direction == 'collect')
          for row in range(height)]
  return jnp.concatenate(rows, 1)
