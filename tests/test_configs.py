"""Every config and variant: documented fields, real names, the protocols of the papers."""
import collections
import functools
import pathlib

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from spinejax import config as config_lib
from spinejax import models, runs
from spinejax.configs import common
from spinejax.sweeps import members
from tests import tiny

FILES = sorted(path for path in (tiny.ROOT / 'configs').glob('*.py')
               if path.stem not in ('__init__', 'common'))
VARIANTS = [(path, variant) for path in FILES
            for variant in config_lib.open_config(str(path)).module.VARIANTS]


def flatten(config: ConfigDict) -> dict:
  return dict(runs.flatten(config.to_dict()))


@functools.cache
def logits_shape(model, image_shape) -> tuple[int, ...]:
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  image = jax.ShapeDtypeStruct(image_shape, np.float32)
  outputs, _ = jax.eval_shape(lambda x: model.init_with_output(rngs, x, train=True), image)
  return outputs['logits'].shape


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_paper_is_one_screen_and_states_its_rows(path):
  text = path.read_text()
  assert len(text.splitlines()) <= 88
  module = config_lib.open_config(str(path)).module
  assert f'python -m spinejax.main --config=configs/{path.name}' in module.__doc__
  for variant in module.VARIANTS:
    assert variant in module.__doc__


@pytest.mark.parametrize('path, variant', VARIANTS, ids=lambda value: getattr(value, 'stem', value))
def test_a_variant_is_locked_complete_and_builds_its_network(path, variant):
  config = config_lib.load_config(f'{path}:{variant}')
  assert config.is_locked
  config_lib.check_config(config)
  assert None not in flatten(config).values()
  shape = (1, *config.data.patch_size, config.data.channels)
  assert logits_shape(models.create_model(config.model), shape) == (
      *shape[:-1], config.model.num_classes)


def test_fields_beside_model_and_loss_are_those_of_common():
  kinds = [set(flatten(kind())) for kind in (common.ultrasound, common.xrays, common.volumes)]
  for path, variant in VARIANTS:
    names = {name for name in flatten(config_lib.load_config(f'{path}:{variant}'))
             if not name.startswith(('model.', 'loss.'))}
    assert any(names == {name for name in kind if not name.startswith(('model.', 'loss.'))}
               for kind in kinds), (path.stem, variant)
  images, xrays, volumes = kinds
  assert xrays - images == {'data.labels', 'data.border'}
  assert volumes - images == {'data.top_layer', 'data.column_width', 'data.labels', 'data.axes'}
  assert {name for name in images - volumes if '.strengths.' not in name} == {
      'data.label_map', 'data.palette', 'evaluation.interlaced'}


def test_overrides_by_hand():
  config = common.create_config(
      common.ultrasound(), {'model': dict(name='seam', num_classes=4, head_features=8), 'seed': 1},
      {'model': dict(name='unet'), 'data.image_size': (8, 4)})
  assert config.model.to_dict() == {'name': 'unet', 'num_classes': 4, 'dtype': 'float32'}
  assert (config.seed, config.data.image_size) == (1, (8, 4))
  with pytest.raises(KeyError):
    common.create_config(common.ultrasound(), {'data.axes': 'RAS'})
  with pytest.raises(TypeError):
    common.create_config(common.ultrasound(), {'batch_size': 'four'})


@pytest.mark.parametrize('field, value, sentence', [
    ('batch_size', 0, 'config.batch_size must be at least 1, not 0'),
    ('eval_every', 0, 'config.eval_every must be at least 1'),
    ('log_every', -1, 'config.log_every must be at least 1'),
    ('num_steps', 0, 'config.num_steps or config.num_epochs must be above 0'),
    ('data_parallel', 'ddp', "config.data_parallel must be 'mesh' or 'pmap', not 'ddp'"),
    ('ema_decay', 1.0, 'config.ema_decay must be at least 0 and below 1'),
    ('evaluation.best', 'auc', "config.evaluation.best must be 'dice' or 'loss', not 'auc'"),
    ('evaluation.resize', 'cubic', "config.evaluation.resize must be 'logits' or 'mask'"),
    ('data.cache', 'gpu', "config.data.cache must be 'auto' or 'device' or 'stream'"),
    ('data.name', 'mnist', 'config.data.name must be one of .*vpi_phantom'),
    ('data.name', 'folder', 'needs config.data.directory'),
    ('data.label_map', (0, 1, 4), r'config.data.label_map \(0, 1, 4\) has a class outside'),
    ('data.strengths.speckle', -1.0, 'config.data.strengths: the strength of speckle must be'),
    ('model.num_classes', 3, 'config.model.num_classes must be the number of config.data.classes'),
    ('model.name', 'vgg', 'config.model.name must be one of'),
    ('loss.name', 'hinge', 'loss'),
    ('optimizer.schedule', 'step', 'config.optimizer.schedule must be one of'),
    ('optimizer.name', 'lion', 'config.optimizer.name must be one of'),
    ('angle.method', 'cobb', 'config.angle.method must be one of'),
    ('angle.spacing', (1.0,), 'config.angle.spacing must be 2 numbers of mm'),
    ('angle.bands', (10.0, 5.0, 40.0), 'config.angle: bands must be'),
    ('angle.min_deg', 0.0, 'config.angle: min_deg must be'),
])
def test_a_wrong_field_is_one_sentence(field, value, sentence):
  config = config_lib.load_config('seam:quick')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=sentence) as error:
    config_lib.check_config(config)
  assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_sweeps_name_known_variants_and_fields(path):
  module = config_lib.open_config(str(path)).module
  rows = collections.defaultdict(list)
  for entry in module.sweep():
    rows[tuple(members.without(entry, 'seed').items())].append(entry.pop('seed'))
    variant = entry.pop('variant')
    assert set(variant.split(',')) <= set(module.VARIANTS)
    module.get_config(variant).update_from_flattened_dict(entry)
  assert all(seeds == [0, 1, 2] for seeds in rows.values())
  for table in getattr(module, 'TABLES', {}).values():
    assert all(tuple(row.items()) in rows for row in table)


def test_variants_combine_in_order():
  combined = config_lib.open_config('seam:fpn,small')
  config = combined.create()
  assert combined.run_name == 'seam_fpn_small'
  assert (config.model.name, config.model.backbone_width) == ('fpn', 16)
  assert config.data.image_size == common.SMALL_ULTRASOUND['data.image_size']
  with pytest.raises(ValueError, match=r'unet,quick \(Key "backbone_width" does not exist'):
    config_lib.load_config('seam:unet,quick')
  with pytest.raises(ValueError, match="variant 'smal'.*several combine as VARIANT,VARIANT"):
    config_lib.load_config('seam:fpn,smal')


def test_a_file_that_is_not_a_config(tmp_path):
  texts = {'a.py': 'x = 1\n', 'b.py': 'def get_config(:\n', 'c.py': 'import nope\n'}
  for name, text in texts.items():
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match='is not a config'):
      config_lib.load_config(str(tmp_path / name))
  with pytest.raises(FileNotFoundError, match='there is .*a.py'):
    config_lib.load_config(str(tmp_path / 'd.py'))


def test_configs_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert config_lib.load_config('seam:quick').num_steps == 1900
  assert config_lib.open_config('seam').run_name == 'seam_ours'
  assert config_lib.open_config(f'{tiny.ROOT}/configs/c_unet.py:dice').run_name == 'c_unet_dice'
  assert pathlib.Path(config_lib.__file__).with_name('configs').is_dir()


def test_protocols_of_the_papers():
  """SEAM section 3, SADANet section IV, RSN-U-net section III, C-U-net section II."""
  ours = config_lib.load_config('seam:ours')
  assert (ours.data.num_train, ours.data.num_test) == (80, 29)
  assert (ours.data.image_size, ours.data.patch_size) == ((1024, 256), (512, 256))
  assert (ours.batch_size, ours.loss.structure_weight, ours.loss.center_weight) == (12, 0.4, 0.5)
  assert (ours.optimizer.name, ours.optimizer.schedule) == ('adam', 'cosine')
  assert (ours.optimizer.learning_rate, ours.optimizer.final_learning_rate) == (1e-4, 5e-6)
  sada = config_lib.load_config('sadanet:ours')
  assert (sada.data.num_train, sada.data.num_test, sada.batch_size) == (80, 29, 4)
  assert (sada.data.image_size, sada.data.patch_size) == ((2048, 512), (512, 256))
  assert (sada.num_steps, sada.loss.dice_weight, sada.optimizer.weight_decay) == (160_000, 3, 5e-4)
  assert (sada.optimizer.learning_rate, sada.optimizer.final_learning_rate) == (1e-3, 5e-6)
  rsn = config_lib.load_config('rsn_unet:rsn')
  assert (rsn.data.num_train, rsn.data.num_test, rsn.num_epochs) == (80, 29, 50)
  assert (rsn.data.image_size, rsn.loss.tv_weight) == ((1000, 250), 0.4)
  assert (rsn.optimizer.learning_rate, rsn.optimizer.weight_decay) == (0.01, 1e-6)
  assert {paper.evaluation.resize for paper in (rsn, ours, sada)} == {'mask'}
  laminae = config_lib.load_config('c_unet:centroid')
  assert (laminae.data.num_train, laminae.data.num_validation, laminae.num_epochs) == (50, 10, 200)
  assert (laminae.data.image_size, laminae.evaluation.best) == ((384, 96, 48), 'loss')
