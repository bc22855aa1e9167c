"""The examples of CONTRIBUTING.md run, and what they add is found by name and works."""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spinejax import losses, models, optimizers, steps
from spinejax.data import batches, datasets
from tests import tiny

TEXT = (tiny.ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
EXAMPLES = dict(zip(('model', 'loss', 'dataset'), re.findall(r'```python\n(.*?)```', TEXT, re.S)))


@pytest.fixture(autouse=True)
def entries():
  """After each test the dicts are as they were."""
  tables = models.MODELS, losses.LOSSES, datasets.DATASETS
  before = [dict(table) for table in tables]
  yield
  for table, entries in zip(tables, before):
    table.clear()
    table.update(entries)


def keep(key, batch):
  return batch


def run(name: str) -> None:
  exec(compile(EXAMPLES[name], f'CONTRIBUTING.md ({name})', 'exec'), {'__name__': 'example'})


def test_one_page_of_three_examples():
  assert len(re.findall('```python', TEXT)) == len(EXAMPLES) == 3
  assert len(TEXT.splitlines()) <= 120 and max(map(len, TEXT.splitlines())) <= 100


def test_the_model_trains_a_step():
  run('model')
  model = models.create_model({'name': 'plain', 'num_classes': 1, 'features': 4, 'depth': 1})
  tx = optimizers.create_optimizer(
      {'name': 'sgd', 'learning_rate': 0.1, 'schedule': 'constant', 'warmup_steps': 0,
       'final_learning_rate': 0.0, 'weight_decay': 0.0, 'gradient_clip': 0.0}, 2)
  image = jax.random.normal(jax.random.key(0), (2, 8, 6, 1))
  batch = {'image': image, 'label': (image[..., 0] > 0).astype(jnp.int32)}
  state = steps.create_train_state(jax.random.key(1), model, tx, image.shape)
  assert sum(x.size for x in jax.tree.leaves(state.params)) == 9 * 4 + 2 * 4 + 4 + 1
  step = jax.jit(functools.partial(
      steps.train_step, model=model, tx=tx, loss_fn=losses.create_loss({'name': 'bce_tv'}),
      augment_fn=keep))
  after, first = step(state, batch, jax.random.key(2))
  for _ in range(5):
    after, last = step(after, batch, jax.random.key(2))
  assert int(after.step) == 6 and int(last['skipped']) == 0
  assert float(last['loss']) < float(first['loss'])


def test_the_loss_by_hand_and_its_gradients():
  run('loss')
  logits = jnp.log(jnp.array([[[[0.75, 0.25], [0.5, 0.5]]]], jnp.float32))
  batch = {'label': jnp.array([[[0, 1]]], jnp.int32)}
  loss, parts = losses.create_loss({'name': 'focal'})({'logits': logits}, batch)
  np.testing.assert_allclose(
      loss, [-(0.25 ** 2 * np.log(0.75) + 0.5 ** 2 * np.log(0.5)) / 2], rtol=1e-5)
  np.testing.assert_array_equal(parts['focal'], loss)
  plain, _ = losses.create_loss({'name': 'focal', 'gamma': 0.0})({'logits': logits}, batch)
  expected, _ = losses.LOSSES['cross_entropy']({'logits': logits}, batch)
  np.testing.assert_allclose(plain, expected, rtol=1e-6)
  for scale in (1.0, 100.0):  # at 100 one pixel is certainly right and one certainly wrong
    certain = scale * jnp.array([[[[1.0, -1.0], [1.0, -1.0]]]], jnp.float32)
    objective = losses.create_loss({'name': 'focal'})
    slope = jax.grad(lambda logits: objective({'logits': logits}, batch)[0].sum())(certain)
    assert np.isfinite(slope).all() and float(optax.tree.norm(slope)) > 0
  with pytest.raises(ValueError, match='focal.*no argument alpha'):
    losses.create_loss({'name': 'focal', 'alpha': 1.0})


def test_the_dataset_is_split_by_patient_and_batched(tmp_path):
  run('dataset')
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 16, 8), dtype=np.uint8)
  np.savez(tmp_path / 'cases.npz', image=images, label=(images > 127).astype(np.uint8),
           patient=['anna', 'anna', 'bert'])
  config = tiny.tiny_config('rsn_unet:quick', **{
      'data.name': 'npz', 'data.directory': str(tmp_path), 'data.label_map': (),
      'data.num_train': 0.0, 'data.num_validation': 0.0, 'data.num_test': 1.0,
      'data.image_size': (16, 8), 'data.patch_size': (8, 8)})
  sources = datasets.load_dataset(config.data)
  assert sorted(map(len, sources.values())) == [0, 1, 2]
  assert not set(sources['train'].patients) & set(sources['test'].patients)
  batch = batches.create_feed(sources['train'], config).batch_at(0)
  held = {case: images[i] for i, case in enumerate(('case_0', 'case_1', 'case_2'))}
  originals = [held[name] for name in sources['train'].names]
  for image, label in zip(np.asarray(batch['image']), np.asarray(batch['label'])):
    assert any(np.array_equal(image[..., 0], original) for original in originals)
    np.testing.assert_array_equal(label, image[..., 0] > 127)
