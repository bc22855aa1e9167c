"""Keras' Xception-style U-Net: counts, a PyTorch reference padded as TensorFlow, learning."""
from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax import optimizers
from spinejax.models import pretrained
from spinejax.models import xception_unet
from tests.models.arrays import GOLDEN, assert_within, init, random

SMALL = dict(name='xception_unet', num_classes=3, features=4, levels=1)


def apply(model, variables, image, train=False):
  """Logits and updated statistics."""
  outputs, updated = model.apply(variables, image, train=train, mutable=['batch_stats'])
  return outputs['logits'], updated['batch_stats']


@pytest.mark.parametrize('num_classes, in_keras', [(4, 2_059_268), (3, 2_058_979)])
def test_parameter_counts_are_those_of_keras(num_classes, in_keras):
  model = models.create_model({'name': 'xception_unet', 'num_classes': num_classes})
  variables = jax.eval_shape(
      lambda: model.init(jax.random.key(0), jnp.zeros((1, 160, 160, 3)), train=True))
  params, statistics = (sum(x.size for x in jax.tree.leaves(variables[name]))
                        for name in ('params', 'batch_stats'))
  assert statistics == 3_776
  assert params + statistics == in_keras


def flip_transposed(arrays):
  """Kernels [in,out,*window] of the decoder's transposed convolutions, as of convolutions."""
  return {name: np.flip(x.swapaxes(0, 1), (2, 3))
          if name.startswith('decoder') and name.endswith('conv.weight') else x
          for name, x in arrays.items()}


def test_evaluation_training_statistics_and_gradients_of_the_reference():
  reference = dict(np.load(GOLDEN / 'xception_unet.npz'))
  named = lambda prefix: flip_transposed(
      {name[2:]: x for name, x in reference.items() if name.startswith(prefix)})
  x, y, t, r, gx = (np.moveaxis(reference[name], 1, -1) for name in ('x0', 'y0', 't0', 'r0', 'gx0'))
  model = xception_unet.XceptionUNet(4, features=3, levels=2)
  template = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=True))
  variables = pretrained.initialize(template, named('w/'), ('',))

  evaluated = jax.jit(lambda x: apply(model, variables, x)[0])(x)
  trained, gradient, statistics = jax.jit(lambda x, r: (
      lambda y, pullback, statistics: (y, pullback(r)[0], statistics))(
          *jax.vjp(lambda x: apply(model, variables, x, True), x, has_aux=True)))(x, r)
  assert_within(evaluated, y, 1e-5)
  assert_within(trained, t, 1e-4)
  assert_within(gradient, gx, 1e-3)
  expected = pretrained.initialize(
      {'batch_stats': template['batch_stats']}, named('s/'), ('',))
  jax.tree.map(lambda actual, expected: assert_within(actual, expected, 1e-5), statistics,
               expected['batch_stats'])


def test_running_statistics_by_hand():
  module = xception_unet.ConvNorm(1)
  x = random(1, 2, 3, 1)
  variables = module.init(jax.random.key(0), x, train=True)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(2.0)
  params = {'conv': {'kernel': kernel, 'bias': jnp.float32([5])}, 'bn': variables['params']['bn']}
  y, updated = module.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
  z = 2 * np.asarray(x, np.float64) + 5
  np.testing.assert_allclose(y, (z - z.mean()) / np.sqrt(z.var() + 1e-3), rtol=1e-5, atol=1e-5)
  found = updated['batch_stats']['bn']
  np.testing.assert_allclose(found['mean'], [0.01 * z.mean()], rtol=1e-5)
  np.testing.assert_allclose(found['var'], [0.99 + 0.01 * z.var()], rtol=1e-6)  # over n, not n - 1


def test_initialization_is_glorot_uniform():
  model = xception_unet.XceptionUNet(3, features=16, levels=1)
  params = traverse_util.flatten_dict(init(model, (1, 4, 4, 3))['params'], sep='/')
  # Keras' fans of a depthwise kernel [3,3,C,1] are 9 C and 9.
  for name, fans in {'entry/conv/kernel': 9 * (3 + 16), 'classifier/kernel': 9 * (16 + 3),
                     'encoder_1_2/conv/depthwise/kernel': 9 * (32 + 1),
                     'encoder_1_2/conv/pointwise/kernel': 32 + 32,
                     'decoder_1_1/conv/kernel': 9 * (32 + 32),
                     'decoder_0_residual/kernel': 32 + 16}.items():
    limit, largest = (6 / fans) ** 0.5, np.abs(params[name]).max()
    assert 0.95 * limit < largest <= limit
    assert abs(np.std(params[name]) / limit - 3 ** -0.5) < 0.06
  assert not any(np.any(x) for name, x in params.items() if name.endswith('bias'))


def test_it_learns_a_bright_band_from_gray_levels():
  """With the optimizer of the paper and images of 0 to 255."""
  rows = jnp.arange(24)[None, :, None]
  middle = jnp.array([8, 14, 11, 6])[:, None, None]
  label = jnp.broadcast_to((jnp.abs(rows - middle) < 3).astype(jnp.int32), (4, 24, 16))
  image = 90.0 + 60.0 * label[..., None].astype(jnp.float32) + 25.0 * random(4, 24, 16, 1)
  model = models.create_model(dict(SMALL, num_classes=2))
  variables = init(model, image.shape)
  tx = optimizers.create_optimizer(dict(
      name='rmsprop', learning_rate=3e-3, schedule='constant', final_learning_rate=0.0,
      warmup_steps=0, weight_decay=0.0, gradient_clip=0.0), 60)

  def step(state, _):
    params, opt_state = state

    def objective(params):
      logits, _ = apply(model, {**variables, 'params': params}, image, True)
      loss = -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(label, 2), -1))
      return loss, jnp.mean((jnp.argmax(logits, -1) == label).astype(jnp.float32))

    (loss, accuracy), grads = jax.value_and_grad(objective, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = jax.tree.map(jnp.add, params, updates)
    return (params, opt_state), (loss, accuracy)

  params = variables['params']
  _, (loss, accuracy) = jax.jit(lambda state: lax.scan(step, state, length=60))(
      (params, tx.init(params)))
  assert np.isfinite(loss).all() and loss[-1] < 0.2 * loss[0]
  assert accuracy[-1] > 0.97
