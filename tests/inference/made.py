"""Run folders with random weights, which need no training."""
import jax
import jax.numpy as jnp
import optax
import pytest

from spinejax import checkpoints
from spinejax import runs
from spinejax import steps
from spinejax.models import create_model
from tests import tiny


def write_run(workdir, name, size, **overrides):
  """Writes a run whose weights are spread enough to give sharp answers."""
  config = tiny.tiny_config(name, **{
      'data.image_size': size, 'data.patch_size': size, 'data.render_size': size,
      'eval_batch_size': 1, **overrides})
  model, key = create_model(config.model), jax.random.key(0)
  state = steps.create_train_state(
      key, model, optax.sgd(0.1), (1, *size, config.data.channels))
  leaves, tree = jax.tree.flatten(state.params)
  noise = [x + 0.2 * jax.random.normal(jax.random.fold_in(key, i), x.shape)
           for i, x in enumerate(leaves)]
  state = state.replace(params=jax.tree.unflatten(tree, noise), step=jnp.int32(7))
  info = {'mean': [100.0], 'std': [50.0]}
  runs.claim(workdir, 'config', config)
  runs.claim(workdir, 'dataset', info)
  manager = checkpoints.create_manager(str(workdir))
  checkpoints.save(manager, state, config=config.to_dict(), dataset=info, score=None)
  manager.close()


@pytest.fixture(scope='session')
def image_run(tmp_path_factory):
  """Folder of a run on images of 64 x 40 pixels, two at a time."""
  folder = tmp_path_factory.mktemp('image_run')
  write_run(folder, 'rsn_unet:quick', (64, 40), **{
      'model.levels': 1, 'eval_batch_size': 2, 'evaluation.resize': 'logits'})
  return str(folder)


@pytest.fixture(scope='session')
def volume_run(tmp_path_factory):
  """Folder of a run on volumes of 48 x 16 x 8 voxels."""
  folder = tmp_path_factory.mktemp('volume_run')
  write_run(folder, 'c_unet:centroid', (48, 16, 8), **{
      'model.levels': 1, 'data.preparation': ('rescale', 'z_score')})
  return str(folder)
