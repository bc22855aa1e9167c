"""A trained network restored from the folder of its run."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from spinejax import checkpoints, runs, steps
from spinejax.config import check_config
from spinejax.models import create_model


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A trained network.

  Attributes:
    workdir: folder of the run.
    config: of the run, with overrides.
    info: dataset.json of the run: classes, split, mean, std.
    model: the Flax module.
    variables: {'params', 'batch_stats'}, the trained weights of the model on the first device.
    step: of the checkpoint.
  """
  workdir: str
  config: ConfigDict = dataclasses.field(repr=False)
  info: dict[str, Any] = dataclasses.field(repr=False)
  model: nn.Module
  variables: dict[str, Any] = dataclasses.field(repr=False)
  step: int


def restore_run(workdir: str, checkpoint: str = 'best',
                overrides: Mapping[str, Any] | None = None) -> Run:
  """Restores the network of a run from its checkpoint 'best' or 'last'.

  `overrides` are dotted fields of the config with other values than in training, for images of
  another machine, such as {'angle.spacing': (0.6, 0.6)}.

  Raises:
    FileNotFoundError: no run, or no checkpoint.
    ValueError: an unknown or wrong field; a checkpoint that is damaged or does not fit.
  """
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  for name, value in (overrides or {}).items():
    group, _, field = name.rpartition('.')
    if group not in config or field not in config[group]:
      raise ValueError(f'the run in {workdir} has no field config.{name}, so it cannot be changed.')
    config[group].update({field: value})
  if overrides:
    check_config(config)
  model = create_model(config.model)
  shapes = steps.variable_shapes(model, (1, *config.data.image_size, config.data.channels))
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  template = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
  variables, step = checkpoints.restore_variables(workdir, template, which=checkpoint)
  return Run(workdir, config, info, model, variables, step)
