"""Schedules and optimizers against hand-computed values."""
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax import optimizers

BASE = dict(name='adam', learning_rate=0.1, schedule='constant', final_learning_rate=0.01,
            warmup_steps=0, weight_decay=0.0, gradient_clip=0.0)


def test_cosine_runs_from_peak_to_final():
  schedule = optimizers.create_schedule({**BASE, 'schedule': 'cosine'}, 100)
  np.testing.assert_allclose([schedule(0), schedule(50), schedule(100), schedule(500)],
                             [0.1, 0.055, 0.01, 0.01], rtol=1e-6)


def test_polynomial_and_warmup():
  schedule = optimizers.create_schedule(
      {**BASE, 'schedule': 'polynomial', 'final_learning_rate': 0.0, 'warmup_steps': 10}, 110)
  np.testing.assert_allclose([schedule(0), schedule(5), schedule(10), schedule(60), schedule(110)],
                             [0.0, 0.05, 0.1, 0.1 * 0.5 ** 0.9, 0.0], rtol=1e-5, atol=1e-9)


def test_warmup_longer_than_the_run_is_finite():
  schedule = optimizers.create_schedule({**BASE, 'schedule': 'cosine', 'warmup_steps': 50}, 10)
  assert np.isfinite([schedule(i) for i in range(60)]).all()


def one_step(gradient, weight=1.0, **fields):
  tx = optimizers.create_optimizer({**BASE, **fields}, 10)
  params = {'w': jnp.float32([weight])}
  updates, _ = tx.update({'w': jnp.float32([gradient])}, tx.init(params), params)
  return float(optax.apply_updates(params, updates)['w'][0])


def test_weight_decay_is_l2_in_the_gradient_for_adam():
  # The first step of Adam is the sign of its gradient: here of 0.5 - 1.0 * 1 and of 0.5.
  assert one_step(0.5, weight_decay=0.0) == pytest.approx(0.9, abs=1e-6)
  assert one_step(0.5, weight=-1.0, weight_decay=1.0) == pytest.approx(-0.9, abs=1e-6)
  # Decoupled: the sign of the gradient, and the weight times learning rate times decay.
  assert one_step(0.5, weight=-1.0, weight_decay=1.0, name='adamw') == pytest.approx(-1.0, abs=1e-6)


def test_sgd_and_gradient_clip():
  assert one_step(2.0, name='sgd') == pytest.approx(0.8)
  assert one_step(2.0, name='sgd', gradient_clip=0.5) == pytest.approx(0.95)


@pytest.mark.parametrize('gradients', [(2.0, -1.0), (1e-6, 3e-6), (0.0, 0.0)])
def test_rmsprop_by_hand(gradients):
  tx = optimizers.create_optimizer({**BASE, 'name': 'rmsprop', 'learning_rate': 1e-3}, 10)
  params = {'w': jnp.zeros(1)}
  state, w, v = tx.init(params), 0.0, 0.0
  for gradient in gradients:
    updates, state = tx.update({'w': jnp.float32([gradient])}, state, params)
    params = optax.apply_updates(params, updates)
    v = 0.9 * v + 0.1 * gradient ** 2
    w -= 1e-3 * gradient / (v ** 0.5 + 1e-7)  # at 1e-6 the 1e-7 counts, and were it in the root
  assert float(params['w'][0]) == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize('field, value', [('name', 'adamm'), ('schedule', 'step')])
def test_unknown_names_are_one_sentence(field, value):
  with pytest.raises(ValueError, match=f'config.optimizer.{field} must be one of .*{value}'):
    optimizers.create_optimizer({**BASE, field: value}, 10)


@pytest.mark.parametrize('name', ['adam', 'adamw', 'rmsprop', 'sgd'])
def test_frozen_modules_do_not_decay(name):
  tx = optimizers.create_optimizer({**BASE, 'name': name, 'weight_decay': 0.5}, 10)
  params = {'decode_head': {
      'ema_mid_conv': {'kernel': jnp.ones(3)}, 'other': {'kernel': jnp.ones(3)}}}
  updates, _ = tx.update({'decode_head': {
      'ema_mid_conv': {'kernel': jnp.zeros(3)}, 'other': {'kernel': jnp.zeros(3)}}},
      tx.init(params), params)
  assert not np.any(updates['decode_head']['ema_mid_conv']['kernel'])
  assert np.all(updates['decode_head']['other']['kernel'] < 0)
