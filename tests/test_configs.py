"""Every config file and variant: same fields, real names, the figures of the papers."""
import importlib.util
import pathlib

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from spinejax import config as config_lib
from spinejax import losses
from spinejax import models
from tests import tiny

FILES = sorted((tiny.ROOT / 'configs').glob('*.py'))


def load_module(path: pathlib.Path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


VARIANTS = [(path, variant) for path in FILES for variant in load_module(path).VARIANTS]


def test_all_files_have_the_same_fields():
  own = ('model', 'loss')  # whose fields depend on their name
  fields = {}
  for path in FILES:
    config = config_lib.load_config(str(path))
    fields[path.name] = {(group, field) for group, value in config.items() for field in (
        value if isinstance(value, ConfigDict) and group not in own else [''])}
  reference = next(iter(fields.values()))
  assert all(names == reference for names in fields.values())


@pytest.mark.parametrize('path, variant', VARIANTS)
def test_a_variant_loads_locked_and_names_what_exists(path, variant):
  config = config_lib.load_config(f'{path}:{variant}')
  assert config.is_locked
  model = models.create_model(config.model)
  losses.create_loss(config.loss)
  image = jax.ShapeDtypeStruct((1, *config.data.patch_size, config.data.channels), np.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  outputs, _ = jax.eval_shape(lambda x: model.init_with_output(rngs, x, train=True), image)
  assert outputs['logits'].shape == (1, *config.data.patch_size, config.model.num_classes)
  assert len(config.data.classes) == max(config.model.num_classes, 2)
  assert variant in load_module(path).__doc__


@pytest.mark.parametrize('path', FILES)
def test_unknown_variants_are_refused_and_sweeps_name_known_fields(path):
  with pytest.raises(ValueError, match="no variant 'nope'; it has"):
    config_lib.load_config(f'{path}:nope')
  module = load_module(path)
  for entry in module.sweep():
    variant = entry.pop('variant')
    assert variant in module.VARIANTS
    module.get_config(variant).update_from_flattened_dict(entry)
  assert 'python -m spinejax.main --config=configs/' in module.__doc__


def test_protocols_of_the_papers():
  """The figures of SEAM section 3 and RSN-U-net section III, as in their papers."""
  ours = config_lib.load_config(f'{tiny.ROOT}/configs/seam.py:ours')
  assert (ours.data.num_train, ours.data.num_test) == (80, 29)
  assert (ours.data.image_size, ours.data.patch_size) == ((1024, 256), (512, 256))
  assert (ours.batch_size, ours.loss.lam, ours.loss.beta) == (12, 0.4, 0.5)
  assert (ours.optimizer.name, ours.optimizer.schedule) == ('adam', 'cosine')
  assert (ours.optimizer.learning_rate, ours.optimizer.final_learning_rate) == (1e-4, 5e-6)
  sada = config_lib.load_config(f'{tiny.ROOT}/configs/sadanet.py:ours')
  assert (sada.data.num_train, sada.data.num_test, sada.batch_size) == (80, 29, 4)
  assert (sada.data.image_size, sada.data.patch_size) == ((2048, 512), (512, 256))
  assert (sada.num_steps, sada.loss.lam, sada.optimizer.weight_decay) == (160_000, 3.0, 5e-4)
  assert (sada.optimizer.learning_rate, sada.optimizer.final_learning_rate) == (1e-3, 5e-6)
  rsn = config_lib.load_config(f'{tiny.ROOT}/configs/rsn_unet.py:rsn')
  assert (rsn.data.num_train, rsn.data.num_test, rsn.num_epochs) == (80, 29, 50)
  assert (rsn.data.image_size, rsn.loss.lam, rsn.augment.flip_horizontal) == ((1000, 250), 0.4, 0.5)
  assert (rsn.optimizer.learning_rate, rsn.optimizer.weight_decay) == (0.01, 1e-6)
  assert rsn.evaluation.resize == 'mask' and ours.evaluation.resize == 'logits'
