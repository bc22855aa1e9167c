"""Maps of attention: where a pixel attends, against dense matrices, and the maps of a whole run."""
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax.inference import maps, restore
from spinejax.models import attention, resnet
from spinejax.report import maps as pictures
from tests.inference import made

SIZE = (4, 3)
CLASSES = ('background', 'rib', 'process', 'lump')


def sown(module, x, **mode):
  variables = module.init(jax.random.key(1), x, **mode)
  _, found = module.apply(variables, x, mutable=['intermediates'], **mode)
  return {name: jax.tree.map(lambda x: x[0] if np.ndim(x) else x, value)
          for name, value in found['intermediates'].items() if isinstance(value, tuple)}


def positions(found, place, **fields):
  model = types.SimpleNamespace(output_stride=2, **fields)
  return maps._positions(found, model, [2 * n for n in SIZE], place)


@pytest.fixture(name='x')
def features():
  return 3 * jax.random.normal(jax.random.key(0), (1, *SIZE, 6))


def test_two_criss_cross_passes_are_a_product_of_matrices():
  height, width = SIZE
  random = np.random.default_rng(0)
  passes = random.dirichlet(np.ones(height + width), (2, *SIZE)).astype(np.float32)
  dense = np.zeros((2, *SIZE, *SIZE))
  for n, i, j in np.ndindex(2, *SIZE):
    dense[n, i, j, :, j] += passes[n, i, j, :height]
    dense[n, i, j, i] += passes[n, i, j, height:]
  first, second = dense.reshape(2, 12, 12)
  found = positions({'criss_cross': tuple(passes)}, (5, 2))  # row 2, column 1 at stride 2
  np.testing.assert_allclose(found.ravel(), (second @ first)[2 * 3 + 1], rtol=1e-5)


@pytest.mark.parametrize('module, mode', [
    (attention.PositionAttention(2), {}), (attention.NonLocal(), {'train': False})])
def test_positions_are_what_attention_makes_of_one_hot_values(x, module, mode):
  found = sown(module, x, **mode)
  query, key, scale = (*found['position'][0], 1.0)[:3]
  dense = attention.attend(query[None], key[None], jnp.eye(12)[None], scale=scale)[0]
  np.testing.assert_allclose(positions(found, (5, 2)).ravel(), dense[7], rtol=1e-4, atol=1e-7)


def test_positions_of_bases_rebuild_a_pixel_up_to_the_length_of_the_bases(x):
  module = attention.ExpectationMaximization(num_bases=1)
  found = positions(sown(module, x, train=False), (0, 0))
  y = module.apply(module.init(jax.random.key(1), x, train=False), x, train=False)[0, 0, 0]
  seen = jnp.einsum('hw,hwc->c', found, x[0])
  np.testing.assert_allclose(y, seen / jnp.linalg.norm(seen), rtol=1e-4, atol=1e-5)


def test_positions_of_point_wise_attention_are_the_mean_of_both_directions():
  mask = jax.random.normal(jax.random.key(0), (1, *SIZE, 15))
  eye = jnp.eye(12).reshape(1, *SIZE, 12)
  dense = [attention.psa_attend(mask, eye, (5, 3), direction)[0, 2, 1]
           for direction in ('collect', 'distribute')]
  found = {'collect': (mask[0],), 'distribute': (mask[0],)}
  np.testing.assert_allclose(positions(found, (5, 2), mask_size=(5, 3)).ravel(),
                             sum(dense) / 2, rtol=1e-5)


def test_the_farthest_bone():
  mask = np.zeros((20, 10), int)
  assert maps.farthest_bone(mask) == (10, 5)
  mask[2:5, 2:5] = 1
  mask[9:12, 4:7] = 2
  assert maps.farthest_bone(mask) == (3, 3)
  mask[19, 9] = 1  # a speck
  assert maps.farthest_bone(mask) == (3, 3)
  mask[2:5, 2:5] = 0
  mask[0:5, 0:5] = 3
  mask[1:4, 1:4] = 0  # a ring, whose center is background
  assert mask[maps.farthest_bone(mask)] == 3


def test_maps_of_a_run(tmp_path, monkeypatch):
  monkeypatch.setitem(resnet.BACKBONES, 'resnet50_v1c', ((1, 1, 1, 1), True))
  made.write_run(tmp_path, 'sadanet:quick', (64, 32))
  run = restore.restore_run(str(tmp_path), 'last')
  mapper = maps.create_mapper(run)
  image = np.random.default_rng(0).integers(0, 256, (128, 96, 1), np.uint8)
  label = np.zeros((128, 96), int)
  label[100:120, 60:90] = 2
  found = maps.attention_maps(mapper, image, label)
  assert found.key.shape == (64, 32, 4) and found.rebuilt.shape == (64, 32)
  assert found.affinity.shape == (4, 4) and found.channels.shape == (8, 8)
  for weights in (found.key, found.affinity, found.channels):
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert found.pixel == (54, 24)
  np.testing.assert_allclose(found.positions[::8, ::8].sum(), 1, rtol=1e-5)
  other = maps.attention_maps(mapper, image, pixel=(127, 0))
  assert other.pixel == (63, 0) and np.any(other.positions != found.positions)
  normal = (mapper.run.info['mean'][0], mapper.run.info['std'][0])
  seen = jnp.float32((maps.examples.prepare_image(image, run.config.data) - normal[0]) / normal[1])
  logits = jax.jit(lambda x: run.model.apply(run.variables, x, train=False))(seen[None])['logits']
  assert np.mean(found.prediction == jnp.argmax(logits[0], -1)) > 0.99
  with pytest.raises(ValueError, match='the pixel 128,0 is outside of the image of 128x96 pixels'):
    maps.attention_maps(mapper, image, pixel=(128, 0))
  assert [axis.get_title().replace('\n', ' ') for axis in
          pictures.maps_figure(image, label, found, CLASSES).axes] == [
              'Image', 'Truth', 'Prediction', 'Key map: rib', 'Key map: process', 'Key map: lump',
              'Rebuilt features', 'Attended from ×']
  assert len(pictures.weights_figure(found, CLASSES).axes) == 4
  assert pictures.maps_note(found).startswith('affinity: ')


def test_a_network_without_attention_has_no_maps(image_run):
  assert maps.create_mapper(restore.restore_run(image_run, 'last')) is None
