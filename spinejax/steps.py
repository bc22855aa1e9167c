"""Pure training and evaluation steps, and the only place that maps them over devices.

`train_step(state, batch, key)` sees the global batch. `parallelize` compiles it for a mesh of
devices (`'mesh'`: `jit` with the batch sharded, so batch norm is synchronized by construction and
gradients are those of one device) or with `pmap` (`'pmap'`: the same function per device, means
taken over the axis `'data'`).
"""
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax

from spinejax.metrics import segmentation

AXIS = 'data'
Batch = Mapping[str, jax.Array]
Variables = Mapping[str, Any]


class TrainState(struct.PyTreeNode):
  """Everything a step changes; arrays only, no device axis.

  Attributes:
    step: int32 [], training steps done.
    params, batch_stats: the model's variables.
    opt_state: state of the optax chain.
    ema: exponential moving average of {params, batch_stats}, or None.
    skipped: int32 [], steps skipped in a row because loss or gradient was not finite.
  """
  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  ema: Any
  skipped: jax.Array

  @property
  def variables(self) -> dict[str, Any]:
    """What inference uses: the moving average where there is one."""
    return self.ema or {'params': self.params, 'batch_stats': self.batch_stats}


def create_train_state(
    key: jax.Array, model: nn.Module, tx: optax.GradientTransformation,
    image_shape: Sequence[int], *, ema: bool = False) -> TrainState:
  """Initializes a state for images [N, (D,) H, W, C] of `image_shape`, compiled as one program."""

  def create(key):
    params_key, dropout_key = jax.random.split(key)
    variables = model.init({'params': params_key, 'dropout': dropout_key},
                           jnp.zeros(image_shape, jnp.float32), train=True)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    average = {'params': params, 'batch_stats': batch_stats} if ema else None
    return TrainState(step=jnp.int32(0), params=params, batch_stats=batch_stats,
                      opt_state=tx.init(params), ema=average, skipped=jnp.int32(0))

  return jax.jit(create)(key)


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, model: nn.Module,
    loss_fn: Callable, tx: optax.GradientTransformation, augment_fn: Callable,
    ema_decay: float = 0.0, axis_name: str | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimizer step; a non-finite loss or gradient leaves the state as it was and is counted.

  Args:
    state: the state before the step.
    batch: what `augment_fn(key, batch)` takes; the batch it returns has `image` [N, H, W, C]
      (normalized), `label` [N, H, W] and whatever the loss reads.
    key: constant over the run; the step number is folded in, so a step is a pure function of its
      number and resuming is exact.
    model, loss_fn, tx: the network, `loss_fn(outputs, batch) -> ([N], {name: [N]})`, the optimizer.
    augment_fn: random augmentation and normalization, on the device.
    ema_decay: decay of the moving average of the variables; used when `state.ema` is present.
    axis_name: name of the mapped axis under `pmap`, None otherwise.

  Returns:
    The new state and scalars: loss, its parts as `loss/<part>`, grad_norm, skipped (in a row).
  """
  augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
  if axis_name is not None:
    dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    model = model.clone(axis_name=axis_name)
  batch = augment_fn(augment_key, batch)

  def objective(params):
    outputs, updated = model.apply(
        {'params': params, 'batch_stats': state.batch_stats}, batch['image'], train=True,
        mutable=['batch_stats'], rngs={'dropout': dropout_key})
    loss, parts = loss_fn(outputs, batch)
    parts = {f'loss/{name}': jnp.mean(value) for name, value in parts.items()}
    return jnp.mean(loss), (parts, updated.get('batch_stats', {}))

  (loss, (parts, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
  if axis_name is not None:
    loss, parts, batch_stats, grads = jax.lax.pmean((loss, parts, batch_stats, grads), axis_name)
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update({'params': params, 'batch_stats': batch_stats}, ema,
                                   1.0 - ema_decay)

  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  updated = state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema,
                          skipped=jnp.int32(0))
  unchanged = state.replace(skipped=state.skipped + 1)
  new_state = jax.tree.map(functools.partial(jnp.where, finite), updated, unchanged)
  new_state = new_state.replace(step=state.step + 1)
  return new_state, {'loss': loss, **parts, 'grad_norm': grad_norm, 'skipped': new_state.skipped}


def eval_step(variables: Variables, batch: Batch, *, model: nn.Module, loss_fn: Callable,
              normalize_fn: Callable, num_classes: int) -> dict[str, jax.Array]:
  """Loss and counts of one batch at the network's size.

  Returns per-example arrays, zero where `batch['valid']` is 0: `loss` [N] and `counts` [N, K, 3]
  (true positives, false positives, false negatives), ready to be summed over batches and devices.
  """
  outputs = model.apply(variables, normalize_fn(batch['image']), train=False)
  loss, _ = loss_fn(outputs, batch)
  prediction = segmentation.predict_labels(outputs['logits'])
  counts = segmentation.confusion_counts(prediction, batch['label'], num_classes, batch['valid'])
  return {'loss': jnp.where(batch['valid'] > 0, loss, 0.0), 'counts': counts}


def predict_step(variables: Variables, image: jax.Array, *, model: nn.Module,
                 normalize_fn: Callable) -> jax.Array:
  """Logits float32 [N, H, W, K] of images [N, H, W, C] in gray levels."""
  return model.apply(variables, normalize_fn(image), train=False)['logits']


def create_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Mesh over the largest number of devices that divides the batch.

  A training batch is never padded, since batch norm would see the padding.
  """
  devices = list(devices if devices is not None else jax.devices())
  count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
  return Mesh(np.array(devices[:count]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXIS))


def parallelize_train_step(step: Callable, mesh: Mesh, data_parallel: str) -> Callable:
  """Compiles `step(state, batch, key, axis_name=None)` for the devices of `mesh`.

  `data_parallel='mesh'` shards the batch and leaves the program as it is; `'pmap'` maps it over
  the devices, with the model's batch norm averaging over the axis `'data'`. Both take and return
  the same arrays: a replicated state without a device axis and a global batch [N, ...]. The state
  passed in is donated.
  """
  if data_parallel == 'mesh':
    return jax.jit(step, in_shardings=(replicated(mesh), batched(mesh), replicated(mesh)),
                   out_shardings=replicated(mesh), donate_argnums=0)
  if data_parallel != 'pmap':
    raise ValueError(f"data_parallel must be 'mesh' or 'pmap', not {data_parallel!r}.")
  mapped = jax.pmap(functools.partial(step, axis_name=AXIS), axis_name=AXIS,
                    in_axes=(None, 0, None), out_axes=None, devices=list(mesh.devices.flat))

  def stepped(state, batch, key):
    split = lambda x: x.reshape(mesh.size, x.shape[0] // mesh.size, *x.shape[1:])
    return mapped(state, jax.tree.map(split, batch), key)

  return stepped


def parallelize_eval_step(step: Callable, mesh: Mesh) -> Callable:
  """Compiles `step(variables, batch)` with the batch sharded and outputs gathered."""
  return jax.jit(step, in_shardings=(replicated(mesh), batched(mesh)),
                 out_shardings=replicated(mesh))
