"""Checkpoints: last and best, bitwise restore, and one line per thing that does not fit."""
import contextlib
import pathlib
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax import checkpoints, steps


class Net(nn.Module):
  features: int = 4

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(self.features, (3, 3), use_bias=False, name='conv')(image)
    x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    return {'logits': x}


def make_state(seed=0, features=4, ema=False):
  return steps.create_train_state(
      jax.random.key(seed), Net(features), optax.adam(1e-3), (1, 8, 8, 1), ema=ema)


def save(workdir, state, step, score=None):
  with contextlib.closing(checkpoints.create_manager(workdir)) as manager:
    checkpoints.save(manager, state.replace(step=jnp.int32(step)), config={'seed': 1},
                     dataset={'train': ['a']}, score=score)


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('ema', [False, True])
def test_restore_is_bitwise(tmp_path, ema):
  state = make_state(0, ema=ema)
  if ema:
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
  save(tmp_path, state, 7)
  with contextlib.closing(checkpoints.create_manager(tmp_path)) as manager:
    restored = checkpoints.restore_state(manager, make_state(1, ema=ema))
  assert_equal(restored, state.replace(step=jnp.int32(7)))


def test_the_last_two_and_the_best_are_kept_and_nothing_else(tmp_path):
  for step, score in ((1, 0.1), (2, 0.9), (3, 0.5), (4, 0.2)):
    save(tmp_path, make_state(step), step, score)
  save(tmp_path, make_state(5), 5, None)
  kept = sorted(p.name for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())
  assert kept == ['2', '4', '5']
  best, step = checkpoints.restore_variables(tmp_path, make_state().variables)
  assert step == 2
  assert_equal(best, make_state(2).variables)
  last, step = checkpoints.restore_variables(tmp_path, make_state().variables, which='last')
  assert step == 5
  assert_equal(last, make_state(5).variables)


def test_without_scores_the_best_is_the_last(tmp_path):
  save(tmp_path, make_state(1), 1)
  save(tmp_path, make_state(2), 2)
  assert checkpoints.restore_variables(tmp_path, make_state().variables)[1] == 2


def test_inference_takes_the_moving_average(tmp_path):
  state = make_state(0, ema=True)
  state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
  save(tmp_path, state, 1)
  variables, _ = checkpoints.restore_variables(tmp_path, make_state().variables)
  assert_equal(variables, state.ema)


def test_a_checkpoint_that_does_not_fit_is_explained_line_by_line(tmp_path):
  save(tmp_path, make_state(features=4), 1)
  with pytest.raises(ValueError) as error:
    checkpoints.restore_variables(tmp_path, make_state(features=6).variables)
  lines = str(error.value).splitlines()
  assert len(lines) == 1 + 5  # kernel, scale, bias, mean, var
  assert ('  variables/params/conv/kernel: float32[3,3,1,4] in the checkpoint, '
          'float32[3,3,1,6] in the model') in lines
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_state().variables)
  with pytest.raises(ValueError, match='float32.* in the checkpoint, bfloat16'):
    checkpoints.restore_variables(tmp_path, half)
  extra = {**make_state().variables, 'more': {'w': jnp.zeros(2)}}
  with pytest.raises(ValueError, match=r'more/w: missing in the checkpoint'):
    checkpoints.restore_variables(tmp_path, extra)


def test_missing_and_damaged_checkpoints_are_one_sentence(tmp_path):
  template = make_state().variables
  with pytest.raises(FileNotFoundError, match='has no complete checkpoint'):
    checkpoints.restore_variables(tmp_path, template)
  save(tmp_path, make_state(), 3)
  damaged = tmp_path / 'checkpoints' / '3' / 'variables'
  for file in [p for p in damaged.rglob('*') if p.is_file()]:
    file.write_bytes(file.read_bytes()[:10])
  with pytest.raises(ValueError, match='damaged or incomplete') as error:
    checkpoints.restore_variables(tmp_path, template)
  assert len(str(error.value).splitlines()) == 1
  shutil.rmtree(damaged)
  with pytest.raises(ValueError):
    checkpoints.restore_variables(tmp_path, template)


def test_a_failing_save_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
  save(tmp_path, make_state(1), 1)

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  with contextlib.closing(checkpoints.create_manager(tmp_path)) as manager:
    monkeypatch.setattr(manager, 'save', full)
    with pytest.raises(OSError, match='step 0 could not be written.*No space left'):
      checkpoints.save(manager, make_state(), config={}, dataset={}, score=None)
  assert checkpoints.restore_variables(tmp_path, make_state().variables)[1] == 1


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
  save(tmp_path, make_state(1), 1)
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
  with pytest.raises(OSError, match=r'step 2 could not be written .* MB are needed, 0 MB are free'):
    save(tmp_path, make_state(2), 2)
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['1']


def test_a_leftover_of_a_killed_save_is_ignored(tmp_path):
  save(tmp_path, make_state(1), 1)
  leftover = pathlib.Path(tmp_path) / 'checkpoints' / '2.orbax-checkpoint-tmp-1'
  leftover.mkdir()
  assert checkpoints.restore_variables(tmp_path, make_state().variables)[1] == 1
