"""Measures how time and memory grow with image, batch, classes, laminae, positions and winding.

  python -m benchmarks.growth                     # about 3 minutes on two cores
  python -m benchmarks.growth --curves=criss_cross,position,channel --figure=attention.png
  python -m benchmarks.growth --output=growth.jsonl --figure=growth.png

Each curve repeats one computation while one quantity grows and all others stay fixed and small. The
computations are training steps of networks and attention modules with Adam, values and gradients of
losses, counts, components, and the measurement of laminae. They are compiled as in a run, for one
device. Memory is that of the compiled program: arguments, results and temporary arrays. On the host
it is the peak of Python and NumPy.

The exponent e of cost ~ quantity^e is a least-squares fit to the logarithms of the upper half of
the points, where fixed costs matter less, with the minimum of the times. It is printed beside the
smallest exponent that any implementation has for large quantities. Other programs on the machine
change the times, but not the memory. --output=FILE gets one JSON object per point, appended.
--figure=FILE (PNG, PDF or SVG) gets the curves.
"""
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
import numpy as np

from benchmarks import checks
from benchmarks import harness
from benchmarks import worker
from spinejax.commands import cli

Row = dict[str, Any]
# Key and unit of each cost, by the label of its axis.
COSTS = {'time of a call, ms': ('time', 1e-3), 'memory, MB': ('memory', 1e6)}
_PICTURES = ('.png', '.pdf', '.svg')
_SLACK = 0.2  # an exponent may exceed the smallest possible one by this, for fixed costs and noise


@dataclasses.dataclass(frozen=True)
class Curve:
  """A quantity that grows, and the smallest possible exponents of time and memory.

  Attributes:
    title: its name in tables.
    quantity: what `values` count.
    values: in increasing order.
    time, memory: smallest possible exponents; 0 if nothing has to grow.
  """
  title: str
  quantity: str
  values: tuple[int, ...]
  time: float
  memory: float


_PIXELS, _CLASSES = 'pixels or voxels', 'classes'
_LAMINAE, _POSITIONS = 'laminae', 'positions of a map'
_DOUBLING = (2, 4, 8, 16, 32)
_SQUARES = tuple(side ** 2 for side in (16, 24, 32, 48, 64, 96))
CURVES = {
    'unet_pixels': Curve('U-Net', _PIXELS, tuple(2 ** n for n in range(13, 18)), 1, 1),
    'seam_pixels': Curve('SEAM', _PIXELS, tuple(4 ** n for n in (7, 8, 9)), 1, 1),
    'unet_3d_voxels': Curve('3-D U-Net', _PIXELS, tuple(2 ** n for n in (11, 13, 15, 17)), 1, 1),
    'components_pixels': Curve('spiral', _PIXELS, tuple(4 ** n for n in range(5, 11)), 1, 1),
    'unet_batch': Curve('U-Net', 'images of a batch', (1, 2, 4, 8), 1, 1),
    'unet_classes': Curve('U-Net', _CLASSES, _DOUBLING[::2], 1, 1),
    'counts_classes': Curve('counts', _CLASSES, _DOUBLING, 0, 0),
    'seam_loss_classes': Curve('SEAM loss', _CLASSES, _DOUBLING, 1, 1),
    'centroid_laminae': Curve('centroid loss', _LAMINAE, (2, 12, 72), 0, 0),
    'components_laminae': Curve('components', _LAMINAE, (2, 12, 72), 0, 0),
    'measure_laminae': Curve('measurement', _LAMINAE, (17, 34, 68, 136, 192), 2, 2),
    'criss_cross': Curve('criss-cross', _POSITIONS, _SQUARES, 1.5, 1),
    'position': Curve('position', _POSITIONS, (*_SQUARES[2:5], 72 ** 2, 80 ** 2, 88 ** 2), 2, 1),
    'channel': Curve('channel', _POSITIONS, _SQUARES, 1, 1),
    'components_winding': Curve('spiral', 'turns of a spiral', (1, 2, 4, 8, 16, 32, 64), 0, 0),
}


def measure_curve(machine: harness.Machine, name: str, repeats: int, points: int | None = None
                  ) -> Iterator[Row]:
  """Measures the points of a curve of `CURVES` in one process.

  Args:
    machine: of `harness.look_around`.
    name: of the curve.
    repeats: timed turns.
    points: only this many of its smallest values; None: all.

  Yields:
    One row of JSON values per point: `curve`, `quantity`, `value`, `status` ('ok', or 'failed' with
    a `reason`), `wall_median`, `wall_min` and `cpu_median` (seconds per call), `calls` (per turn),
    `repeats`, `bytes`, `load`, `date` and the facts of the machine.
  """
  curve = CURVES[name]
  with worker.started('spinejax') as ask:
    for value in curve.values[:points]:
      row: Row = {'curve': name, 'quantity': curve.quantity, 'value': value}
      try:
        row |= ask('build_point', curve=name, value=value)
        timed = harness.time_programs({'spinejax': (ask, '')}, repeats)
        row |= {'status': 'ok', 'repeats': repeats, **timed['sides']['spinejax']}
      except worker.WorkerError as error:
        row |= {'status': 'failed', 'reason': str(error)}
      yield harness.dated(row, machine)


def exponent(values: Sequence[float], costs: Sequence[float]) -> float | None:
  """e of cost ~ value^e, a least-squares fit to the logarithms of the upper half of the points.

  Uses at least 3 points. None for fewer than two points, or if a cost is 0.
  """
  x, y = (np.array(column[-_num_fitted(len(values)):], float) for column in (values, costs))
  if len(x) < 2 or not (y > 0).all():
    return None
  x, y = np.log(x) - np.log(x).mean(), np.log(y)
  return float(x @ y / (x @ x))


def summarize(rows: Sequence[Row]) -> dict[str, Row]:
  """Facts of each curve, without failed rows.

  Returns:
    For each curve the lists `values`, `time` (minimum, seconds) and `memory` (bytes), and
    `exponents` and `least`, the smallest possible ones, both {time, memory}.
  """
  found = {}
  done = [row for row in rows if row['status'] == 'ok']
  for name in dict.fromkeys(row['curve'] for row in done):
    columns = {column: [row[key] for row in done if row['curve'] == name] for column, key in (
        ('values', 'value'), ('time', 'wall_min'), ('memory', 'bytes'))}
    found[name] = {
        **columns, 'least': {'time': CURVES[name].time, 'memory': CURVES[name].memory},
        'exponents': {cost: exponent(columns['values'], columns[cost])
                      for cost in ('time', 'memory')}}
  return found


def excess(summary: Mapping[str, Row]) -> list[str]:
  """A phrase for every exponent that exceeds the smallest possible one by more than `_SLACK`."""
  return [f'{cost} of {name} ({e:.2f}, not {facts["least"][cost]:g})'
          for name, facts in summary.items() for cost, e in facts['exponents'].items()
          if e is not None and e > facts['least'][cost] + _SLACK]


def print_table(summary: Mapping[str, Row], console) -> None:
  """Prints what `summarize` returns."""
  from rich.box import SIMPLE_HEAD
  from rich.table import Table

  table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
  for i, column in enumerate(('', 'from', 'to', 'ms', 'grows', 'must', 'MB', 'grows', 'must')):
    table.add_column(column, justify='right' if i else 'left', no_wrap=True)
  for name, facts in summary.items():
    cells = [name, *(str(facts['values'][end]) for end in (0, -1))]
    for cost, unit in COSTS.values():
      last = facts[cost][-1] / unit
      cells += [format(last, '.0f' if last >= 100 else '.3g'), _number(facts['exponents'][cost]),
                f'{facts["least"][cost]:g}']
    table.add_row(*cells)
  console.print(table)


def draw(summary: Mapping[str, Row]):
  """A matplotlib Figure with one column per quantity, time above memory, and logarithmic axes.

  Each curve ends in its name and exponent. A thin line through its largest point, over the fitted
  points, grows by the smallest possible exponent. Unknown costs, which are 0, are left out.
  """
  from matplotlib.figure import Figure

  from spinejax import colors
  from spinejax.report import style

  quantities = list(dict.fromkeys(CURVES[name].quantity for name in summary))
  figure = Figure(figsize=(max(2.7 * len(quantities), 4.5), 6), layout='constrained')
  figure.suptitle('Exponents of growth, and the smallest possible ones (thin lines)',
                  x=0.01, ha='left', color=style.INK, fontsize=style.FONT + 1)
  for column, quantity in zip(figure.subplots(2, len(quantities), squeeze=False).T, quantities):
    for axis, (label, (cost, unit)) in zip(column, COSTS.items()):
      names = [name for name in summary
               if CURVES[name].quantity == quantity and min(summary[name][cost]) > 0]
      axis.set(xscale='log', yscale='log')
      for i, name in enumerate(names):
        facts = summary[name]
        x, y = np.array(facts['values'], float), np.array(facts[cost]) / unit
        axis.plot(x, y, color=colors.RUN_COLORS[i], marker='osDv'[i % 4], markersize=4,
                  linewidth=1.8)
        fitted = x[-_num_fitted(len(x)):]
        axis.plot(fitted, y[-1] * (fitted / x[-1]) ** facts['least'][cost], linewidth=0.8,
                  color=style.MUTED, zorder=1)
      low, high = _span(axis.get_ylim())
      axis.set_ylim(np.exp(low), np.exp(high))
      style.finish_axes(axis, quantity if cost == 'memory' else '',
                    label if quantity == quantities[0] else '')
      _set_ticks(axis)
      ends = [(np.log(summary[name][cost][-1] / unit) - low) / (high - low) for name in names]
      for i, (name, height) in enumerate(zip(names, spread(ends, 0.14))):
        facts = summary[name]
        text = (f'{CURVES[name].title}\n{_number(facts["exponents"][cost])}, '
                f'must {facts["least"][cost]:g}')
        axis.text(1.03, height, text, transform=axis.transAxes, color=colors.RUN_COLORS[i],
                  fontsize=style.FONT - 1, va='center', linespacing=1.05)
  return figure


def _span(limits: tuple[float, float], least: float = np.log(30)) -> np.ndarray:
  """Logarithms of the limits of an axis, at least `least` apart, so that noise looks small."""
  low, high = np.log(limits)
  return np.array([low, high]) + max(least - (high - low), 0) / 2 * np.array([-1, 1])


def _set_ticks(axis) -> None:
  """Ticks at powers of 10, and between them if there is room."""
  from matplotlib import ticker

  for side in (axis.xaxis, axis.yaxis):
    low, high = np.log10(side.get_view_interval())
    subs = (1, 2, 5) if high - low < 1.6 else (1, 3) if high - low < 2 else (1,)
    side.set_major_locator(ticker.LogLocator(subs=subs, numticks=20))
    side.set_major_formatter(ticker.FuncFormatter(
        lambda value, _: f'{value / 1e6:g}M' if value >= 1e6 else
        f'{value / 1e3:g}k' if value >= 1e3 else f'{value:g}'))
  axis.minorticks_off()


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
  """Moves heights in [0, 1] at least `gap` apart; keeps their order and none above 1."""
  order = np.argsort(heights, kind='stable')
  steps = gap * np.arange(len(order))
  sorted_heights = np.asarray(heights, float)[order]
  lifted = np.maximum.accumulate(sorted_heights - steps)
  moved = np.empty(len(order))
  moved[order] = np.minimum(lifted, 1 - steps[-1:]) + steps
  return moved


def _num_fitted(num_points: int) -> int:
  return max(num_points // 2, 3)


def _number(e: float | None) -> str:
  """Two decimals without a negative zero; empty for None."""
  return '' if e is None else f'{round(e, 2) + 0.0:.2f}'


def main(argv) -> int:
  del argv
  names = list(CURVES) if flags.FLAGS.curves is None else flags.FLAGS.curves
  checks.check_choice('curves', names, list(CURVES))
  output = checks.check_file('output', flags.FLAGS.output)
  picture = checks.check_file('figure', flags.FLAGS.figure)
  if picture is not None and picture.suffix.lower() not in _PICTURES:
    raise ValueError(f'--figure must end with {", ".join(_PICTURES)}, not {picture.name}.')

  from rich.console import Console

  console = Console()
  machine = harness.look_around(None, probe_size=256)
  console.print(f'{machine.facts["device"]}, {machine.facts["cores"]} cores', highlight=False)
  rows: list[Row] = []
  with console.status('') as status:
    for name in names:
      status.update(f'{len(rows)} points done, measuring {name} ...')
      for row in measure_curve(machine, name, flags.FLAGS.repeats):
        rows.append(row)
        harness.record(row, f'{name} at {row["value"]}', output)
  summary = summarize(rows)
  print_table(summary, console)
  above = '; '.join(excess(summary)) or 'nothing'
  console.print('Minimum milliseconds, and megabytes, at the largest value; their exponents of '
                f'growth, and the smallest possible ones. More than {_SLACK:g} above: {above}.',
                highlight=False, soft_wrap=True)
  if picture is not None and summary:
    draw(summary).savefig(picture, dpi=150)
  return 1 if any(row['status'] != 'ok' for row in rows) else 0


if __name__ == '__main__':  # other modules import the functions without the flags
  flags.DEFINE_list('curves', None, f'Out of {", ".join(CURVES)}; by default all.')
  flags.DEFINE_integer('repeats', 3, 'Timed turns of each point.', lower_bound=1)
  flags.DEFINE_string('output', None, 'File to append a JSON object per point to.')
  flags.DEFINE_string('figure', None, 'PNG, PDF or SVG file to write.')
  cli.run(main)
