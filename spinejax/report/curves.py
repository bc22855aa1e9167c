"""Charts: losses, validation, ROC, metrics of single cases, and agreement of measured angles.

`classes` are class names by index, background first. Undefined values are left out.
"""
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spinejax import colors
from spinejax.metrics.results import Agreement, CaseResult, RocCurve
from spinejax.metrics.robustness import Stress
from spinejax.report import formats, style

MAX_POINTS = 300  # of a training curve; longer ones are averaged in as many bins
DOTTED_BELOW = 20  # points; shorter curves show each point
_DASHES = ('-', (0, (6, 2)), (0, (2, 1.2)), (0, (6, 2, 1.5, 2)))
_PART_DASHES = ('--', ':', '-.', (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P')  # of runs
_BAND_COLOR = '#56b4e9'
_MANY = 200  # dots; more are drawn smaller and lighter
_SMALL = style.FONT - 1  # points

History = Sequence[Mapping[str, Any]]
Angles = Sequence[float | None]


def loss_figure(history: History) -> Figure:
  """Training loss, its parts and validation loss by step; below them the learning rate.

  Args:
    history: rows of metrics.jsonl with `step`, `phase` ('train' or 'validation'), `loss`, the
      parts `loss/name`, and `learning_rate`. If a step has several rows, the last one counts. More
      than MAX_POINTS rows are averaged in bins; a band shows the range of the loss in each bin.
  """
  rate_steps, rate = _series(history, 'train', 'learning_rate')
  has_rate = len(rate) > 0
  figure = Figure(figsize=(6.2, 3.9), layout='constrained')
  axes = figure.subplots(2 if has_rate else 1, sharex=True, squeeze=False,
                         height_ratios=[4, 1] if has_rate else None)[:, 0]
  axis = axes[0]
  steps, mean, low, high = _binned(*_series(history, 'train', 'loss'))
  axis.fill_between(steps, low, high, color=colors.BLUE, alpha=0.2, linewidth=0)
  axis.plot(steps, mean, color=colors.BLUE, linewidth=1.6, label='training', **_dot(steps))
  validation_steps, validation = _series(history, 'validation', 'loss')
  axis.plot(validation_steps, validation, color=colors.VERMILION, linewidth=1.4, marker='o',
            markersize=3.5, label='validation')
  parts = sorted({key for row in history if row.get('phase') == 'train' for key in row
                  if key.startswith('loss/')})
  for index, key in enumerate(parts):
    part_steps, part, _, _ = _binned(*_series(history, 'train', key))
    axis.plot(part_steps, part, color=style.MUTED, linewidth=1.1,
              linestyle=_PART_DASHES[index % len(_PART_DASHES)],
              label=f'training, {key.removeprefix("loss/").replace("_", " ")}')
  values = np.concatenate([low, validation])
  if not len(values):
    style.write_message(axis, 'no training history')
  elif values.min() > 0 and values.max() > 30 * values.min():
    axis.set_yscale('log')
  style.finish_axes(axis, '', 'loss', legend=True)
  if has_rate:
    axes[1].plot(rate_steps, rate, color=style.MUTED, linewidth=1.2)
    axes[1].set_ylim(bottom=0)
    axes[1].ticklabel_format(axis='y', style='sci', scilimits=(0, 0), useMathText=False)
    axes[1].yaxis.get_offset_text().set(color=style.MUTED, size=_SMALL)
    style.finish_axes(axes[1], '', 'learning rate')
  axes[-1].set_xlabel('step', color=style.MUTED, fontsize=style.FONT)
  return figure


def validation_figure(history: History, classes: Sequence[str]) -> Figure:
  """Validation Dice of each class and of both means by step; the best foreground mean is marked.

  The rows of `history`, as in `loss_figure`, have `dice/CLASS`, `dice/mean_foreground` and
  `dice/mean_all`.
  """
  figure, axis = _chart(6.2, 3.9)
  foreground = formats.MEANS['mean_foreground']
  steps, dice = _series(history, 'validation', 'dice/mean_foreground')
  axis.plot(steps, dice, color=style.INK, linewidth=2, label=foreground, zorder=3, **_dot(steps))
  if len(steps):
    top = int(np.argmax(dice))
    axis.plot(steps[top], dice[top], 'o', color=style.INK, markersize=7, markerfacecolor='none',
              zorder=4)
    axis.set_title(f'best {foreground}: {dice[top]:.3f} at step {int(steps[top])}',
                   fontsize=style.FONT, color=style.INK, loc='left')
  axis.plot(*_series(history, 'validation', 'dice/mean_all'), color=style.MUTED, linewidth=1.4,
            linestyle='--', label=formats.MEANS['mean_all'])
  for index, name in list(enumerate(classes))[1:]:
    steps, dice = _series(history, 'validation', f'dice/{name}')
    if len(steps):
      axis.plot(steps, dice, color=colors.class_color(index), linewidth=1.3, label=name,
                **_dot(steps))
  if not any(np.size(line.get_xdata()) for line in axis.get_lines()):
    style.write_message(axis, 'no validation history')
  axis.set_ylim(top=1.0)
  style.finish_axes(axis, 'step', 'validation Dice', legend=True)
  return figure


def accuracy_figure(history: History) -> Figure:
  """Share of the validation pixels that get their class, by epoch (Selvia's X-ray U-Net, fig. 1).

  The rows of `history`, as in `loss_figure`, have `epoch` and `accuracy/mean_all`.
  """
  figure, axis = _chart(6.2, 3.2)
  steps, accuracy = _series(history, 'validation', 'accuracy/mean_all')
  epochs = dict(zip(*_series(history, 'validation', 'epoch')))
  axis.plot([epochs.get(step, math.nan) for step in steps], accuracy, color=colors.BLUE,
            linewidth=1.6, **_dot(steps))
  if not len(steps):
    style.write_message(axis, 'no validation history')
  style.finish_axes(axis, 'epoch', 'validation pixel accuracy')
  return figure


def roc_figure(roc: Mapping[str, RocCurve], classes: Sequence[str]) -> Figure:
  """ROC curve over pixels of each class against the rest, with its area.

  The curve of 'any_foreground' is that of all foreground classes against the background.
  """
  figure, axis = _chart(4.6, 4.4)
  axis.plot([0, 1], [0, 1], color=style.RULE, linewidth=1, zorder=1)
  for name in sorted(roc, key=[*classes, *roc].index):
    curve, index = roc[name], classes.index(name) if name in classes else None
    if curve.auc is None:
      continue
    axis.plot(curve.fpr, curve.tpr, linewidth=1.7 if index is None else 2.0,
              color=style.INK if index is None else colors.class_color(index),
              linestyle=(0, (1, 1.2)) if index is None else _DASHES[index % len(_DASHES)],
              label=f'{"any foreground" if index is None else name}, AUC {curve.auc:.3f}')
  ticks = np.linspace(0, 1, 6)
  axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect='equal', xticks=ticks, yticks=ticks)
  if len(axis.get_lines()) == 1:
    style.write_message(axis, 'no class has both positive and negative pixels')
  style.finish_axes(axis, 'false positive rate', 'true positive rate', legend=True)
  return figure


def joint_roc_figure(roc: Mapping[str, Mapping[str, RocCurve]], classes: Sequence[str]) -> Figure:
  """The ROC curves of all runs, {run: {class: curve}}: a chart for each class, with the areas."""
  names = [name for name in [*classes, 'any_foreground']
           if any(name in of_run for of_run in roc.values())]
  figure = Figure(figsize=(3.6 * max(len(names), 1), 3.7), layout='constrained')
  for axis, name in zip(figure.subplots(1, max(len(names), 1), squeeze=False)[0], names):
    axis.plot([0, 1], [0, 1], color=style.RULE, linewidth=1, zorder=1)
    for place, (run, of_run) in enumerate(roc.items()):
      curve = of_run.get(name)
      if curve and curve.auc is not None:
        axis.plot(curve.fpr, curve.tpr, linewidth=1.6, linestyle=_DASHES[place % len(_DASHES)],
                  color=colors.RUN_COLORS[place % len(colors.RUN_COLORS)],
                  label=f'{_short(run)}, AUC {curve.auc:.3f}')
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect='equal')
    axis.set_title('any foreground' if name == 'any_foreground' else name, fontsize=style.FONT,
                   color=style.INK, loc='left', parse_math=False)
    style.finish_axes(axis, 'false positive rate', 'true positive rate', legend=True)
  return figure


def case_dice_figure(cases: Mapping[str, CaseResult], classes: Sequence[str]) -> Figure:
  """Dice of every case as a dot, by class, with the median as a line."""
  columns = {name: (name, colors.class_color(i)) for i, name in enumerate(classes) if i}
  columns['mean_foreground'] = formats.MEANS['mean_foreground'], style.INK
  figure, axis = _chart(max(3.2, 1.6 + 1.2 * len(columns)), 4.4)
  lowest = 1.0
  for place, (key, (_, color)) in enumerate(columns.items()):
    values = np.sort(_defined(case.overlap.get('dice', {}).get(key) for case in cases.values()))
    if len(values):
      lowest = min(lowest, values[0])
      axis.plot(place + _sideways(values, 0.5), values, 'o', color=color, markersize=5, alpha=0.8,
                markeredgewidth=0, clip_on=False)
      axis.plot([place - 0.32, place + 0.32], [np.median(values)] * 2, color=style.INK,
                linewidth=1.6)
  axis.set_xticks(range(len(columns)), [textwrap.fill(name, 12) for name, _ in columns.values()],
                  parse_math=False)
  axis.set(xlim=(-0.6, len(columns) - 0.4), ylim=(max(0.0, math.floor(lowest * 10 - 0.5) / 10), 1))
  style.finish_axes(axis, '', 'Dice per case')
  axis.grid(axis='x', visible=False)
  return figure


def box_figure(values: Mapping[str, Sequence[float | None]], name: str) -> Figure:
  """Box plot of the values of each run, with every case as a dot and the mean as a diamond.

  A box has the median and the quartiles; whiskers are at most 1.5 interquartile ranges long.
  """
  labels = [_short(run) for run in values]
  longest = max(map(len, labels), default=0)
  figure, axis = _chart(4.4 + 0.066 * longest, 0.8 + 0.46 * max(len(values), 1))
  for place, run_values in enumerate(values.values()):
    found, color = _defined(run_values), colors.RUN_COLORS[place % len(colors.RUN_COLORS)]
    if len(found):
      axis.boxplot(found, positions=[place], orientation='horizontal', widths=0.56, whis=1.5,
                   showfliers=False, patch_artist=True, whiskerprops={'color': color},
                   boxprops={'facecolor': (*to_rgb(color), 0.25), 'edgecolor': color},
                   capprops={'color': color}, medianprops={'color': style.INK, 'linewidth': 1.8})
      axis.plot(found, place + _sideways(found, 0.32), 'o', color=color, markersize=3.6, alpha=0.8,
                markeredgewidth=0, zorder=3)
      axis.plot(found.mean(), place, 'D', color=style.INK, markersize=4.6, markerfacecolor='none',
                zorder=4)
  if not axis.get_lines():
    style.write_message(axis, 'no value')
  axis.set_yticks(range(len(values)), labels, parse_math=False)
  axis.set_ylim(len(values) - 0.5, -0.5)
  style.finish_axes(axis, name, '')
  axis.grid(axis='y', visible=False)
  axis.tick_params(axis='y', length=0, labelcolor=style.INK)
  return figure


def stress_figure(found: Stress) -> Figure:
  """Every metric of every run against the strength of each artifact, with intervals as bands."""
  metrics, columns = found.shown_metrics, len(found.artifacts)
  figure = Figure(figsize=(0.9 + 2.15 * columns, 0.7 + 1.8 * len(metrics)), layout='constrained')
  axes = figure.subplots(len(metrics), columns, sharex=True, sharey='row', squeeze=False)
  for column, (artifact, stressed) in enumerate(found.artifacts.items()):
    axes[0, column].set_title(formats.stress_name(artifact), fontsize=style.FONT, color=style.INK)
    for row, metric in enumerate(metrics):
      axis = axes[row, column]
      for place, (run, levels) in enumerate(stressed.levels.items()):
        spreads = [level.metrics[metric] for level in levels]
        mean, low, high = (np.array([getattr(spread, end) for spread in spreads], float)
                           for end in ('mean', 'low', 'high'))
        color = colors.RUN_COLORS[place % len(colors.RUN_COLORS)]
        axis.fill_between(found.strengths, low, high, color=color, alpha=0.18, linewidth=0)
        axis.plot(found.strengths, mean, color=color, linewidth=1.6, label=run,
                  marker=_MARKERS[place % len(_MARKERS)], markersize=4)
      name = 'angle error, degrees' if metric == 'error_deg' else (
          formats.STRESS_METRICS[metric][0].partition(',')[0])
      style.finish_axes(axis, 'strength' if row == len(metrics) - 1 else '', '' if column else name)
  drawn = figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center',
                        ncols=min(len(found.workdirs), max(1, columns)), frameon=False,
                        fontsize=style.FONT, labelcolor=style.INK)
  for text in drawn.get_texts():
    text.set_parse_math(False)
  return figure


def bland_altman(reference: Angles, other: Angles, agreement: Agreement,
                 names: tuple[str, str] = ('A', 'B')) -> Figure:
  """Difference of each case over the mean of its pair, with bias and limits of agreement.

  The intervals of the three lines are shaded.

  Args:
    reference, other: [n] degrees; pairs with None or NaN are left out.
    agreement: of these angles.
    names: of the two measurements.
  """
  figure, axis = _chart(6.2, 4.2)
  pairs = _finite_pairs(reference, other, axis)
  if not len(pairs):
    return figure
  means, differences = pairs.mean(1), pairs[:, 1] - pairs[:, 0]
  lower, upper = agreement.limits or (None, None)
  dashed = (0, (5, 2))
  lines = [(name, value, *rest) for name, value, *rest in (
      ('+1.96 SD', upper, agreement.upper_limit_ci, colors.VERMILION, dashed),
      ('bias', agreement.bias, agreement.bias_ci, colors.BLUE, '-'),
      ('−1.96 SD', lower, agreement.lower_limit_ci, colors.VERMILION, dashed))
           if value is not None]
  axis.axhline(0, color=style.MUTED, linewidth=0.9, zorder=1)
  for _, value, interval, color, dashes in lines:
    axis.axhline(value, color=color, linewidth=1.5, linestyle=dashes, zorder=2)
    if interval is not None:
      axis.axhspan(*interval, color=color, alpha=0.13, linewidth=0, zorder=0)
  _draw_dots(axis, means, differences)
  axis.set_xlim(_range(means.tolist(), at_least=10.0))
  heights = [value for _, value, *_ in lines]
  bottom, top = _range([*differences, *heights, 0.0], at_least=4.0)
  axis.set_ylim(bottom, top)
  if len(heights) == 3:  # labels of the limits keep a distance from that of the bias
    gap = 0.062 * (top - bottom)
    heights = [max(heights[0], heights[1] + gap), heights[1], min(heights[2], heights[1] - gap)]
  for (name, value, _, color, _), height in zip(lines, heights):
    axis.annotate(f'{name} {formats.format_difference(value, 1)}°', (1.01, height), color=color,
                  xycoords=('axes fraction', 'data'), va='center', fontsize=_SMALL,
                  annotation_clip=False)
  style.finish_axes(axis, f'mean of {names[0]} and {names[1]}, degrees',
                    f'{names[1]} − {names[0]}, degrees')
  return figure


def scatter(reference: Angles, other: Angles, agreement: Agreement,
            names: tuple[str, str] = ('A', 'B')) -> Figure:
  """One measurement against the other, with the line of identity and the bands of severity.

  Tinted squares hold the cases that both measurements put into one band. Dotted lines mark a
  difference of `agreement.limit` degrees. The arguments are those of `bland_altman`.
  """
  figure, axis = _chart(4.8, 4.8)
  pairs = _finite_pairs(reference, other, axis)
  if not len(pairs):
    return figure
  low, high = _range([*pairs.ravel(), 0.0], at_least=20.0)
  limits = [limit for limit in agreement.bands.limits if limit is not None]
  edges = [edge for edge in (*(-limit for limit in reversed(limits)), *limits) if low < edge < high]
  for start, end in zip([low, *edges], [*edges, high]):
    axis.add_patch(Rectangle((start, start), end - start, end - start, color=_BAND_COLOR,
                             alpha=0.16, linewidth=0, zorder=0))
  for edge in edges:
    for line in (axis.axhline, axis.axvline):
      line(edge, color=style.MUTED, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
  starts, ends = [max(low, 0.0), *limits], [min(limit, high) for limit in (*limits, high)]
  for name, start, end in zip(agreement.bands.names, starts, ends):
    if end - start > 0.022 * len(name) * (high - low):
      axis.annotate(name, ((start + end) / 2, 1.01), xycoords=('data', 'axes fraction'),
                    ha='center', va='bottom', fontsize=_SMALL, color=style.MUTED,
                    annotation_clip=False, parse_math=False)
  axis.axline((0, 0), slope=1, color=style.INK, linewidth=1.2, zorder=2, label='equal')
  for sign, label in ((1, f'{agreement.limit:g}° off'), (-1, None)):
    axis.axline((0, sign * agreement.limit), slope=1, color=colors.VERMILION, linewidth=1.0,
                linestyle=(0, (1.5, 1.5)), zorder=2, label=label)
  _draw_dots(axis, *pairs.T)
  axis.set(xlim=(low, high), ylim=(low, high), aspect='equal')
  axis.set_yticks([tick for tick in axis.get_xticks() if low <= tick <= high])
  axis.set_xticks(axis.get_yticks())
  style.finish_axes(axis, f'{names[0]}, degrees', f'{names[1]}, degrees', legend=True)
  return figure


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
  """A figure of a size in inches with one axis."""
  figure = Figure(figsize=(width, height), layout='constrained')
  return figure, figure.subplots()


def _short(run: str) -> str:
  """The name of a run in 34 characters at most."""
  return (textwrap.shorten(run, 34, placeholder='…') if ' ' in run or len(run) <= 34
          else f'{run[:16]}…{run[-17:]}')


def _dot(steps: np.ndarray) -> dict[str, Any]:
  return {'marker': 'o', 'markersize': 4} if len(steps) <= DOTTED_BELOW else {}


def _defined(values: Iterable[float | None]) -> np.ndarray:
  return np.array([value for value in values if value is not None], float)


def _series(history: History, phase: str, key: str) -> tuple[np.ndarray, np.ndarray]:
  """Steps and finite values of one quantity, by rising step."""
  values = {row['step']: row[key] for row in history
            if row.get('phase') == phase and 'step' in row and row.get(key) is not None
            and math.isfinite(row[key])}
  steps = sorted(values)
  return np.array(steps, float), np.array([values[step] for step in steps], float)


def _binned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
  """Mean step, and mean, lowest and highest value of consecutive rows in MAX_POINTS bins."""
  if len(steps) <= MAX_POINTS:
    return steps, values, values, values
  starts = np.linspace(0, len(steps), MAX_POINTS, endpoint=False).astype(int)
  counts = np.diff(np.append(starts, len(steps)))
  return (np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts,
          np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def _sideways(values: np.ndarray, width: float) -> np.ndarray:
  """Offsets within `width`, multiples of the golden ratio, that keep dots of like values apart."""
  return width * ((np.arange(len(values)) * 0.618 + 0.5) % 1 - 0.5)


def _finite_pairs(reference: Angles, other: Angles, axis: Axes) -> np.ndarray:
  """Pairs of angles, float [n,2]; without one `axis` says so."""
  pairs = np.stack([np.asarray(values, np.float64) for values in (reference, other)], 1)
  pairs = pairs[np.isfinite(pairs).all(1)]
  if not len(pairs):
    style.write_message(axis, 'no pair of angles')
    axis.set_axis_off()
  return pairs


def _draw_dots(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
  axis.plot(x, y, 'o', color=style.INK, markersize=4.6 if len(x) <= _MANY else 3,
            alpha=0.6 if len(x) <= _MANY else 0.3, markeredgewidth=0, zorder=3,
            rasterized=len(x) > 10 * _MANY)


def _range(values: Sequence[float], at_least: float) -> tuple[float, float]:
  """Ends of an axis: the values with a margin, and no narrower than `at_least`."""
  low, high = float(min(values)), float(max(values))
  half = max(0.54 * (high - low), at_least / 2)
  return (low + high) / 2 - half, (low + high) / 2 + half
