"""What the spinejax process does: the steps of a run, compiled ahead of time."""
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spinejax import devices
from spinejax import optimizers
from spinejax import steps
from benchmarks import systems
from benchmarks.worker import Program
from spinejax.losses import pixel
from spinejax.models import cost
from spinejax.models import DTYPES
from spinejax.models import attention
from spinejax.models import create_model
from spinejax.models import pretrained

_ADAM = dict(name='adam', learning_rate=1e-3, schedule='constant', final_learning_rate=0.0,
             warmup_steps=0, weight_decay=0.0, gradient_clip=0.0)


def configure() -> None:
  """Devices as in a run; call before JAX is first used."""
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch has the GPU too
  devices.configure_jax()
  jax.config.update('jax_enable_compilation_cache', False)  # or nothing would be compiled


class Attention(nn.Module):
  """An attention module by itself, on x + offset, so that a step needs the gradient of x.

  Takes [N,H,W,C]; returns {'features': [N,H,W,C]}.
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
  fields = systems.SYSTEMS[system].fields(size)
  if fields['name'] == 'attention':
    return Attention(fields['kind'], fields['query_features'], DTYPES[dtype])
  return create_model({**fields, 'dtype': dtype})


def objective(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
              ) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss [N] of `systems.REST_WEIGHT`, and no parts."""
  label = batch['label']
  total: Any = 0.0
  for name, logits in outputs.items():
    stride = label.shape[-1] // logits.shape[-2]
    target = label[(slice(None), *(slice(None, None, stride),) * (label.ndim - 1))]
    if name == 'features':
      square = jnp.square(logits.astype(jnp.float32))
      value = jnp.mean(square, axis=tuple(range(1, square.ndim))) / 2
    elif logits.shape[-1] == 1:
      value = pixel.binary_cross_entropy(logits[..., 0], target.astype(jnp.float32))
    else:
      value = pixel.softmax_cross_entropy(logits, target)
    total += (1.0 if name in ('logits', 'features') else systems.REST_WEIGHT) * value
  return total, {}


def describe():
  device = jax.devices()[0]
  platform = 'cpu' if device.platform == 'cpu' else 'gpu'
  return {'version': jax.__version__, 'platform': platform, 'device': device.device_kind,
          'threads': jax.device_count()}, None


def build(system: str, size: str, phase: str, dtype: str, inputs: str, weights: str | None,
          outputs: str):
  """Compiles a phase of a system and runs it once.

  Args:
    system, size, phase, dtype: as in `systems`.
    inputs: .npz with image [N,*S,C] and label [N,*S].
    weights: .npz under PyTorch's names; None: drawn here.
    outputs: .npy for the logits of the forward pass.

  Returns:
    compile_seconds, parameters, multiply_adds of one image's prediction, peak_bytes of the program
    as compiled, and of a step its loss and the norm of its gradient. And the program.
  """
  model = create_network(system, size, dtype)
  with np.load(inputs) as arrays:
    batch = dict(image=arrays['image'], label=arrays['label'])
  shape = batch['image'].shape
  variables = load_variables(model, shape, weights)
  devices = jax.devices()
  if isinstance(model, Attention):  # a small part of a network, which decides for all of them
    devices = devices[:1]
  elif phase == 'train':
    devices = steps.training_devices(model, shape)
  mesh = steps.create_mesh(shape[0], shape[1:-1], devices)
  batch = steps.place(batch, steps.batched(mesh))
  reply = {'parameters': cost.count_parameters(variables['params']),
           'multiply_adds': cost.flops(model, shape[1:]).products}
  create = {'forward': _forward, 'train': train}[phase]
  program, seconds, reply['peak_bytes'], first = create(model, variables, batch, mesh, outputs)
  if jax.default_backend() != 'cpu':  # the comparison is not at the precision that is timed
    with jax.default_matmul_precision('highest'):
      *_, first = create(model, variables, batch, mesh, outputs)
  return {'compile_seconds': seconds, **reply, **first}, {'': program}


def load_variables(model: nn.Module, shape: Sequence[int], weights: str | None) -> dict[str, Any]:
  """Variables of a network as NumPy arrays: imported from PyTorch's, or drawn where there are none.
  """
  template = steps.variable_shapes(model, (1, *shape[1:]))
  if weights is not None:
    return pretrained.to_variables(pretrained.load_state_dict(weights), template)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return np.ones(leaf.shape, np.float32)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.0
    return np.float32(deviation) * rng.standard_normal(leaf.shape, np.float32)

  return jax.tree_util.tree_map_with_path(draw, template)


def _forward(model, variables, batch, mesh, outputs):
  """Program, seconds to compile it, bytes it needs, and nothing else; writes the logits."""
  variables = steps.place(variables, steps.replicated(mesh))
  step = steps.parallelize_eval_step(functools.partial(_apply, model=model, mesh=mesh), mesh)
  compiled, seconds = _compile(step, variables, batch['image'])
  result = compiled(variables, batch['image'])
  np.save(outputs, np.asarray(result, np.float32))

  def call():
    nonlocal result
    result = compiled(variables, batch['image'])
    return result

  return program(call), seconds, _num_bytes(compiled), {}


def _apply(variables, image, *, model, mesh):
  """The first of the outputs, `logits` or `features`; as `steps.predict_step` for the former."""
  if isinstance(model, Attention):
    outputs: Any = model.apply(variables, image, train=False)
    return outputs['features']
  return steps.predict_step(variables, image, model=model, normalize_fn=lambda x: x, mesh=mesh)


def train(model, variables, batch, mesh, outputs):
  """A training step: as `_forward`, with the loss of the first and the norm of its gradient."""
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
  compiled, seconds = _compile(step, state, batch, key)
  state, metrics = compiled(state, batch, key)

  def call():
    nonlocal state
    state, _ = compiled(state, batch, key)
    return state

  first = {name: float(metrics[name]) for name in ('loss', 'grad_norm')}
  return program(call), seconds, _num_bytes(compiled), first


def jitted(function: Callable, *arguments: Any) -> tuple[Program, int]:
  """The program that calls a function, compiled for its arguments, and the bytes it needs."""
  placed = jax.device_put(arguments)
  compiled, _ = _compile(jax.jit(function), *placed)
  return program(lambda: compiled(*placed)), _num_bytes(compiled)


def program(call: Callable[[], Any]) -> Program:
  """A program whose calls queue on accelerators and are waited for one by one on CPU.

  Several calls under way at once, which share the virtual devices of a CPU, may wait for each other
  without end.
  """
  if jax.default_backend() == 'cpu':
    return Program(lambda: jax.block_until_ready(call()))
  results: list[Any] = []

  def queue():
    results[:] = [call()]

  return Program(queue, lambda: jax.block_until_ready(results))


def _compile(step, *arguments):
  start = time.perf_counter()
  compiled = step.lower(*arguments).compile()
  return compiled, time.perf_counter() - start


def _num_bytes(compiled) -> int:
  """Bytes on each device of arguments, results and what lies between; 0 where unknown."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    return 0
  return (analysis.argument_size_in_bytes + analysis.output_size_in_bytes
          + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)


def probe(dtype: str, n: int):
  """Floating-point operations a second of products of n x n matrices, one on every device."""
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


OPS: dict[str, Callable] = {'describe': describe, 'build': build, 'probe': probe}
