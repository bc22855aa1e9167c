"""Times networks, attention modules and other parts, and compares them with PyTorch.

  spinejax bench                                        # about 5 minutes on two cores
  spinejax bench --systems=unet,fpn --sizes=paper --output=bench.jsonl
  spinejax bench --torch_python=/path/to/python         # PyTorch in an environment of its own

`python -m benchmarks` is the same command. Each system is computed by spinejax and by an
independent PyTorch reference with the same weights (pip install -e .[bench]). Each side has a
process of its own, and they are timed in turns A B A B. Logits, loss and gradient of the first step
are compared first; a row whose sides differ fails and is not timed. With --plain the same networks
of plain Flax operations are a third side. PyTorch uses the fastest of its forms: contiguous arrays,
channels-last arrays and, on GPUs or with --compiled, torch.compile.

Times are per call: a forward pass, or a training step with Adam. Operations are twice the
multiply-adds of the prediction, and three times that for a step. The peak is that of a matrix
product on this machine. Other programs on the machine change all figures; every row has the load
average. --output=FILE gets one JSON object per row, appended.
"""
import sys
from collections.abc import Sequence

from absl import flags

from benchmarks import checks
from benchmarks import systems
from spinejax.commands import cli

POSITIONALS = ()

_NAMES = [*systems.SYSTEMS, *systems.PIECES]
_SYSTEMS = flags.DEFINE_list('systems', None, f'Out of {", ".join(_NAMES)}; by default all.')
_PHASES = flags.DEFINE_list('phases', list(systems.PHASES), 'Out of forward, train.')
_SIZE = flags.DEFINE_enum('sizes', 'quick', systems.SIZES, "Small sizes, or those of the papers.")
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Turns of each side.', lower_bound=1)
_OUTPUT = flags.DEFINE_string('output', None, 'File to append a JSON object per row to.')
_ALONE = flags.DEFINE_bool('without_torch', False, 'Measure only spinejax.')
_TORCH_PYTHON = flags.DEFINE_string(
    'torch_python', None, 'Interpreter with PyTorch, by default this one.')
_PLAIN = flags.DEFINE_bool(
    'plain', False, 'Also measure the same networks of plain Flax operations.')
_COMPILED = flags.DEFINE_bool(
    'compiled', None, 'Also try torch.compile, which takes minutes on CPU; by default on GPUs.')


def side_lines(row: dict) -> list[list[str]]:
  """The lines of a row in the table: its name, then one per side. A failed row has none."""

  def number(value: float | None, unit: float = 1.0) -> str:
    """At least three digits; empty for None and 0."""
    return '' if not value else format(value / unit, ',.0f' if value >= 100 * unit else '.3g')

  lines: list[list[str]] = []
  for side, facts in row.get('sides', {}).items():
    lines.append([
        f'  {side} {facts.get("form", "")}',
        *(number(facts[key], 1e-3) for key in ('wall_median', 'wall_min', 'cpu_median')),
        number(facts.get('compile_seconds')), number(facts.get('peak_bytes'), 1e6),
        number(facts.get('flops_per_second'), 1e9),
        f'{facts["share_of_peak"]:.0%}' if 'share_of_peak' in facts else '',
        f'{row["ratios"][side]:.2f}' if side in row['ratios'] else ''])
  dtype = '' if row['dtype'] == 'float32' else row['dtype']
  name = ' '.join(filter(None, (row['system'], row['phase'], dtype)))
  return [[name, *[''] * 8], *lines] if lines else []


def print_rows(rows: Sequence[dict], console) -> None:
  """Prints the table."""
  from rich.box import SIMPLE_HEAD
  from rich.table import Table

  table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
  columns = ('', 'ms', 'min', 'CPU', 'build', 'MB', 'GF/s', 'peak', 'ratio')
  for i, column in enumerate(columns):
    table.add_column(column, justify='right' if i else 'left', no_wrap=not i)
  for line in (line for row in rows for line in side_lines(row)):
    table.add_row(*line)
  console.print(table)


def main(argv) -> int:
  del argv
  names = _NAMES if _SYSTEMS.value is None else _SYSTEMS.value
  checks.check_choice('systems', names, _NAMES)
  checks.check_choice('phases', _PHASES.value, list(systems.PHASES))
  output = checks.check_file('output', _OUTPUT.value)

  from rich.console import Console

  from benchmarks import harness

  console = Console()
  machine = harness.look_around(None if _ALONE.value else _TORCH_PYTHON.value or sys.executable)
  if machine.note and _TORCH_PYTHON.value:
    raise ValueError(f'--torch_python: {machine.note.partition(": ")[2]}')
  if machine.note:
    console.print(f'{machine.note} Install PyTorch, or give --torch_python=INTERPRETER with it.',
                  highlight=False, soft_wrap=True)
  peaks = ', '.join(f'{peak / 1e9:,.0f} GFLOP/s in {dtype}'
                    for dtype, peak in machine.peaks.items())
  console.print(f'{machine.facts["device"]}, {machine.facts["cores"]} cores, peak {peaks}',
                highlight=False, soft_wrap=True)
  compiled = machine.platform == 'gpu' if _COMPILED.value is None else _COMPILED.value
  rows: list[dict] = []
  with console.status('') as status:
    for name in names:
      status.update(f'{len(rows)} rows done, measuring {name} ...')
      if name in systems.SYSTEMS:
        measured = harness.measure_system(machine, name, _PHASES.value, _SIZE.value,
                                          repeats=_REPEATS.value, compiled=compiled,
                                          plain=_PLAIN.value)
      else:
        measured = iter([harness.measure_piece(machine, name, _SIZE.value,
                                               repeats=_REPEATS.value)])
      for row in measured:
        rows.append(row)
        harness.record(row, f'{row["title"]} {row["phase"] or ""}', output)
  print_rows(rows, console)
  load = rows[-1]['load']
  console.print(
      'Milliseconds per call: median and minimum of wall time, median of CPU time. Seconds of '
      'compilation. GFLOP/s and share of the peak. Ratio of our time to that of the line, median '
      f"of the turns. Load {'unknown' if load is None else round(load, 1)}.",
      highlight=False, soft_wrap=True)
  return 1 if any(row['status'] != 'ok' for row in rows) else 0


if __name__ == '__main__':
  cli.run(main, POSITIONALS)
