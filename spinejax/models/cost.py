"""Counts of a network's parameters, operations and activations, without running it."""
import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core
import jax.numpy as jnp

from spinejax.models import layers

# Input of table III of SADANet (Xie et al., 2023), and its rows: FLOPs in G and parameters in M.
PAPER_INPUT = (512, 512, 3)
TABLE_3 = {
    'DANet': (200.67, 51.03),
    '~ w/o SAA': (199.35, 49.81),
    'SADANet (Ours)': (258.69, 65.19),
}
_MISLABELED = (
    'The printed rows are mislabeled: 199.35 G is the count of DANet, and 200.67 G the count with '
    'criss-cross attention in place of its position attention. By this count criss-cross attention '
    'is not cheaper; by matrix products it is (CCNet 201.14 G, DANet 211.01 G).')

# What a value in a program depends on, as bits. A value with neither bit is constant.
_EXAMPLE, _VARIABLES = 1, 2
_LAYER = 'counted_layer'  # scope of the operations within a layer
_LAYERS = (layers.Conv, layers.DepthwiseConv, layers.ConvTranspose, layers.BatchNorm)


@dataclasses.dataclass(frozen=True)
class Parameters:
  """Numbers of parameters by top-level part of a network.

  Attributes:
    prediction: parts that a prediction uses, each counted as a whole.
    training: parts that only training uses: auxiliary heads.
  """
  prediction: dict[str, int]
  training: dict[str, int]

  @property
  def total(self) -> int:
    return sum(self.prediction.values()) + sum(self.training.values())


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations of one prediction. A multiply-add counts as one. See `flops`."""
  modules: int
  products: int
  attention: int


@dataclasses.dataclass(frozen=True)
class ActivationBytes:
  """Memory of the activations of one example in bytes. See `activation_bytes`."""
  saved: int
  largest: int
  largest_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class InputCost:
  """The counts at one input. `shape` is [*S, C], `largest_shape` has a batch axis as well."""
  shape: tuple[int, ...]
  parameters: int
  flops_modules: int
  flops_products: int
  flops_attention: int
  saved_bytes: int
  largest_bytes: int
  largest_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Cost:
  """All counts of a network.

  Attributes:
    parameters: at the first input.
    inputs: counts by the name of the input.
    table_3: sentences of `printed_rows`, if one of the inputs is `PAPER_INPUT`.
  """
  parameters: Parameters
  inputs: dict[str, InputCost]
  table_3: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    content = dataclasses.asdict(self)
    content['parameters'] = {'total': self.parameters.total, **content['parameters']}
    return content


def measure_cost(model: nn.Module, inputs: Mapping[str, Sequence[int]]) -> Cost:
  """Counts of a network of `create_model` at inputs [*S, C], given by name; at least one."""
  counts, by_input, sentences = {}, [], []
  for name, shape in inputs.items():
    by_part, operations = parameters(model, shape), flops(model, shape)
    memory = activation_bytes(model, shape)
    by_input.append(by_part)
    counts[name] = InputCost(
        tuple(shape), by_part.total, operations.modules, operations.products, operations.attention,
        memory.saved, memory.largest, memory.largest_shape)
    if tuple(shape) == PAPER_INPUT:
      sentences = printed_rows(operations.modules, by_part.total)
  return Cost(by_input[0], counts, tuple(sentences))


def count_parameters(params: Any) -> int:
  """Numbers in a tree of arrays or of shapes; 0 for an empty tree."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def parameters(model: nn.Module, shape: Sequence[int]) -> Parameters:
  """Parameters of a network of `create_model` for images [*S, C].

  The classifiers of DANet's branches count under `prediction`, since their part, the head, does.
  """
  params = _init(model, shape, train=True)['params']
  used = _init(model, shape, train=False)['params']
  sizes = {part: count_parameters(tree) for part, tree in sorted(params.items())}
  return Parameters({part: size for part, size in sizes.items() if part in used},
                    {part: size for part, size in sizes.items() if part not in used})


def flops(model: nn.Module, shape: Sequence[int]) -> Flops:
  """Operations of the prediction of one image [*S, C], counted in two ways.

  `modules` is what MMSegmentation's counter prints: multiply-adds of convolutions and transposed
  convolutions, 1 per output of one with a bias, 2 per element of a batch norm, 1 per element of a
  ReLU, and 1 per element that enters a max-pool. The counter only sees modules: it ignores the
  products of attention, resizing, and the two ReLUs in EMANet's head, and it counts the classifiers
  of DANet's branches. Adaptive pooling is left out, which deviates for the PPMU-style network only.

  `products` counts the multiplications of a prediction as fvcore does: multiply-adds of
  convolutions and attention, and 2 per element of a batch norm. Biases, ReLUs and pooling are not
  counted. fvcore also counts resizing and adaptive pooling.

  `attention` is the part of `products` outside of layers: all products of two arrays that are not
  constant, unlike the weights of an interpolation. Loops count as often as they run.

  Raises:
    ValueError: if a product is in a loop or branch that depends on data, or a layer is in a loop.
  """
  with _record_layers() as training_calls:
    variables = _init(model, shape, train=True)
  with _record_layers() as calls:
    program, known = _trace(
        lambda variables, image, key: model.apply(variables, image, train=False), variables, shape)
  paths = {call.path for call in calls}
  parts = {path[:1] for path in paths}
  branches = [call for call in training_calls if call.path not in paths and call.path[:1] in parts]
  modules = sum(call.products + call.bias + call.norm for call in [*calls, *branches])
  attention = 0
  for step in _equations(program, known):
    name, work = step.equation.params.get('name'), _multiply_adds(step.equation)
    if name in ('relu', 'leaky_relu') and step.scope[-1:] != ('decode_head',):
      modules += _size(step.equation.outvars[0])
    elif name == 'max_pool':
      modules += _size(step.equation.invars[0])
    in_layer = _LAYER in step.scope
    if work and (step.times is None or (in_layer and step.times > 1)):
      raise ValueError('a product in a loop or branch that depends on data, or a layer in a loop, '
                       'cannot be counted.')
    if not in_layer and all(step.depends_on):
      attention += (step.times or 0) * work
  return Flops(modules, sum(call.products + call.norm for call in calls) + attention, attention)


def activation_bytes(model: nn.Module, shape: Sequence[int]) -> ActivationBytes:
  """Memory of the activations of one example [*S, C], in the dtypes of the network.

  `saved` is what autodiff keeps for the backward pass of a training step: the residuals of
  `jax.vjp` that depend on the example, with auxiliary heads and without the loss. `largest` is the
  largest array of a prediction.

  Both describe the program as written, in its form for accelerators. A device needs less, since XLA
  fuses and recomputes elementwise operations.
  """
  def residuals(variables, image, key):
    state = {name: tree for name, tree in variables.items() if name != 'params'}

    def forward(params):
      return model.apply({**state, 'params': params}, image, train=True, rngs={'dropout': key},
                         mutable=list(state))[0]

    return jax.tree.leaves(jax.vjp(forward, variables['params'])[1])

  def predict(variables, image, key):
    del key
    return model.apply(variables, image, train=False)

  variables = _init(model, shape, train=True)
  program, known = _trace(residuals, variables, shape)
  for _ in _equations(program, known):
    pass
  saved = {var for var in program.outvars if _look_up(known, var) & _EXAMPLE}  # each array once
  arrays = [var for step in _equations(*_trace(predict, variables, shape))
            if any(depends & _EXAMPLE for depends in step.depends_on)
            for var in step.equation.outvars]
  largest = max(arrays, key=_bytes)
  return ActivationBytes(sum(map(_bytes, saved)), _bytes(largest), tuple(largest.aval.shape))


def printed_rows(modules: int, num_parameters: int) -> list[str]:
  """Sentences that name the rows of table III with these counts, equal to two decimals.

  Args:
    modules: `Flops.modules` at `PAPER_INPUT`.
    num_parameters: of the whole network.
  """
  counts = ((modules / 1e9, 'G'), (num_parameters / 1e6, 'M parameters'))
  rows = [f'{value:.2f} {unit} at this input: table III of SADANet prints it in the row "{row}".'
          for column, (value, unit) in enumerate(counts) for row, printed in TABLE_3.items()
          if f'{value:.2f}' == f'{printed[column]:.2f}']
  return [*rows, _MISLABELED] if rows else []


def inputs_of(data: Mapping[str, Any], size: str | None = None,
              channels: int | None = None) -> dict[str, tuple[int, ...]]:
  """Inputs [*S, C] to count at, by name: image and patch, or `size`, and that of table III.

  Args:
    data: config.data.
    size: 'height,width', or 'depth,height,width' for volumes.
    channels: instead of those of the config.

  Raises:
    ValueError: on sizes or channels that are not positive whole numbers, or a wrong number of
      sizes.
  """
  channels = data['channels'] if channels is None else channels
  if channels < 1:
    raise ValueError(f'--channels must be at least 1, not {channels}.')
  if size is None:
    inputs = {'image': (*data['image_size'], channels), 'patch': (*data['patch_size'], channels)}
  else:
    numbers = [part.strip() for part in size.split(',')]
    rank = len(data['image_size'])
    if len(numbers) != rank or not all(
        part.isascii() and part.isdigit() and int(part) for part in numbers):
      raise ValueError(f'--size must be {rank} positive whole numbers, such as '
                       f'--size={",".join(["512"] * rank)}, not {size!r}.')
    inputs = {'image': (*map(int, numbers), channels)}
  if len(inputs['image']) == len(PAPER_INPUT):
    inputs['table III'] = PAPER_INPUT
  names = {shape: name for name, shape in reversed(inputs.items())}  # the first of equal shapes
  return {name: shape for name, shape in inputs.items() if names[shape] == name}


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call of a layer: its path in the network and its operations."""
  path: tuple[str, ...]
  products: int = 0
  bias: int = 0
  norm: int = 0


@dataclasses.dataclass(frozen=True)
class _Step:
  """An equation of a program.

  Attributes:
    equation: of the jaxpr.
    times: how often it runs; None if this depends on data.
    scope: names of the modules and scopes that it is in.
    depends_on: for each operand, what it depends on.
  """
  equation: Any
  times: int | None
  scope: tuple[str, ...]
  depends_on: list[int]


def _image(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _init(model: nn.Module, shape: Sequence[int], *, train: bool) -> dict[str, Any]:
  """Shapes of the variables of a network."""
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  return dict(jax.eval_shape(lambda image: model.init(keys, image, train=train), _image(shape)))


def _trace(function: Callable, variables: Any, shape: Sequence[int]
           ) -> tuple[core.Jaxpr, dict[Any, int]]:
  """The program of function(variables, image, key), and what each of its arguments depends on."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  program = jax.make_jaxpr(function)(variables, _image(shape), key).jaxpr
  arguments = dict.fromkeys(program.invars, _VARIABLES)
  return program, arguments | dict.fromkeys(program.invars[-2:], _EXAMPLE)


@contextlib.contextmanager
def _record_layers() -> Iterator[list[_Call]]:
  """Lists the layers that are called within the block and puts their equations in scope `_LAYER`.
  """
  calls: list[_Call] = []

  def intercept(method, args, kwargs, context):
    module = context.module
    if not isinstance(module, _LAYERS) or context.method_name != '__call__':
      return method(*args, **kwargs)
    with jax.named_scope(_LAYER):
      y = method(*args, **kwargs)
    channels, rank = args[0].shape[-1], y.ndim - 2
    if isinstance(module, layers.BatchNorm):
      call = _Call(module.path, norm=2 * y.size)
    elif isinstance(module, layers.ConvTranspose):  # kernels at stride 2 do not overlap
      call = _Call(module.path, products=channels * y.size, bias=y.size)
    elif isinstance(module, layers.DepthwiseConv):
      call = _Call(module.path, products=module.kernel_size ** rank * y.size)
    else:
      call = _Call(module.path, products=module.kernel_size ** rank * channels * y.size,
                   bias=y.size * module.use_bias)
    calls.append(call)
    return y

  with nn.intercept_methods(intercept):
    yield calls


def _equations(program: core.Jaxpr, known: dict[Any, int], times: int | None = 1,
               scope: tuple[str, ...] = ()) -> Iterator[_Step]:
  """The equations of a program, each followed by those of the programs in it.

  Of a choice by platform, only the branch for accelerators is followed.

  Args:
    program: what to list.
    known: what the arguments of the program depend on; all its variables are added.
    times: how often the program runs.
    scope: where it runs.
  """
  for equation in program.eqns:
    kind, params = equation.primitive.name, equation.params
    inner_scope = scope + tuple(filter(None, str(equation.source_info.name_stack).split('/')))
    depends_on = [_look_up(known, var) for var in equation.invars]
    everything = functools.reduce(operator.or_, depends_on, 0)
    yield _Step(equation, times, inner_scope, depends_on)
    results = [everything] * len(equation.outvars)
    inner_programs = [getattr(inner, 'jaxpr', inner) for inner in core.jaxprs_in_params(params)]
    operands = depends_on
    if params.get('branches_platforms') is not None:
      inner_programs, operands = inner_programs[-1:], depends_on[1:]
    elif kind in ('scan', 'while', 'cond'):
      turns = None if times is None or kind != 'scan' else times * params['length']
      for inner in inner_programs:
        known.update(dict.fromkeys(inner.invars, everything))
        yield from _equations(inner, known, turns, inner_scope)
      inner_programs = []
    for inner in inner_programs:
      if (len(inner.invars), len(inner.outvars)) == (len(operands), len(results)):
        known.update(zip(inner.invars, operands))
        yield from _equations(inner, known, times, inner_scope)
        results = [_look_up(known, var) for var in inner.outvars]
    known.update(zip(equation.outvars, results))


def _look_up(known: Mapping[Any, int], var: Any) -> int:
  return 0 if isinstance(var, core.Literal) else known.get(var, 0)


def _multiply_adds(equation: Any) -> int:
  """Multiply-adds of a matrix product or convolution; 0 for any other equation."""
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    taps = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
  elif equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    taps = math.prod(kernel) // kernel[equation.params['dimension_numbers'].rhs_spec[0]]
  else:
    return 0
  return taps * _size(equation.outvars[0])


def _size(var: Any) -> int:
  return math.prod(var.aval.shape)


def _bytes(var: Any) -> int:
  return _size(var) * var.aval.dtype.itemsize
