"""Loading a config file, and the one check of a config before any work."""
import dataclasses
import difflib
import importlib.util
import inspect
import math
import pathlib
import types
from collections.abc import Sequence

from ml_collections import ConfigDict

from spinejax import runs

# Fields that must be whole numbers of at least so much.
_LEAST = {'num_steps': 0, 'num_epochs': 0, 'batch_size': 1, 'eval_batch_size': 1, 'log_every': 1,
          'eval_every': 1, 'max_skipped_steps': 0}
# Fields with a few allowed values; `check_config` names them where another one is given.
_CHOICES = {'data_parallel': ('mesh', 'pmap'), 'evaluation.resize': ('logits', 'mask'),
            'evaluation.best': ('dice', 'loss'), 'data.cache': ('auto', 'device', 'stream')}


@dataclasses.dataclass(frozen=True)
class ConfigFile:
  """A config file as a module with `get_config` and `VARIANTS`, and one of its variants.

  `path` is as it was given; `variant` is '' for a file without variants.
  """
  path: str
  variant: str
  module: types.ModuleType

  def create(self) -> ConfigDict:
    """A new config of the variant. Raises ValueError for variants that do not combine."""
    try:
      return self.module.get_config(self.variant) if self.variant else self.module.get_config()
    except KeyError as error:
      if ',' not in self.variant:
        raise
      raise ValueError(f'{self.path} cannot combine the variants {self.variant} '
                       f'({str(error.args[0]).strip().split(". ")[0]}).') from error

  @property
  def run_name(self) -> str:
    """Name of a run folder, such as 'seam_quick' or 'seam_fpn_small'."""
    return '_'.join(filter(None, [pathlib.Path(self.path).stem, *self.variant.split(',')]))


def load_config(name: str) -> ConfigDict:
  """Loads 'configs/seam.py:quick' or, from any folder, 'seam:fpn,small'; see `open_config`."""
  return open_config(name).create()


def open_config(name: str) -> ConfigFile:
  """Executes the config file PATH or PATH:VARIANT; without '.py' it is one of the package's.

  Variants combine, as PATH:VARIANT,VARIANT; the later ones win.

  Raises:
    FileNotFoundError: no such config.
    ValueError: not a config, or an unknown variant. Both name what exists.
  """
  path, _, variant = name.partition(':')
  shipped = pathlib.Path(__file__).parent / 'configs'
  file = pathlib.Path(path) if path.endswith('.py') else shipped / f'{path}.py'
  if not file.is_file():
    folder = file.parent if file.parent.is_dir() else shipped
    known = sorted(str(other) if path.endswith('.py') else other.stem
                   for other in folder.glob('*.py') if other.stem not in ('__init__', 'common'))
    raise FileNotFoundError(f'there is no config {path}; there is {", ".join(known) or "none"}.')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'{path} is not a Python config file.')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    _ = module.get_config, module.VARIANTS
  except (SyntaxError, AttributeError, ImportError) as error:
    raise ValueError(f'{path} is not a config: it needs get_config(variant) and VARIANTS '
                     f'({error}).') from error
  for name in variant.split(',') if variant else ():
    if name not in module.VARIANTS:
      raise ValueError(f'{path} has no variant {name!r}; it has {", ".join(module.VARIANTS)}, and '
                       'several combine as VARIANT,VARIANT.')
  defaults = inspect.signature(module.get_config).parameters.values()
  return ConfigFile(path, variant or ''.join(str(field.default) for field in defaults), module)


def did_you_mean(name: str, known: Sequence[str]) -> str:
  """' (did you mean NEAREST?)' for an unknown name; '' if no known one is near."""
  near = difflib.get_close_matches(name, known, 1)
  return f' (did you mean {near[0]}?)' if near else ''


def check_field(config: ConfigDict, name: str) -> None:
  """Raises ValueError naming the known fields unless the dotted `name` is a field of `config`."""
  group, where = config, 'config'
  for key in name.split('.'):
    known = sorted(group) if isinstance(group, ConfigDict) else []
    if key not in known:
      raise ValueError(f'--config.{name}: {where} has no field {key!r}{did_you_mean(key, known)}; '
                       f'it has {", ".join(known) or "none"}.')
    group, where = group[key], f'{where}.{key}'


def check_config(config: ConfigDict) -> None:
  """Raises ValueError for a config that cannot be trained or tested; reads no data.

  It calls the constructors of what the config names, which check their own fields.
  """
  from spinejax import measurement
  from spinejax import optimizers
  from spinejax.data import datasets
  from spinejax.losses import create_loss
  from spinejax.models import create_model

  values = dict(runs.flatten(config.to_dict()))
  for name, least in _LEAST.items():
    if values[name] < least:
      raise ValueError(f'config.{name} must be at least {least}, not {values[name]}.')
  for name, allowed in _CHOICES.items():
    if values[name] not in allowed:
      raise ValueError(f'config.{name} must be {" or ".join(map(repr, allowed))}, '
                       f'not {values[name]!r}.')
  if not 0 <= config.ema_decay < 1:
    raise ValueError(f'config.ema_decay must be at least 0 and below 1, not {config.ema_decay}.')
  if not (config.num_steps or config.num_epochs or config.init_from):
    raise ValueError('config.num_steps or config.num_epochs must be above 0.')
  create_model(config.model)
  create_loss(config.loss)
  optimizers.create_optimizer(config.optimizer, 1)
  datasets.check_settings(config.data)
  num_classes = len(config.data.classes)
  if config.model.num_classes != num_classes and (config.model.num_classes, num_classes) != (1, 2):
    raise ValueError(f'config.model.num_classes must be the number of config.data.classes, '
                     f'{num_classes} (or 1 for two classes), not {config.model.num_classes}.')
  angle, rank = config.angle, len(config.data.image_size)
  if not angle.method:
    return
  spacing = tuple(angle.spacing)
  if spacing and (len(spacing) != rank or not all(0 < step < math.inf for step in spacing)):
    raise ValueError(f'config.angle.spacing must be {rank} numbers of mm, one per axis, '
                     f'not {spacing}.')
  if angle.method not in measurement.METHODS:
    raise ValueError(f'config.angle.method must be one of {", ".join(measurement.METHODS)}, or '
                     f'empty, not {angle.method!r}.')
  try:
    measurement.Options(angle.min_deg, tuple(angle.bands), tuple(angle.calibration))
  except ValueError as error:
    raise ValueError(f'config.angle: {error}') from None
