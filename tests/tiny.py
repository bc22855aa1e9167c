"""Real configs shrunk until a step takes milliseconds."""
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from spinejax import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]

_RESNET = {'backbone_width': 4}
_PYRAMID = {**_RESNET, 'neck_features': 8, 'head_features': 8}
_DILATED = {**_RESNET, 'head_features': 8, 'auxiliary_features': 8}
MODEL_FIELDS = {
    'ccnet': {**_DILATED, 'query_features': 4},
    'danet': {**_DILATED, 'query_features': 4},
    'emanet': {**_DILATED, 'ema_features': 8, 'num_bases': 4},
    'fpn': _PYRAMID,
    'nonlocal': _DILATED,
    'ppmu': {'features': 4, 'levels': 2},
    'psanet': {**_DILATED, 'mask_size': (9, 9)},
    'sadanet': {**_DILATED, 'query_features': 4},
    'seam': {**_PYRAMID, 'query_features': 4},
    'unet': {'features': 4, 'levels': 1},
    'unet_s5d16': {'features': 4},
    'xception_unet': {'features': 4, 'levels': 2},
    'wave_ct': {**_PYRAMID, 'autoencoder_features': 4},
}


def shrink(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
  """Changes a locked config: the few features of MODEL_FIELDS, and dotted overrides."""
  with config.unlocked():
    config.model.update(MODEL_FIELDS[config.model.name])
  config.update_from_flattened_dict(overrides)
  return config


def tiny_config(name: str = 'rsn_unet:quick', **overrides) -> ConfigDict:
  """configs/NAME.py:VARIANT at 64x32 with six phantoms and four steps; dotted overrides win."""
  file, _, variant = name.partition(':')
  path = f'{ROOT}/configs/{file}.py' + (f':{variant}' if variant else '')
  return shrink(config_lib.load_config(path), {
      'num_steps': 4, 'num_epochs': 0, 'batch_size': 2, 'eval_batch_size': 2, 'log_every': 1,
      'eval_every': 2, 'data.num_train': 4, 'data.num_validation': 1, 'data.num_test': 3,
      'data.image_size': (64, 32), 'data.patch_size': (32, 32), 'data.render_size': (96, 48),
      **overrides})
