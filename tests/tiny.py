"""Real configs shrunk until a step takes milliseconds."""
import pathlib

from ml_collections import ConfigDict

from spinejax import cli

ROOT = pathlib.Path(__file__).parents[1]

_MODEL = {
    'unet': {'features': 4},
    'fpn': {'backbone_width': 4, 'neck_features': 8, 'head_features': 8},
    'seam': {'backbone_width': 4, 'neck_features': 8, 'head_features': 8, 'query_features': 4},
}


def tiny_config(name: str = 'rsn_unet:quick', **overrides) -> ConfigDict:
  """configs/NAME.py:VARIANT at 64x32 with six phantoms and four steps; dotted overrides win."""
  file, _, variant = name.partition(':')
  config = cli.load_config(f'{ROOT}/configs/{file}.py' + (f':{variant}' if variant else ''))
  config.update_from_flattened_dict({
      'num_steps': 4, 'num_epochs': 0, 'batch_size': 2, 'eval_batch_size': 2, 'log_every': 1,
      'eval_every': 2, 'data.num_train': 4, 'data.num_validation': 1, 'data.num_test': 3,
      'data.image_size': (64, 32), 'data.patch_size': (32, 32), 'data.render_size': (96, 48),
      **{f'model.{field}': value for field, value in _MODEL[config.model.name].items()},
      **overrides})
  return config
