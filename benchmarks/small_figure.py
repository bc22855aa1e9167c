"""Draws Dice and angle error of every system of the small protocol.

  python -m benchmarks.small_figure --output=docs/images/small_runs.png

A tick is the mean over seeds, the dots are the seeds. The bar is the 95 % interval of the
difference to the proposed system, drawn about the line at the proposed system's mean: a bar that
crosses the line is no difference that these runs show.
"""
import pathlib
from collections.abc import Sequence

from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import finished_runs, markdown, papers, small_protocol
from benchmarks.small_protocol import METRICS, Metric, System
from spinejax import colors
from spinejax.commands import cli
from spinejax.report import style

POSITIONALS = ()
SHOWN = ('seam', 'sadanet', 'sadanet_grid', 'sadanet_weights')
ROW_HEIGHT = 0.26  # inches


def draw(groups: Sequence[tuple[str, Sequence[System]]]) -> Figure:
  """Panels of Dice and of angle error for groups of systems, the proposed system first."""
  heights = [len(systems) + 1.6 for _, systems in groups]
  figure = Figure(figsize=(9.2, 0.5 + ROW_HEIGHT * sum(heights)), layout='constrained')
  axes = figure.subplots(len(groups), 2, sharex='col', squeeze=False,
                         gridspec_kw={'height_ratios': heights})
  for (title, systems), (left, right) in zip(groups, axes):
    _draw_metric(left, systems, METRICS['dice'])
    _draw_metric(right, systems, METRICS['angle'])
    left.set_yticks(range(len(systems)), [system.row.title for system in systems])
    left.set_title(title, loc='left', fontsize=style.FONT, color=style.INK)
    right.set_yticks(range(len(systems)), [''] * len(systems))
  last = [axis for row in axes[:-1] for axis in row]
  for axis, label in zip([*last, *axes[-1]],
                         [''] * len(last) + ['Dice, mean of the bones', 'angle MAD, degrees']):
    style.finish_axes(axis, label, '')
    axis.grid(axis='y', visible=False)
    axis.tick_params(axis='y', length=0, labelcolor=style.INK)
  return figure


def _draw_metric(axis: Axes, systems: Sequence[System], metric: Metric) -> None:
  proposed = systems[0]
  center = small_protocol.spread(proposed, metric).mean
  if center is None:
    style.write_message(axis, f'{proposed.row.title} has no {metric.title}')
    return
  for place, system in enumerate(systems):
    spread = small_protocol.spread(system, metric)
    if spread.mean is None:
      continue
    color = colors.VERMILION if system is proposed else colors.BLUE
    difference = small_protocol.difference(system, proposed, metric)
    if system is not proposed and difference:
      ends = [center + end for end in (difference.low, difference.high) if end is not None]
      axis.plot(ends, [place] * len(ends), color=color, linewidth=1.6, solid_capstyle='butt')
    axis.plot(spread.mean, place, '|', color=color, markersize=12, markeredgewidth=2.4)
    axis.plot(spread.seeds, [place] * len(spread.seeds), 'o', color=color, markersize=4,
              markerfacecolor='white', markeredgewidth=1, zorder=3)
  axis.axvline(center, color=style.MUTED, linewidth=0.9, zorder=0)
  axis.set_ylim(len(systems) - 0.4, -0.6)


def read_groups(path: pathlib.Path) -> list[tuple[str, list[System]]]:
  """The systems that were run, of the tables in SHOWN whose proposed system was run.

  Raises ValueError where there is none.
  """
  found = finished_runs.read_file(path)
  groups = []
  for table in (papers.TABLES[name] for name in SHOWN):
    systems = [small_protocol.select(found, row) for row in table.rows]
    run = [system for system in systems if system.runs]
    if systems[0].runs and len(run) > 1:
      groups.append((table.name, run))
  if not groups:
    raise ValueError(f'{path} has no runs of a proposed system and of another one.')
  return groups


def main(argv) -> None:
  del argv
  path = markdown.RESULTS / 'small_runs.jsonl'
  style.save_png(flags.FLAGS.output, draw(read_groups(path)))
  print(f'Figure: {flags.FLAGS.output}')


if __name__ == '__main__':  # tests import the functions without the flag
  flags.DEFINE_string('output', None, 'PNG file to write.', required=True)
  cli.run(main)
