"""Counts the parameters, operations and activations of a network, without running it.

  spinejax cost --config=configs/sadanet.py:danet
  spinejax cost --config=seam:ours --size=2048,512 --json=cost.json

The counts are for the image and patch size of the config, or for --size, and for the input of table
III of SADANet (Xie et al., 2023), 512x512x3. A count that this table prints is shown with its row.
"""
import json
import pathlib
from collections.abc import Iterable, Sequence

from absl import flags

from spinejax.commands import cli

POSITIONALS = ()

cli.define_config()
_SIZE = flags.DEFINE_string(
    'size', None, 'Size of the image instead of those of the config, such as 512,512.')
_CHANNELS = flags.DEFINE_integer('channels', None, 'Channels instead of those of the config.')
_JSON = flags.DEFINE_string('json', None, 'File to write the counts to; its folder is created.')

_LINES = {  # field of the counts, and unit
    'parameters, M': ('parameters', 1e6), 'convolution modules, G': ('flops_modules', 1e9),
    'matrix products, G': ('flops_products', 1e9),
    '  of attention alone, G': ('flops_attention', 1e9),
    'kept for backward, MB': ('saved_bytes', 1e6),
    'largest activation, MB': ('largest_bytes', 1e6)}
_NOTES = (
    "Convolution modules: what MMSegmentation's counter prints for a prediction, without the "
    'products of attention: multiply-adds of convolutions, 2 per element of a batch norm and 1 '
    'per bias, ReLU and pooled element.',
    'Matrix products: multiply-adds of convolutions and of attention, 2 per element of a batch '
    'norm.')


def _print_cost(report, title: str) -> None:
  """Prints a `models.cost.Cost` under the name of the network."""
  from rich.box import SIMPLE_HEAD
  from rich.console import Console
  from rich.table import Table

  console = Console()

  def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], heading: str) -> None:
    table = Table(box=SIMPLE_HEAD, title=heading, title_justify='left', title_style='bold')
    for i, column in enumerate(columns):
      table.add_column(column, justify='right' if i else 'left')
    for row in rows:
      table.add_row(*row)
    console.print(table)

  by_part, inputs = report.parameters, report.inputs
  print_table(
      [f'parameters, {next(iter(inputs.values())).shape[-1]}-channel input', 'number'],
      [*((part, f'{size:,}') for part, size in by_part.prediction.items()),
       *((f'{part} (training only)', f'{size:,}') for part, size in by_part.training.items()),
       ('total', f'{by_part.total:,}')], title)
  print_table(
      ['one example', *(f'{name}\n{"x".join(map(str, counts.shape))}'
                        for name, counts in inputs.items())],
      [(line, *(f'{getattr(counts, field) / unit:,.2f}' for counts in inputs.values()))
       for line, (field, unit) in _LINES.items()], 'operations and memory')
  for note in (*_NOTES, *report.table_3):
    console.print(note, highlight=False)


def main(_) -> None:
  config = flags.FLAGS.config
  if config is None:
    raise ValueError('--config=CONFIG is needed, such as --config=configs/seam.py:ours.')
  path = pathlib.Path(_JSON.value) if _JSON.value else None
  if path is not None and path.is_dir():
    raise ValueError(f'--json must be a file, {path} is a folder.')
  import jax  # late: --help and config errors need no JAX

  from spinejax import models
  from spinejax.models import cost

  jax.config.update('jax_platforms', 'cpu')  # nothing is computed; accelerators stay free
  inputs = cost.inputs_of(config.data, _SIZE.value, _CHANNELS.value)
  report = cost.measure_cost(models.create_model(config.model), inputs)
  _print_cost(report, config.model.name)
  if path is not None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {'model': config.model.to_dict(), **report.to_json()}
    path.write_text(json.dumps(content, indent=2) + '\n')
