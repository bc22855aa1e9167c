"""Validation during training: loss and overlap of the validation cases at the network's size."""
import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
from ml_collections import ConfigDict
import numpy as np

from spinejax import steps
from spinejax.data import examples
from spinejax.data import datasets
from spinejax.losses import needs_cells
from spinejax.metrics import segmentation


@dataclasses.dataclass(frozen=True)
class Validation:
  """Prepared validation cases and the compiled step that scores them.

  Attributes:
    num_cases: number of cases.
    batches: image, label, what the loss reads, and `valid` [N], 0 where the last batch is padded.
    step: compiled `steps.eval_step`.
    mesh: its devices.
    classes: names by class index.
  """
  num_cases: int
  batches: tuple[Mapping[str, np.ndarray], ...]
  step: jax.stages.Wrapped
  mesh: jax.sharding.Mesh
  classes: tuple[str, ...]


def prepare_validation(config: ConfigDict, cases: datasets.Source, model: nn.Module,
                       loss_fn: Callable, normalize_fn: Callable) -> Validation | None:
  """Prepares all cases; None without cases."""
  if not len(cases):
    return None
  size = -(-config.eval_batch_size // jax.process_count()) * jax.process_count()
  mesh = steps.create_mesh(size, config.data.image_size)
  prepared = [examples.prepare_case(cases[i], config.data, cells=needs_cells(config.loss))
              for i in range(len(cases))]
  step = steps.parallelize_eval_step(functools.partial(
      steps.eval_step, model=model, loss_fn=loss_fn, normalize_fn=normalize_fn,
      num_classes=config.model.num_classes, mesh=mesh), mesh)
  padded = tuple(_padded_batch(prepared[start:start + size], size)
                 for start in range(0, len(prepared), size))
  return Validation(len(prepared), padded, step, mesh, tuple(config.data.classes))


def _padded_batch(cases: list[dict[str, np.ndarray]], size: int) -> dict[str, np.ndarray]:
  """Stacks the cases and repeats the first one up to `size`; `valid` is 0 for the repeats."""
  rows = cases + cases[:1] * (size - len(cases))
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  batch['label'] = batch['label'].astype(np.int32)
  batch['valid'] = (np.arange(size) < len(cases)).astype(np.float32)
  return batch


def validate(validation: Validation, variables: steps.Variables) -> dict[str, float | None]:
  """Mean `loss` and per-image `dice/CLASS` and `iou/CLASS` of the validation cases."""
  variables = steps.place(variables, steps.replicated(validation.mesh))
  losses, counts = [], []
  for batch in validation.batches:
    placed = steps.place(batch, steps.batched(validation.mesh))
    outputs = jax.device_get(validation.step(variables, placed))
    losses.append(outputs['loss'])
    counts.append(outputs['counts'])
  scores = np.concatenate(losses)[:validation.num_cases]
  totals = np.concatenate(counts)[:validation.num_cases].astype(np.int64)
  per_image = segmentation.summarize(totals, validation.classes).per_image
  return {'loss': float(np.mean(scores)),
          **{f'{metric}/{name}': value for metric in ('dice', 'iou')
             for name, value in per_image[metric].items()}}
