"""Pure training and evaluation steps, and the only place that maps them over devices.

`train_step(state, batch, key)` sees the global batch. `parallelize_train_step` compiles it for a
mesh of devices (`'mesh'`: `jit` with the batch sharded, so batch norm is synchronized by
construction and gradients are those of one device) or with `pmap` (`'pmap'`: the same function per
device, means taken over the axis `'data'`). In a mesh, devices that the batch leaves idle share the
planes of a volume, so that one volume of a batch of 1 keeps them all busy, or is spread over their
memories.
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

from spinejax.commands import cli
from spinejax.metrics import segmentation

AXIS = 'data'
SPACE = 'space'
# Operations of a step for each parameter, above which the virtual devices of a CPU pay.
_WORTH_SHARING = 15_000
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


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> dict[str, Any]:
  """Shapes and dtypes of the variables for images [N, (D,) H, W, C]; computes nothing."""
  image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  return dict(jax.eval_shape(functools.partial(model.init, train=True), rngs, image))


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, model: nn.Module,
    loss_fn: Callable, tx: optax.GradientTransformation, augment_fn: Callable,
    ema_decay: float = 0.0, axis_name: str | None = None, mesh: Mesh | None = None
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
    mesh: devices that share the network's work on a volume; see `create_mesh`.

  Returns:
    The new state and scalars: loss, its parts as `loss/<part>`, grad_norm, skipped (in a row).
  """
  augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
  if axis_name is not None:
    dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    model = model.clone(axis_name=axis_name)
  batch = augment_fn(augment_key, batch)

  def objective(params):
    image = _constrain(batch['image'], mesh, AXIS, SPACE)
    outputs, updated = model.apply(
        {'params': params, 'batch_stats': state.batch_stats}, image, train=True,
        mutable=['batch_stats'], rngs={'dropout': dropout_key})
    loss, parts = loss_fn(_constrain(outputs, mesh, AXIS), batch)
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
              normalize_fn: Callable, num_classes: int, mesh: Mesh | None = None
              ) -> dict[str, jax.Array]:
  """Loss and counts of one batch at the network's size.

  Returns per-example arrays, zero where `batch['valid']` is 0: `loss` [N] and `counts` [N, K, 3]
  (true positives, false positives, false negatives), ready to be summed over batches and devices.
  """
  outputs = _predict(variables, batch['image'], model, normalize_fn, mesh)
  loss, _ = loss_fn(outputs, batch)
  prediction = segmentation.predict_labels(outputs['logits'])
  counts = segmentation.confusion_counts(prediction, batch['label'], num_classes, batch['valid'])
  return {'loss': jnp.where(batch['valid'] > 0, loss, 0.0), 'counts': counts}


def predict_step(variables: Variables, image: jax.Array, *, model: nn.Module,
                 normalize_fn: Callable, mesh: Mesh | None = None) -> jax.Array:
  """Logits float32 [N, H, W, K] of images [N, H, W, C] in gray levels."""
  return _predict(variables, image, model, normalize_fn, mesh)['logits']


def _predict(variables: Variables, image: jax.Array, model: nn.Module, normalize_fn: Callable,
             mesh: Mesh | None) -> dict[str, jax.Array]:
  image = _constrain(normalize_fn(image), mesh, AXIS, SPACE)
  return _constrain(model.apply(variables, image, train=False), mesh, AXIS)


def _constrain(arrays: Any, mesh: Mesh | None, *axes: str) -> Any:
  """Arrays with their first axes sharded over these axes of the mesh, if there is one."""
  if mesh is None:
    return arrays
  return jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, PartitionSpec(*axes)))


def create_mesh(batch_size: int, image_size: Sequence[int] = (),
                devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Mesh ('data', 'space'): devices that share the batch, and those that share each volume.

  'data' is the largest number of devices that divides the batch: a training batch is never padded,
  since batch norm would see the padding. 'space' is 1 for images [H, W]; for volumes [D, H, W] it
  is the largest number of devices left to each that divides D. Of several processes each has the
  same number of devices in the mesh, and a part of the batch of its own.

  Raises:
    ValueError: a batch that the processes cannot share.
  """
  devices = list(devices if devices is not None else jax.devices())
  processes = sorted({device.process_index for device in devices})
  share, rest = divmod(batch_size, len(processes))
  if rest:
    raise ValueError(f'batch_size {batch_size} is not a multiple of the {len(processes)} '
                     'processes.')
  groups = [[device for device in devices if device.process_index == index] for index in processes]
  each = min(map(len, groups))
  largest = lambda size, most: max(n for n in range(1, most + 1) if size % n == 0)
  data = largest(share, each)
  space = largest(image_size[0], each // data) if len(image_size) == 3 else 1
  grid = np.array([group[:data * space] for group in groups])
  return Mesh(grid.reshape(-1, space), (AXIS, SPACE))


def training_devices(model: nn.Module, shape: Sequence[int]) -> list[jax.Device]:
  """Devices to train on with batches of images [N,*S,C] of a shape: for `create_mesh`.

  All there are, but one virtual device of a CPU where several would cost more than they bring:
  each updates all parameters, and a single one has all cores too, of which narrow convolutions use
  one. On two cores, two win from 19,000 operations of a step for each parameter on and one wins
  below 11,000. A number of devices that the user chose is kept.
  """
  devices = jax.devices()
  if jax.default_backend() != 'cpu' or len(devices) == 1 or not cli.chose_devices():
    return devices
  variables = variable_shapes(model, shape)
  image = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
  program = jax.jit(functools.partial(model.apply, train=False)).lower(variables, image)
  analysis: Any = program.cost_analysis()
  worth = _WORTH_SHARING * sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  return devices if 3 * analysis['flops'] >= worth else devices[:1]


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXIS))


def place(arrays: Any, sharding: NamedSharding) -> Any:
  """Puts arrays that every process holds whole on the devices of a sharding."""
  if sharding.is_fully_addressable:
    return jax.device_put(arrays, sharding)
  return jax.tree.map(
      lambda x: jax.make_array_from_callback(x.shape, sharding, np.asarray(x).__getitem__), arrays)


def join(batch: Batch, mesh: Mesh) -> Batch:
  """The global batch [N, ...] of which each process holds its part, in their order."""
  if batched(mesh).is_fully_addressable:
    return batch
  part = lambda x: jax.make_array_from_process_local_data(batched(mesh), np.asarray(x))
  return jax.tree.map(part, batch)


def parallelize_train_step(step: Callable, mesh: Mesh, data_parallel: str) -> Callable:
  """Compiles `step(state, batch, key, axis_name=None)` for the devices of `mesh`.

  `data_parallel='mesh'` shards the batch, and volumes, and leaves the program as it is; `'pmap'`
  maps it over the devices of the axis `'data'`, with the model's batch norm averaging over it. Both
  take and return the same arrays: a replicated state without a device axis and a global batch
  [N, ...]. The state passed in is donated.
  """
  if data_parallel == 'mesh':
    return jax.jit(functools.partial(step, mesh=mesh), donate_argnums=0,
                   in_shardings=(replicated(mesh), batched(mesh), replicated(mesh)),
                   out_shardings=replicated(mesh))
  if data_parallel != 'pmap':
    raise ValueError(f"data_parallel must be 'mesh' or 'pmap', not {data_parallel!r}.")
  if not replicated(mesh).is_fully_addressable:
    raise ValueError("data_parallel='pmap' is for one process; use 'mesh' for several.")
  mapped = jax.pmap(functools.partial(step, axis_name=AXIS), axis_name=AXIS,
                    in_axes=(None, 0, None), out_axes=None, devices=list(mesh.devices[:, 0]))

  def stepped(state, batch, key):
    split = lambda x: x.reshape(mesh.shape[AXIS], -1, *x.shape[1:])
    return mapped(state, jax.tree.map(split, batch), key)

  return stepped


def parallelize_eval_step(step: Callable, mesh: Mesh) -> jax.stages.Wrapped:
  """Compiles `step(variables, batch)` with the batch sharded and outputs gathered.

  `eval_step` and `predict_step` share a volume among devices where they are given the mesh too.
  """
  return jax.jit(step, in_shardings=(replicated(mesh), batched(mesh)),
                 out_shardings=replicated(mesh))
