"""Steps: one device equals two, both data-parallel forms agree, a NaN leaves no trace."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax import devices as devices_lib
from spinejax import losses, optimizers, steps
from spinejax.models.unet import UNet

LOSS = losses.create_loss({'name': 'cross_entropy'})


class Net(nn.Module):
  """A convolution, batch norm over the global batch and a classifier of three classes."""
  axis_name: str | None = None

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(4, (3, 3), use_bias=False)(image)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x))
    return {'logits': nn.Conv(3, (1, 1))(x)}


def identity_augment(key, batch):
  del key
  return batch


def make_batch(n=4, seed=0):
  rng = np.random.default_rng(seed)
  return {'image': rng.normal(size=(n, 8, 8, 1)).astype(np.float32),
          'label': rng.integers(0, 3, (n, 8, 8)).astype(np.int32)}


@functools.cache
def initial_state(ema):
  return jax.device_get(steps.create_train_state(
      jax.random.key(0), Net(), optax.sgd(0.1), (1, 8, 8, 1), ema=ema))


def make_state(tx, ema=False):
  state = jax.tree.map(jnp.asarray, initial_state(ema))
  return state.replace(opt_state=tx.init(state.params))


def run(data_parallel='mesh', devices=None, num_steps=2, batch=None, tx=None, ema=0.0):
  batch, tx = batch or make_batch(), tx or optax.sgd(0.1)
  mesh = steps.create_mesh(len(batch['label']), devices=devices)
  step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=Net(), loss_fn=LOSS, tx=tx, augment_fn=identity_augment,
      ema_decay=ema), mesh, data_parallel)
  state, history = make_state(tx, ema > 0), []
  for _ in range(num_steps):
    state, metrics = step(state, batch, jax.random.key(1))
    history.append(jax.device_get(metrics))
  return jax.device_get(state), history


@functools.cache
def volume_step(batch_size, size, form, num_devices, loss):
  """State and metrics after a step of a 3-D U-Net on random volumes; the second one is empty."""
  rng = np.random.default_rng(0)
  batch = {'image': rng.normal(size=(batch_size, *size, 1)).astype(np.float32),
           'label': (rng.random((batch_size, *size)) < 0.02).astype(np.int32)}
  batch['label'][1:2] = 0
  net = UNet(1, features=2, levels=1, upsample='nearest', dropout=0.1 if batch_size == 1 else 0.0)
  tx = optax.sgd(0.1)
  mesh = steps.create_mesh(batch_size, size if form == 'mesh' else (), jax.devices()[:num_devices])
  step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=net, loss_fn=losses.create_loss({'name': loss}), tx=tx,
      augment_fn=identity_augment), mesh, form)
  state = steps.create_train_state(jax.random.key(0), net, tx, (1, *size, 1))
  return jax.device_get(step(state, batch, jax.random.key(1)))


def assert_close(a, b, tolerance=2e-6):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_two_devices_equal_one_in_both_forms():
  one, one_metrics = run(devices=jax.devices()[:1])
  assert len(jax.devices()) == 2
  for form in ('mesh', 'pmap'):
    two, metrics = run(form)
    assert_close(one, two)
    assert_close(one_metrics, metrics)


@pytest.mark.parametrize('size, loss', [
    ((12, 6, 4), 'centroid'), ((6, 5, 3), 'dice')])  # at the last three planes on two devices
def test_a_volume_shared_by_two_devices_is_that_of_one(size, loss):
  assert steps.create_mesh(1, size).shape == {'data': 1, 'space': 2}
  assert_close(volume_step(1, size, 'mesh', 1, loss), volume_step(1, size, 'mesh', 2, loss), 1e-5)


@pytest.mark.parametrize('form', ['mesh', 'pmap'])
def test_a_batch_of_volumes_is_the_same_in_both_forms(form):
  size = (6, 6, 4)
  assert steps.create_mesh(2, size).shape == {'data': 2, 'space': 1}
  one = volume_step(2, size, 'mesh', 1, 'centroid')
  assert_close(one, volume_step(2, size, form, 2, 'centroid'), 1e-5)


def test_an_unknown_form_is_one_sentence():
  with pytest.raises(ValueError, match="data_parallel must be 'mesh' or 'pmap', not 'ddp'"):
    run('ddp')


def test_the_gradient_step_is_that_of_the_mean_loss():
  state, metrics = run(num_steps=1)
  before = make_state(optax.sgd(0.1))
  batch = make_batch()

  def objective(params):
    outputs, _ = Net().apply({'params': params, 'batch_stats': before.batch_stats}, batch['image'],
                             train=True, mutable=['batch_stats'])
    return jnp.mean(LOSS(outputs, batch)[0])

  loss, grads = jax.value_and_grad(objective)(before.params)
  assert_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, before.params, grads))
  assert metrics[0]['loss'] == pytest.approx(float(loss), rel=1e-6)
  assert metrics[0]['grad_norm'] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-5)


@pytest.mark.parametrize('form', ['mesh', 'pmap'])
def test_a_nan_changes_nothing_but_the_counters(form):
  bad = make_batch()
  bad['image'][0, 0, 0, 0] = np.nan
  tx = optimizers.create_optimizer({
      'name': 'adam', 'learning_rate': 0.1, 'schedule': 'constant', 'final_learning_rate': 0.0,
      'warmup_steps': 0, 'weight_decay': 1e-6, 'gradient_clip': 0.0}, 10)
  state, metrics = run(form, batch=bad, tx=tx, ema=0.5, num_steps=3)
  before = jax.device_get(make_state(tx, ema=True))
  for name in ('params', 'batch_stats', 'opt_state', 'ema'):
    jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(before, name))
  assert int(state.step) == 3
  assert [int(m['skipped']) for m in metrics] == [1, 2, 3]


def test_skips_are_counted_in_a_row():
  good, bad = make_batch(), make_batch()
  bad['image'][:] = np.inf
  mesh = steps.create_mesh(4)
  step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=Net(), loss_fn=LOSS, tx=optax.sgd(0.1),
      augment_fn=identity_augment), mesh, 'mesh')
  state, skipped = make_state(optax.sgd(0.1)), []
  for batch in (bad, bad, good, bad):
    state, metrics = step(state, batch, jax.random.key(1))
    skipped.append(int(metrics['skipped']))
  assert skipped == [1, 2, 0, 1]


def test_moving_average_by_hand():
  start = jax.device_get(make_state(optax.sgd(0.1)).params)
  state, _ = run(num_steps=1, ema=0.9)
  assert_close(state.ema['params'],
               jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, start, state.params))
  assert state.variables is state.ema
  assert run(num_steps=1)[0].ema is None


@pytest.mark.parametrize('batch, size, expected', [
    (4, (), (2, 1)), (3, (), (1, 1)), (1, (64, 64), (1, 1)), (12, (8, 8), (2, 1)),
    (1, (8, 4, 4), (1, 2)), (1, (7, 4, 4), (1, 1)), (2, (8, 4, 4), (2, 1)), (3, (8, 4, 4), (1, 2))])
def test_the_mesh_takes_devices_for_the_batch_and_then_for_the_planes(batch, size, expected):
  assert steps.create_mesh(batch, size).devices.shape == expected


def test_evaluation_ignores_padding():
  variables = make_state(optax.sgd(0.1)).variables
  batch = make_batch(4)
  step = functools.partial(steps.eval_step, model=Net(), loss_fn=LOSS, num_classes=3,
                           normalize_fn=lambda image: image)
  compiled = steps.parallelize_eval_step(step, steps.create_mesh(4))
  full = compiled(variables, {**batch, 'valid': np.ones(4, np.float32)})
  batch['image'][3] = np.nan
  padded = compiled(variables, {**batch, 'valid': np.float32([1, 1, 1, 0])})
  assert not padded['counts'][3].any() and padded['loss'][3] == 0
  np.testing.assert_array_equal(padded['counts'][:3], full['counts'][:3])
  np.testing.assert_allclose(padded['loss'][:3], full['loss'][:3], rtol=1e-6)
  assert full['counts'].sum() - full['counts'][:, :, 1].sum() == 4 * 64


def test_virtual_devices_are_used_where_they_pay(monkeypatch):
  """A network of few operations for its parameters trains on one; a user's own number is kept."""
  narrow, wide = (2, 8, 8, 1), (2, 256, 256, 1)
  model = UNet(num_classes=1, features=4, levels=2)
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '2')
  assert len(steps.training_devices(model, narrow)) == 2
  monkeypatch.setattr(devices_lib, 'user_set_number', lambda: False)
  assert len(steps.training_devices(model, narrow)) == 1
  assert len(steps.training_devices(model, wide)) == 2
