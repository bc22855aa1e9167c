"""What a network costs: parameters, operations and memory of activations, without running it.

  python -m spinejax.models.cost --config=configs/sadanet.py:danet
  python -m spinejax.models.cost --config=configs/seam.py --size=2048,512 --json=cost.json

Counts at the image and patch size of the config, or at --size, and at the input of table III of
SADANet (Xie et al., 2023), 512x512x3; a count that the table prints is named with its row.
"""
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import functools
import json
import math
import operator
import pathlib
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from spinejax.commands import cli

PAPER_INPUT = (512, 512, 3)
# Rows of table III of SADANet as printed: FLOPs in G and parameters in M.
TABLE_3 = {
    'DANet': (200.67, 51.03),
    '~ w/o SAA': (199.35, 49.81),
    'SADANet (Ours)': (258.69, 65.19),
}
_MISLABELED = (
    'The printed rows are mislabeled: 199.35 G is the count of DANet, 200.67 G that of criss-cross '
    'attention in place of its position attention. By this count criss-cross attention is not '
    'cheaper; by matrix products it is (CCNet 201.14 G, DANet 211.01 G).')

# What a number in a program depends on: constants alone (0), the example, the variables or both.
_EXAMPLE, _VARIABLES = 1, 2
# Operations within a layer run in this scope.
_LAYER = 'counted_layer'


class Parameters(NamedTuple):
  """Numbers of parameters by top-level part; see `parameters`."""
  prediction: dict[str, int]
  training: dict[str, int]

  @property
  def total(self) -> int:
    return sum(self.prediction.values()) + sum(self.training.values())


class Flops(NamedTuple):
  """Operations of one prediction, a multiply-add counted as one; see `flops`."""
  modules: int
  products: int
  attention: int


class ActivationBytes(NamedTuple):
  """Memory of the activations of one example in bytes; see `activation_bytes`."""
  saved: int
  largest: int
  largest_shape: tuple[int, ...]


def count_parameters(params: Any) -> int:
  """Numbers in a tree of arrays, or of shapes of arrays; 0 of an empty tree."""
  import jax  # late, here and below: --help needs none of it

  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def parameters(model, shape: Sequence[int]) -> Parameters:
  """Parameters of a network by top-level part, apart where only training uses the part.

  `training` holds the auxiliary heads. A part that a prediction uses counts as a whole under
  `prediction`, with the classifiers of DANet's branches.

  Args:
    model: a network of `create_model`.
    shape: [*S,C] of an image.
  """
  params = _init(model, shape, train=True)['params']
  used = _init(model, shape, train=False)['params']
  sizes = {part: count_parameters(tree) for part, tree in sorted(params.items())}
  return Parameters({part: size for part, size in sizes.items() if part in used},
                    {part: size for part, size in sizes.items() if part not in used})


def flops(model, shape: Sequence[int]) -> Flops:
  """Operations of the prediction of one image, counted in two ways; auxiliary heads do not act.

  `modules` is what MMSegmentation's counter prints: the multiply-adds of convolutions, transposed
  or not, 1 per output of one with a bias, 2 per element of a batch norm, 1 per element of a ReLU
  and 1 per element that enters a max-pool. What is not a module there is not counted: the products
  of attention, resizing and the two ReLUs in EMANet's head. What heads compute in prediction there
  and only in training here is counted: the classifiers of DANet's branches. Deviation: adaptive
  pooling, of the PPMU-style network alone, is left out.

  `products` counts what a prediction multiplies, as fvcore does: the multiply-adds of convolutions
  and of attention, and 2 per element of a batch norm. Neither biases, ReLUs nor pooling are in it.
  Deviation: fvcore adds resizing and adaptive pooling.
  `attention` is its share of attention: every product of two arrays outside the layers unless one
  is constant, as the weights of an interpolation are. A loop counts as often as it turns.

  Args:
    model: a network of `create_model`.
    shape: [*S,C] of the image.

  Raises:
    ValueError: a product in a loop or branch whose turns depend on data: they cannot be counted.
  """
  with _counted_calls() as training_calls:
    variables = _init(model, shape, train=True)
  with _counted_calls() as calls:
    program = _trace(lambda variables, image, key: model.apply(variables, image, train=False),
                     variables, shape)
  paths = {call.path for call in calls}
  parts = {path[:1] for path in paths}
  branches = [call for call in training_calls
              if call.path not in paths and call.path[:1] in parts]
  modules = sum(call.products + call.bias + call.norm for call in [*calls, *branches])
  attention = 0
  for equation, times, scope, depends_on in _equations(program):
    name = equation.params.get('name')
    if name in ('relu', 'leaky_relu') and scope[-1:] != ('decode_head',):
      modules += _size(equation.outvars[0])
    elif name == 'max_pool':
      modules += _size(equation.invars[0])
    work = _multiply_adds(equation)
    if not work:
      continue
    if times is None or times > 1 and _LAYER in scope:
      raise ValueError('a product in a loop or branch that depends on data, or a layer in a loop, '
                       'cannot be counted.')
    if _LAYER not in scope and all(depends_on):
      attention += times * work
  return Flops(modules, sum(call.products + call.norm for call in calls) + attention, attention)


def activation_bytes(model, shape: Sequence[int]) -> ActivationBytes:
  """Memory of the activations of one example, in the dtypes of the network.

  `saved` is what autodiff keeps for the backward pass of a training step, with the auxiliary heads
  and without the loss: the residuals of `jax.vjp` that depend on the example. Parameters and what
  is made of them alone are not counted. `largest` is the largest array of a prediction.

  Both are those of the program as written. XLA fuses and recomputes elementwise operations, so what
  a device needs is less.

  Args:
    model: a network of `create_model`.
    shape: [*S,C] of the example.
  """
  import jax

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
  saved = _results(_trace(residuals, variables, shape))
  arrays = [var for equation in _equations(_trace(predict, variables, shape))
            if any(depends & _EXAMPLE for depends in equation.depends_on)
            for var in equation.equation.outvars]
  largest = max(arrays, key=_bytes)
  return ActivationBytes(sum(_bytes(var) for var, depends in saved.items() if depends & _EXAMPLE),
                         _bytes(largest), tuple(largest.aval.shape))


def printed_rows(modules: int, num_parameters: int) -> list[str]:
  """Sentences that name the rows of table III which print these counts, to two decimals.

  Args:
    modules: `Flops.modules` at `PAPER_INPUT`.
    num_parameters: of the whole network.
  """
  counts = ((modules / 1e9, 'G'), (num_parameters / 1e6, 'M parameters'))
  rows = [f'{value:.2f} {unit} at this input: table III of SADANet prints it in the row "{row}".'
          for column, (value, unit) in enumerate(counts) for row, printed in TABLE_3.items()
          if f'{value:.2f}' == f'{printed[column]:.2f}']
  return [*rows, _MISLABELED] if rows else []


def measure_cost(model, inputs: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """Every count of a network as plain numbers, ready for JSON.

  Args:
    model: a network of `create_model`.
    inputs: the shape [*S,C] of every input, at least one, by name.

  Returns:
    'parameters' of the first input: 'total', and by part 'prediction' and 'training'; 'inputs': by
    name 'shape', 'parameters', 'flops_modules', 'flops_products', 'flops_attention', 'saved_bytes',
    'largest_bytes' and 'largest_shape' (with the batch axis); 'table_3': what `printed_rows` says.
  """
  by_part = [parameters(model, shape) for shape in inputs.values()]
  counts, sentences = {}, []
  for (name, shape), parts in zip(inputs.items(), by_part):
    operations, memory = flops(model, shape), activation_bytes(model, shape)
    counts[name] = {
        'shape': list(shape), 'parameters': parts.total,
        **{f'flops_{kind}': count for kind, count in operations._asdict().items()},
        'saved_bytes': memory.saved, 'largest_bytes': memory.largest,
        'largest_shape': list(memory.largest_shape)}
    if tuple(shape) == PAPER_INPUT:
      sentences = printed_rows(operations.modules, parts.total)
  return {'parameters': {'total': by_part[0].total, **by_part[0]._asdict()}, 'inputs': counts,
          'table_3': sentences}


def inputs_of(data: Mapping[str, Any], size: str | None = None,
              channels: int | None = None) -> dict[str, tuple[int, ...]]:
  """Inputs to count at: the config's image and patch, or one of `size`, and the paper's.

  Args:
    data: config.data.
    size: 'height,width', or 'depth,height,width' where images are volumes.
    channels: instead of the config's.

  Raises:
    ValueError: sizes or channels that are not positive whole numbers, or too many or few of them.
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
  shapes = list(inputs.values())
  return {name: shape for i, (name, shape) in enumerate(inputs.items())
          if shape not in shapes[:i]}


def print_cost(report: Mapping[str, Any], title: str, console=None) -> None:
  """Prints what `measure_cost` returns.

  Args:
    report: of `measure_cost`.
    title: what the network is called.
    console: a rich Console; the terminal by default.
  """
  from rich.box import SIMPLE_HEAD
  from rich.console import Console
  from rich.table import Table

  console = console or Console()

  def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], heading: str) -> None:
    table = Table(box=SIMPLE_HEAD, title=heading, title_justify='left', title_style='bold')
    for i, column in enumerate(columns):
      table.add_column(column, justify='right' if i else 'left')
    for row in rows:
      table.add_row(*row)
    console.print(table)

  by_part, inputs = report['parameters'], report['inputs']
  print_table(
      [f'parameters, {next(iter(inputs.values()))["shape"][-1]}-channel input', 'number'],
      [*((part, f'{size:,}') for part, size in by_part['prediction'].items()),
       *((f'{part} (training only)', f'{size:,}') for part, size in by_part['training'].items()),
       ('total', f'{by_part["total"]:,}')], title)
  lines = {'parameters, M': ('parameters', 1e6),
           'convolution modules, G': ('flops_modules', 1e9),
           'matrix products, G': ('flops_products', 1e9),
           '  of attention alone, G': ('flops_attention', 1e9),
           'kept for backward, MB': ('saved_bytes', 1e6),
           'largest activation, MB': ('largest_bytes', 1e6)}
  print_table(
      ['one example', *(f'{name}\n{"x".join(map(str, counts["shape"]))}'
                        for name, counts in inputs.items())],
      [(line, *(f'{counts[key] / unit:,.2f}' for counts in inputs.values()))
       for line, (key, unit) in lines.items()], 'operations and memory')
  notes = [
      "Convolution modules: what MMSegmentation's counter prints for a prediction, without the "
      'products of attention: multiply-adds of convolutions, 2 per element of a batch norm, 1 per '
      'bias, ReLU and pooled element.',
      'Matrix products: multiply-adds of convolutions and of attention, 2 per element of a batch '
      'norm.', *report['table_3']]
  for note in notes:
    console.print(note, highlight=False)


class _Call(NamedTuple):
  """A call of a layer: its path in the network and its operations."""
  path: tuple[str, ...]
  products: int
  bias: int
  norm: int


class _Program(NamedTuple):
  """A traced function, and what each of its arguments depends on."""
  jaxpr: Any
  depends_on: list[int]


class _Equation(NamedTuple):
  """An equation of a program: how often it runs, in which scopes, on what its operands depend."""
  equation: Any
  times: int | None
  scope: tuple[str, ...]
  depends_on: list[int]


def _image(shape: Sequence[int]):
  import jax
  import jax.numpy as jnp

  return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _init(model, shape: Sequence[int], *, train: bool) -> dict[str, Any]:
  """Shapes of the variables of a network."""
  import jax

  def init(image):
    return model.init({'params': jax.random.key(0), 'dropout': jax.random.key(1)}, image,
                      train=train)

  return dict(jax.eval_shape(init, _image(shape)))


def _trace(function, variables, shape: Sequence[int]) -> _Program:
  """The program of function(variables, image, key)."""
  import jax

  key = jax.eval_shape(lambda: jax.random.key(0))
  jaxpr = jax.make_jaxpr(function)(variables, _image(shape), key)
  return _Program(jaxpr, [_VARIABLES] * len(jax.tree.leaves(variables)) + [_EXAMPLE, _EXAMPLE])


@contextlib.contextmanager
def _counted_calls() -> Iterator[list[_Call]]:
  """Lists the calls of layers traced in its block, whose equations are then in scope `_LAYER`."""
  import flax.linen as nn
  import jax

  from spinejax.models import layers

  calls = []

  def intercept(method, args, kwargs, context):
    module = context.module
    counted = isinstance(module, (layers.Conv, layers.DepthwiseConv, layers.ConvTranspose,
                                  layers.BatchNorm))
    if not counted or context.method_name != '__call__':
      return method(*args, **kwargs)
    with jax.named_scope(_LAYER):
      outputs = method(*args, **kwargs)
    y = outputs[0] if isinstance(outputs, tuple) else outputs
    if isinstance(module, layers.BatchNorm):
      calls.append(_Call(module.path, 0, 0, 2 * y.size))
    elif isinstance(module, layers.ConvTranspose):  # its windows do not overlap
      calls.append(_Call(module.path, args[0].shape[-1] * y.size, y.size, 0))
    elif isinstance(module, layers.DepthwiseConv):
      calls.append(_Call(module.path, module.window ** (y.ndim - 2) * y.size, 0, 0))
    else:
      parts = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
      taps = module.window ** (y.ndim - 2) * sum(part.shape[-1] for part in parts)
      calls.append(_Call(module.path, taps * y.size, y.size * module.use_bias, 0))
    return outputs

  with nn.intercept_methods(intercept):
    yield calls


def _equations(program: _Program, times: int | None = 1, scope: tuple[str, ...] = (),
               known: dict | None = None) -> Iterator[_Equation]:
  """The equations of a program and, after each, those within it.

  `times` is None where it depends on data. `known` is filled with what every variable of the
  program depends on; what a loop works on counts as depending on all that it takes.
  """
  from jax.extend import core

  known = {} if known is None else known
  jaxpr = getattr(program.jaxpr, 'jaxpr', program.jaxpr)
  known.update(zip(jaxpr.invars, program.depends_on))
  for equation in jaxpr.eqns:
    kind = equation.primitive.name
    inner_scope = scope + tuple(filter(None, str(equation.source_info.name_stack).split('/')))
    depends_on = [_look_up(known, var) for var in equation.invars]
    anything = functools.reduce(operator.or_, depends_on, 0)
    yield _Equation(equation, times, inner_scope, depends_on)
    results = [anything] * len(equation.outvars)
    for inner in core.jaxprs_in_params(equation.params):
      inner_known: dict[Any, int] = {}
      if kind in ('scan', 'while', 'cond'):
        turns = None if times is None or kind != 'scan' else times * equation.params['length']
        yield from _equations(_Program(inner, [anything] * len(inner.invars)), turns, inner_scope)
      elif (len(inner.invars), len(inner.outvars)) == (len(depends_on), len(results)):
        yield from _equations(_Program(inner, depends_on), times, inner_scope, inner_known)
        results = [_look_up(inner_known, var) for var in inner.outvars]
    known.update(zip(equation.outvars, results))


def _results(program: _Program) -> dict[Any, int]:
  """What each result of a program depends on; one that is returned twice is there once."""
  known: dict[Any, int] = {}
  for _ in _equations(program, known=known):
    pass
  jaxpr = getattr(program.jaxpr, 'jaxpr', program.jaxpr)
  return {var: known.get(var, 0) for var in jaxpr.outvars if not _is_literal(var)}


def _is_literal(var) -> bool:
  from jax.extend import core

  return isinstance(var, core.Literal)


def _look_up(known: Mapping[Any, int], var) -> int:
  return 0 if _is_literal(var) else known.get(var, 0)


def _multiply_adds(equation) -> int:
  """Of a matrix product or a convolution; 0 of anything else."""
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    taps = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
  elif equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    taps = math.prod(kernel) // kernel[equation.params['dimension_numbers'].rhs_spec[0]]
  else:
    return 0
  return taps * _size(equation.outvars[0])


def _size(var) -> int:
  return math.prod(var.aval.shape)


def _bytes(var) -> int:
  return _size(var) * var.aval.dtype.itemsize


def main(argv) -> None:
  del argv
  config, path = flags.FLAGS.config, flags.FLAGS.json
  if config is None:
    raise ValueError('--config=FILE is needed, such as --config=configs/seam.py:ours.')
  inputs = inputs_of(config.data, flags.FLAGS.size, flags.FLAGS.channels)
  path = None if path is None else pathlib.Path(path)
  if path is not None and path.is_dir():
    raise ValueError(f'--json must be a file, {path} is a folder.')
  import jax

  from spinejax import models

  jax.config.update('jax_platforms', 'cpu')  # nothing is computed; leave accelerators alone
  report = measure_cost(models.create_model(config.model), inputs)
  print_cost(report, config.model.name)
  if path is not None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'model': config.model.to_dict(), **report}, indent=2) + '\n')


if __name__ == '__main__':  # flags are defined here, so that others may import the functions above
  config_flags.DEFINE_config_file(
      'config', None, 'Config file and variant, such as configs/seam.py:ours.', lock_config=True)
  flags.DEFINE_string(
      'size', None, "Height and width, such as 512,512, instead of the config's sizes.")
  flags.DEFINE_integer('channels', None, "Channels, instead of the config's.")
  flags.DEFINE_string('json', None, 'File to write the counts to; its folder is made.')
  cli.run(main)
