"""Every system learns the phantom: its loss falls, gradients stay finite, parameters move."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from spinejax import steps, train
from spinejax.models import cpu_kernels, resnet
from tests import tiny

# The loss after 30 steps at a constant rate, as a fraction of that of the first step. Systems that
# are left out differ from one of these in a part whose gradients have a test of their own.
SYSTEMS = {
    'rsn_unet:rsn': 0.8,
    'seam:ours': 0.8,
    'seam:unet': 0.8,
    'seam:ppmu': 0.8,
    'seam:emanet': 0.8,
    'sadanet:ours': 0.8,
    'sadanet:psanet': 0.8,
}
STEPS = 30


@pytest.mark.parametrize('name, fraction', SYSTEMS.items(), ids=SYSTEMS)
def test_a_system_learns_the_phantom(name, fraction, monkeypatch):
  # These compile in a third of the time: one block a stage, one device, one platform.
  monkeypatch.setitem(resnet.BACKBONES, 'tiny', ((1, 1, 1, 1), True))
  monkeypatch.setattr(steps, 'training_devices', lambda *_: jax.devices()[:1])
  monkeypatch.setattr(cpu_kernels, 'dispatch', lambda *, cpu, default: cpu)
  config = tiny.tiny_config(name, **{
      'num_steps': STEPS, 'data.num_validation': 0.0, 'data.num_train': 2.0,
      'data.patch_stride': (0, 0), 'data.patch_size': (64, 32), 'augment.rotation': 0.0,
      'optimizer.learning_rate': 1e-2, 'optimizer.schedule': 'constant'})
  if config.model.get('backbone'):
    config.model.backbone = 'tiny'
  setup = train.set_up(config, Console(quiet=True))
  state, losses = setup.state, []
  before = jax.device_get(state.params)
  for step in range(STEPS):
    batch = steps.join(setup.feed.batch_at(step), setup.mesh)
    state, metrics = setup.train_step(state, batch, setup.key)
    metrics = jax.device_get(metrics)
    assert all(np.isfinite(value) for value in metrics.values()), step
    losses.append(float(metrics['loss']))
  assert np.mean(losses[-5:]) < fraction * losses[0], losses
  _all_but_the_known_moved(before, jax.device_get(state.params))

  background = {key: jnp.zeros_like(value) if key in ('label', 'cells') else value
                for key, value in batch.items()}
  state, metrics = setup.train_step(state, background, setup.key)
  assert int(metrics['skipped']) == 0 and np.isfinite(metrics['grad_norm'])


def _all_but_the_known_moved(before, after) -> None:
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
  still = ['/'.join(key.key for key in path)
           for path, any_moved in jax.tree_util.tree_leaves_with_path(moved) if not any_moved]
  # Batch norm takes the bias before it away; EMANet's middle convolution is frozen.
  assert all(path.endswith('conv/bias') or 'ema_mid_conv' in path for path in still), still
