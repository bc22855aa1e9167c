"""The process of spinejax: the steps of a run, compiled ahead of time."""
import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import systems
from benchmarks.compiled import compile_for, num_bytes, queued
from benchmarks.programs import Ops
from spinejax import devices
from spinejax import optimizers
from spinejax import steps
from spinejax.losses import cross_entropy
from spinejax.models import DTYPES
from spinejax.models import attention
from spinejax.models import cost
from spinejax.models import create_model
from spinejax.models import pretrained

_ADAM = dict(name='adam', learning_rate=1e-3, schedule='constant', final_learning_rate=0.0,
             warmup_steps=0, weight_decay=0.0, gradient_clip=0.0)


def configure() -> None:
  """Sets up devices as in a run; call it before JAX is first used."""
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch shares the GPU
  devices.configure_jax()
  jax.config.update('jax_enable_compilation_cache', False)  # compilation is timed


class Attention(nn.Module):
  """An attention module applied to x + offset, so that a step needs the gradient of x.

  Takes [N, H, W, C]; returns {'features': [N, H, W, C]}.
  """
  kind: str
  query_features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    del train
    offset = self.param('offset', nn.initializers.zeros, (image.shape[-1],), jnp.float32)
    x = (image + offset[None, None, None]).astype(self.dtype)
    if self.kind == 'channel':
      return {'features': attention.ChannelAttention(name='attention')(x)}
    kind = {'criss_cross': attention.CrissCrossAttention,
            'position': attention.PositionAttention}[self.kind]
    return {'features': kind(self.query_features, self.dtype, name='attention')(x)}


def create_network(system: str, size: str, dtype: str) -> nn.Module:
  """The network of `systems.SYSTEMS[system]`."""
  fields = systems.SYSTEMS[system].fields(size)
  if fields['name'] == 'attention':
    return Attention(fields['kind'], fields['query_features'], DTYPES[dtype])
  return create_model({**fields, 'dtype': dtype})


def objective(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
              ) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss [N] that `systems.REST_WEIGHT` describes, and no parts."""
  label = batch['label']
  total: Any = 0.0
  for name, logits in outputs.items():
    stride = label.shape[-1] // logits.shape[-2]
    target = label[(slice(None), *(slice(None, None, stride),) * (label.ndim - 1))]
    if name == 'features':
      square = jnp.square(logits.astype(jnp.float32))
      value = jnp.mean(square, axis=tuple(range(1, square.ndim))) / 2
    elif logits.shape[-1] == 1:
      value = cross_entropy.binary_cross_entropy(logits[..., 0], target.astype(jnp.float32))
    else:
      value = cross_entropy.softmax_cross_entropy(logits, target)
    total += (1.0 if name in ('logits', 'features') else systems.REST_WEIGHT) * value
  return total, {}


def describe():
  """Operation: version and device of JAX."""
  device = jax.devices()[0]
  platform = 'cpu' if device.platform == 'cpu' else 'gpu'
  return {'version': jax.__version__, 'platform': platform, 'device': device.device_kind,
          'threads': jax.device_count()}, None


def build(system: str, size: str, phase: str, dtype: str, inputs: str, weights: str | None,
          outputs: str):
  """Operation: compiles a phase of a system and runs it once.

  Args:
    system, size, phase, dtype: as in `systems`.
    inputs: .npz with image [N, *S, C] and label [N, *S].
    weights: .npz with PyTorch's names; None: drawn at random.
    outputs: .npy to write the logits of the forward pass to.

  Returns:
    compile_seconds, parameters, multiply_adds of one image's prediction, and peak_bytes of the
    compiled program; for a training step also its loss and the norm of its gradient.
  """
  model = create_network(system, size, dtype)
  with np.load(inputs) as arrays:
    batch = dict(image=arrays['image'], label=arrays['label'])
  shape = batch['image'].shape
  variables = load_variables(model, shape, weights)
  used = jax.devices()
  if isinstance(model, Attention):  # a network chooses its devices as a whole, not for this part
    used = used[:1]
  elif phase == 'train':
    used = steps.training_devices(model, shape)
  mesh = steps.create_mesh(shape[0], shape[1:-1], used)
  batch = steps.place(batch, steps.batched(mesh))
  reply = {'parameters': cost.count_parameters(variables['params']),
           'multiply_adds': cost.flops(model, shape[1:]).products}
  create = {'forward': _forward, 'train': train}[phase]
  program, seconds, reply['peak_bytes'], first = create(model, variables, batch, mesh, outputs)
  if jax.default_backend() != 'cpu':  # results are compared at a higher precision than is timed
    with jax.default_matmul_precision('highest'):
      *_, first = create(model, variables, batch, mesh, outputs)
  return {'compile_seconds': seconds, **reply, **first}, {'': program}


def load_variables(model: nn.Module, shape: Sequence[int], weights: str | None) -> dict[str, Any]:
  """Variables of a network as NumPy arrays, from a file of PyTorch weights or at random."""
  template = steps.variable_shapes(model, (1, *shape[1:]))
  if weights is not None:
    return pretrained.initialize(template, pretrained.load_state_dict(weights), ('',))
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return np.ones(leaf.shape, np.float32)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.0
    return np.float32(deviation) * rng.standard_normal(leaf.shape, np.float32)

  return jax.tree_util.tree_map_with_path(draw, template)


def _forward(model, variables, batch, mesh, outputs):
  """Like `train`, for a forward pass, whose logits it writes; the last result is empty."""
  variables = steps.place(variables, steps.replicated(mesh))
  step = steps.parallelize_eval_step(functools.partial(_apply, model=model, mesh=mesh), mesh)
  compiled, seconds = compile_for(step, variables, batch['image'])
  result = compiled(variables, batch['image'])
  np.save(outputs, np.asarray(result, np.float32))

  def call():
    nonlocal result
    result = compiled(variables, batch['image'])
    return result

  return queued(call), seconds, num_bytes(compiled), {}


def _apply(variables, image, *, model, mesh):
  """Logits as in `steps.predict_step`, or the features of an attention module."""
  if isinstance(model, Attention):
    outputs: Any = model.apply(variables, image, train=False)
    return outputs['features']
  return steps.predict_step(variables, image, model=model, normalize_fn=lambda x: x, mesh=mesh)


def train(model, variables, batch, mesh, outputs):
  """A training step with Adam.

  Returns:
    The program, the seconds to compile it, the bytes it needs, and loss and grad_norm of the first
    step.
  """
  del outputs
  tx = optimizers.create_optimizer(_ADAM, 1)
  zero: Any = np.int32(0)
  state = steps.TrainState(
      step=zero, params=variables['params'], batch_stats=variables.get('batch_stats', {}),
      opt_state=jax.jit(tx.init)(variables['params']), ema=None, skipped=zero)
  state = steps.place(state, steps.replicated(mesh))
  key = steps.place(jax.random.key(0), steps.replicated(mesh))
  step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=model, loss_fn=objective, tx=tx,
      augment_fn=lambda key, batch: dict(batch)), mesh, 'mesh')
  compiled, seconds = compile_for(step, state, batch, key)
  state, metrics = compiled(state, batch, key)

  def call():
    nonlocal state
    state, _ = compiled(state, batch, key)
    return state

  first = {name: float(metrics[name]) for name in ('loss', 'grad_norm')}
  return queued(call), seconds, num_bytes(compiled), first


def probe(dtype: str, n: int):
  """Operation: floating-point operations per second of n x n matrix products on all devices."""
  mesh = steps.create_mesh(jax.device_count())
  size = n * jax.device_count()
  a = steps.place(np.ones((size, n), DTYPES[dtype]), steps.batched(mesh))
  b = steps.place(np.ones((n, n), DTYPES[dtype]), steps.replicated(mesh))
  multiply = jax.jit(jnp.matmul, out_shardings=steps.batched(mesh))
  jax.block_until_ready(multiply(a, b))
  best = float('inf')
  for _ in range(5):
    start = time.perf_counter()
    jax.block_until_ready(multiply(a, b))
    best = min(best, time.perf_counter() - start)
  return {'flops_per_second': 2 * size * n * n / best}, None


OPS: Ops = {'describe': describe, 'build': build, 'probe': probe}
