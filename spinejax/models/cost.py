"""Counts of a network's parameters, operations and activations, without running it."""
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from flax import traverse_util
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
_LAYERS = (layers.Conv, layers.DepthwiseConv, layers.ConvTranspose, layers.BatchNorm)


@dataclasses.dataclass(frozen=True)
class Parameters:
  """Numbers of parameters by top-level part: those that a prediction uses, and auxiliary heads."""
  prediction: dict[str, int]
  training: dict[str, int]

  @property
  def total(self) -> int:
    return sum(self.prediction.values()) + sum(self.training.values())


class Flops(NamedTuple):
  """Operations of one prediction. A multiply-add counts as one. See `flops`."""
  modules: int
  products: int
  attention: int


class ActivationBytes(NamedTuple):
  """Memory of the activations of one example in bytes. See `activation_bytes`."""
  saved: int
  largest: int
  largest_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class InputCost:
  """The counts at one input [*S, C]; `largest_shape` has a batch axis as well."""
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
  """All counts of a network: parameters at the first input, and counts by the name of the input.

  `table_3` has the sentences of `printed_rows`, if one of the inputs is `PAPER_INPUT`.
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
  by_input = {name: parameters(model, shape) for name, shape in inputs.items()}
  counts = {name: InputCost(tuple(shape), by_input[name].total, *flops(model, shape),
                            *activation_bytes(model, shape))
            for name, shape in inputs.items()}
  rows = [row for count in counts.values() if count.shape == PAPER_INPUT
          for row in printed_rows(count.flops_modules, count.parameters)]
  return Cost(next(iter(by_input.values())), counts, tuple(rows))


def count_parameters(params: Any) -> int:
  """Numbers in a tree of arrays or of shapes; 0 for an empty tree."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def parameters(model: nn.Module, shape: Sequence[int]) -> Parameters:
  """Parameters of a network of `create_model` for images [*S, C].

  The classifiers of DANet's branches count under `prediction`, since their part, the head, does.
  """
  params, used = (_init(model, shape, train=train)['params'] for train in (True, False))
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

  `products` counts the multiplications of a prediction as fvcore does, but without resizing and
  adaptive pooling: multiply-adds of convolutions and attention, and 2 per element of a batch norm.

  `attention` is the part of `products` outside of layers: all products of two arrays that are not
  constant, unlike the weights of an interpolation. Loops count as often as they run.

  Raises ValueError if a product is in a loop or branch that depends on data, or a layer in a loop.
  """
  calls, _ = _layer_calls(model, shape, train=False)
  training_calls, variables = _layer_calls(model, shape, train=True)
  parts = {path[0] for path in calls}
  branches = {path: call for path, call in training_calls.items() if path[0] in parts}
  modules, attention = sum(map(sum, (calls | branches).values())), 0
  program = _trace(lambda variables, image, key: model.apply(variables, image, train=False),
                   variables, shape)
  for equation, times, scope, depends_on in _equations(program, set(program.invars)):
    kind, name = equation.primitive.name, equation.params.get('name')
    if name in ('relu', 'leaky_relu') and scope[-1:] != ('decode_head',):
      modules += _size(equation.outvars[0])
    elif name == 'max_pool':
      modules += _size(equation.invars[0])
    if (times != 1 and kind == 'conv_general_dilated') or (times is None and kind == 'dot_general'):
      raise ValueError('a product in a loop or branch that depends on data, or a layer in a loop, '
                       'cannot be counted.')
    if kind == 'dot_general' and all(depends_on):
      (contracted, _), _ = equation.params['dimension_numbers']
      taps = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
      attention += times * taps * _size(equation.outvars[0])
  products = sum(multiply_adds + norm for multiply_adds, _, norm in calls.values()) + attention
  return Flops(modules, products, attention)


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
  program = _trace(residuals, variables, shape)
  of_example = set(program.invars[-2:])
  for _ in _equations(program, of_example):
    pass
  saved = {var for var in program.outvars if _is_in(of_example, var)}  # each array once
  program = _trace(predict, variables, shape)
  arrays = [var for equation, *_, depends_on in _equations(program, set(program.invars[-2:]))
            if any(depends_on) for var in equation.outvars]
  largest = max(arrays, key=_bytes)
  return ActivationBytes(sum(map(_bytes, saved)), _bytes(largest), tuple(largest.aval.shape))


def printed_rows(modules: int, num_parameters: int) -> list[str]:
  """Sentences that name the rows of table III with these counts, equal to two decimals."""
  counts = ((modules / 1e9, 'G'), (num_parameters / 1e6, 'M parameters'))
  rows = [f'{value:.2f} {unit} at this input: table III of SADANet prints it in the row "{row}".'
          for column, (value, unit) in enumerate(counts) for row, printed in TABLE_3.items()
          if f'{value:.2f}' == f'{printed[column]:.2f}']
  return [*rows, _MISLABELED] if rows else []


def inputs_of(data: Mapping[str, Any], size: str | None = None,
              channels: int | None = None) -> dict[str, tuple[int, ...]]:
  """Inputs [*S, C] to count at, by name: image and patch, or `size`, and that of table III.

  `data` is config.data. `size`, 'height,width' or 'depth,height,width', and `channels` replace what
  it says. Raises ValueError unless they are positive whole numbers, as many as the image has axes.
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


def _init(model: nn.Module, shape: Sequence[int], *, train: bool, **options: Any) -> dict[str, Any]:
  """Shapes of the variables of a network."""
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return dict(jax.eval_shape(lambda image: model.init(keys, image, train=train, **options), image))


def _layer_calls(model: nn.Module, shape: Sequence[int], *, train: bool
                 ) -> tuple[dict[tuple, tuple[int, int, int]], dict[str, Any]]:
  """Operations of layers by path and number of the call, and the shapes of the variables.

  The operations are multiply-adds, additions of a bias and those of a norm.
  """
  variables = _init(model, shape, train=train, mutable=True,
                    capture_intermediates=lambda module, _: isinstance(module, _LAYERS))
  params = traverse_util.flatten_dict(variables.get('params', {}))
  captured = traverse_util.flatten_dict(variables.pop('intermediates', {}))
  calls = {}
  for (*path, method), outputs in captured.items():
    if method != '__call__':  # what a module has sown
      continue
    own = {leaf: params[*path, leaf] for leaf in ('kernel', 'bias', 'scale')
           if (*path, leaf) in params}
    for number, y in enumerate(outputs):
      if 'scale' in own:
        calls[*path, number] = 0, 0, 2 * y.size
        continue
      kernel = own['kernel']
      pixels = y.size // y.shape[-1]
      if kernel.shape[0] % 2 == 0:  # transposed: kernels at stride 2 do not overlap
        pixels //= math.prod(kernel.shape[:-2])
      calls[*path, number] = pixels * kernel.size, y.size * ('bias' in own), 0
  return calls, variables


def _trace(function: Callable, variables: Any, shape: Sequence[int]) -> core.Jaxpr:
  """The program of function(variables, image, key)."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.make_jaxpr(function)(variables, image, key).jaxpr


def _equations(program: core.Jaxpr, dependent: set[Any], times: int | None = 1,
               scope: tuple[str, ...] = ()
               ) -> Iterator[tuple[Any, int | None, tuple[str, ...], list[bool]]]:
  """The equations of a program, each followed by those of the programs in it.

  `dependent` starts with the arguments of interest; all variables that depend on them are added.
  With each equation comes how often it runs (None if this depends on data), the names of the
  modules and scopes that it is in, and which of its operands are dependent. Of a choice by
  platform, only the branch for accelerators is followed.
  """
  for equation in program.eqns:
    kind, params = equation.primitive.name, equation.params
    inner_scope = scope + tuple(filter(None, str(equation.source_info.name_stack).split('/')))
    depends_on = [_is_in(dependent, var) for var in equation.invars]
    yield equation, times, inner_scope, depends_on
    results = [any(depends_on)] * len(equation.outvars)
    inner_programs = [getattr(inner, 'jaxpr', inner) for inner in core.jaxprs_in_params(params)]
    operands = depends_on
    if params.get('branches_platforms') is not None:
      inner_programs, operands = inner_programs[-1:], depends_on[1:]
    elif kind in ('scan', 'while', 'cond'):
      turns = None if times is None or kind != 'scan' else times * params['length']
      for inner in inner_programs:
        dependent.update(inner.invars if any(depends_on) else ())
        yield from _equations(inner, dependent, turns, inner_scope)
      inner_programs = []
    for inner in inner_programs:
      if (len(inner.invars), len(inner.outvars)) == (len(operands), len(results)):
        dependent.update(var for var, depends in zip(inner.invars, operands) if depends)
        yield from _equations(inner, dependent, times, inner_scope)
        results = [_is_in(dependent, var) for var in inner.outvars]
    dependent.update(var for var, depends in zip(equation.outvars, results) if depends)


def _is_in(variables: set[Any], var: Any) -> bool:
  return not isinstance(var, core.Literal) and var in variables


def _size(var: Any) -> int:
  return math.prod(var.aval.shape)


def _bytes(var: Any) -> int:
  return _size(var) * var.aval.dtype.itemsize
