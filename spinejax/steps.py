"""Pure training and evaluation steps, and their compilation for several devices.

`parallelize_train_step` compiles `train_step` in one of two ways. `'mesh'` is `jit` with the batch
sharded over a mesh of devices: batch norm and gradients are those of one device with the whole
batch. Devices that the batch does not need share the planes of each volume. `'pmap'` runs the same
function on each device and averages over the axis `'data'`.
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

from spinejax import devices
from spinejax.metrics import segmentation

AXIS, SPACE = 'data', 'space'
# Operations of a training step per parameter, above which several virtual devices of a CPU are
# faster than one. Measured on two cores: two win from 19,000 on, one wins below 11,000.
_MIN_OPERATIONS_PER_PARAMETER = 15_000
Batch = Mapping[str, jax.Array]
Variables = Mapping[str, Any]


class TrainState(struct.PyTreeNode):
  """Everything a step changes, as arrays without a device axis."""
  step: jax.Array            # int32 [], training steps done
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  ema: Any                   # moving average of {params, batch_stats}, or None
  skipped: jax.Array         # int32 [], latest steps in a row with a non-finite loss or gradient

  @property
  def variables(self) -> dict[str, Any]:
    """The variables for inference: the moving average if there is one."""
    return self.ema or {'params': self.params, 'batch_stats': self.batch_stats}


def create_train_state(
    key: jax.Array, model: nn.Module, tx: optax.GradientTransformation,
    image_shape: Sequence[int], *, ema: bool = False) -> TrainState:
  """Initializes a state for images [N, (D,) H, W, C] of `image_shape`."""

  def create(key):
    params_key, dropout_key = jax.random.split(key)
    variables = model.init({'params': params_key, 'dropout': dropout_key},
                           jnp.zeros(image_shape, jnp.float32), train=True)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    return TrainState(
        step=jnp.int32(0), params=params, batch_stats=batch_stats, opt_state=tx.init(params),
        ema={'params': params, 'batch_stats': batch_stats} if ema else None, skipped=jnp.int32(0))

  return jax.jit(create)(key)


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> dict[str, Any]:
  """Shapes and dtypes of the variables for images [N, (D,) H, W, C], without computing them."""
  image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  return dict(jax.eval_shape(functools.partial(model.init, train=True), rngs, image))


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, model: nn.Module,
    loss_fn: Callable, tx: optax.GradientTransformation, augment_fn: Callable,
    ema_decay: float = 0.0, axis_name: str | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimizer step. A non-finite loss or gradient is counted and changes nothing else.

  Args:
    state: the state before the step.
    batch: the input of `augment_fn`.
    key: random key of the run. The step number is folded in, so resuming is exact.
    model: the network.
    loss_fn: `loss_fn(outputs, batch) -> (loss [N], {part: [N]})`.
    tx: the optimizer.
    augment_fn: `augment_fn(key, batch)` returns the batch with a normalized `image`
      [N, (D,) H, W, C], `label` [N, (D,) H, W] and what else the loss reads.
    ema_decay: decay of the moving average, if `state.ema` is not None.
    axis_name: name of the mapped axis under `pmap`.
    mesh: devices that share the batch and the volumes.

  Returns:
    The new state and scalars: loss, its parts as `loss/<part>`, grad_norm and skipped (in a row).
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
  ema = None if state.ema is None else optax.incremental_update(
      {'params': params, 'batch_stats': batch_stats}, state.ema, 1.0 - ema_decay)
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
  """`loss` [N] and `counts` [N, K, 3] (true positives, false positives, false negatives).

  They are at the network's size, and zero where `batch['valid']` is 0.
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
  """Shards the first axes of the arrays over the named axes of the mesh, if there is one."""
  if mesh is None:
    return arrays
  return jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, PartitionSpec(*axes)))


def create_mesh(batch_size: int, image_size: Sequence[int] = (),
                devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Mesh with the axes 'data' (devices that share the batch) and 'space' (that share a volume).

  'data' is the largest number of devices that divides the batch, because batch norm would see a
  padding. 'space' is 1 for images [H, W]; for volumes [D, H, W] it is the largest number of the
  remaining devices that divides D. Each of several processes has the same number of devices in the
  mesh and its own part of the batch, so their number must divide the batch.
  """
  devices = list(devices if devices is not None else jax.devices())
  groups = [[device for device in devices if device.process_index == index]
            for index in sorted({device.process_index for device in devices})]
  share, rest = divmod(batch_size, len(groups))
  if rest:
    raise ValueError(f'batch_size {batch_size} is not a multiple of the {len(groups)} processes.')
  each = min(map(len, groups))
  data = _largest_divisor(share, each)
  space = _largest_divisor(image_size[0], each // data) if len(image_size) == 3 else 1
  grid = np.array([group[:data * space] for group in groups])
  return Mesh(grid.reshape(-1, space), (AXIS, SPACE))


def _largest_divisor(number: int, limit: int) -> int:
  return max(n for n in range(1, limit + 1) if number % n == 0)


def training_devices(model: nn.Module, shape: Sequence[int]) -> list[jax.Device]:
  """Devices to train on with batches of images [N,*S,C] of `shape`: all of them.

  On CPU it is one where synchronization would cost more than it saves: every device updates all
  parameters, and one device also runs on all cores. A number that the user set is kept.
  """
  all_devices = jax.devices()
  if jax.default_backend() != 'cpu' or len(all_devices) == 1 or devices.user_set_number():
    return all_devices
  variables = variable_shapes(model, shape)
  image = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
  forward = jax.jit(functools.partial(model.apply, train=False)).lower(variables, image)
  analysis: Any = forward.cost_analysis()
  operations = 3 * analysis['flops']  # twice as many backward as forward
  least = _MIN_OPERATIONS_PER_PARAMETER * sum(
      leaf.size for leaf in jax.tree.leaves(variables['params']))
  return all_devices if operations >= least else all_devices[:1]


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXIS))


def place(arrays: Any, sharding: NamedSharding) -> Any:
  """Puts arrays, of which every process holds the whole, on the devices of a sharding."""
  if sharding.is_fully_addressable:
    return jax.device_put(arrays, sharding)
  return jax.tree.map(
      lambda x: jax.make_array_from_callback(x.shape, sharding, np.asarray(x).__getitem__), arrays)


def join(batch: Batch, mesh: Mesh) -> Batch:
  """The global batch [N, ...], of which each process holds its part, in the order of processes."""
  if batched(mesh).is_fully_addressable:
    return batch
  return jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(batched(mesh), np.asarray(x)), batch)


def parallelize_train_step(step: Callable, mesh: Mesh, data_parallel: str) -> Callable:
  """Compiles `step(state, batch, key)` for the devices of `mesh`, by 'mesh' or 'pmap'.

  Both take a global batch [N, ...] and a replicated state without a device axis; 'mesh' donates it.
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

  def split_and_step(state, batch, key):
    parts = jax.tree.map(lambda x: x.reshape(mesh.shape[AXIS], -1, *x.shape[1:]), batch)
    return mapped(state, parts, key)

  return split_and_step


def parallelize_eval_step(step: Callable, mesh: Mesh) -> jax.stages.Wrapped:
  """Compiles `step(variables, batch)` with the batch sharded and the outputs gathered."""
  return jax.jit(step, in_shardings=(replicated(mesh), batched(mesh)),
                 out_shardings=replicated(mesh))
