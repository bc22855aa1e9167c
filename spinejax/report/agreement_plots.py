"""Figures of two measurements of the same angles: Bland-Altman plot and scatter plot.

Angles are [n] degrees; pairs with None or NaN are left out. `agreement` is that of the same angles,
and `names` are those of the two measurements, the reference first.
"""
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spinejax import colors
from spinejax.metrics.results import Agreement, BandAgreement
from spinejax.report import formats, style

Angles = Sequence[float | None]
_SMALL = style.FONT - 1  # points
_BAND_COLOR = '#56b4e9'
_MANY = 200  # dots; more are drawn smaller and lighter


def bland_altman(reference: Angles, other: Angles, agreement: Agreement,
                 names: tuple[str, str] = ('A', 'B')) -> Figure:
  """Difference of each case over the mean of its pair, with bias and limits of agreement.

  The intervals of the three lines are shaded. Undefined lines are left out.
  """
  pairs = _pairs(reference, other)
  figure = Figure(figsize=(6.2, 4.2), layout='constrained')
  axis = figure.subplots()
  if not len(pairs):
    return _without_pairs(figure, axis)
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
  difference of `agreement.limit` degrees.
  """
  pairs = _pairs(reference, other)
  figure = Figure(figsize=(4.8, 4.8), layout='constrained')
  axis = figure.subplots()
  if not len(pairs):
    return _without_pairs(figure, axis)
  low, high = _range([*pairs.ravel(), 0.0], at_least=20.0)
  _draw_bands(axis, agreement.bands, low, high)
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


def _draw_bands(axis: Axes, bands: BandAgreement, low: float, high: float) -> None:
  """Draws the bands between the ends of both axes, and the names of those that are wide enough."""
  limits = [limit for limit in bands.limits if limit is not None]
  edges = [edge for edge in (*(-limit for limit in reversed(limits)), *limits) if low < edge < high]
  for start, end in zip([low, *edges], [*edges, high]):
    axis.add_patch(Rectangle((start, start), end - start, end - start, color=_BAND_COLOR,
                             alpha=0.16, linewidth=0, zorder=0))
  for edge in edges:
    for line in (axis.axhline, axis.axvline):
      line(edge, color=style.MUTED, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
  starts, ends = [max(low, 0.0), *limits], [min(limit, high) for limit in (*limits, high)]
  for name, start, end in zip(bands.names, starts, ends):
    if end - start > 0.022 * len(name) * (high - low):
      axis.annotate(name, ((start + end) / 2, 1.01), xycoords=('data', 'axes fraction'),
                    ha='center', va='bottom', fontsize=_SMALL, color=style.MUTED,
                    annotation_clip=False, parse_math=False)


def _pairs(reference: Angles, other: Angles) -> np.ndarray:
  pairs = np.stack([np.asarray(values, np.float64) for values in (reference, other)], 1)
  return pairs[np.isfinite(pairs).all(1)]


def _without_pairs(figure: Figure, axis: Axes) -> Figure:
  style.write_message(axis, 'no pair of angles')
  axis.set_axis_off()
  return figure


def _draw_dots(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
  axis.plot(x, y, 'o', color=style.INK, markersize=4.6 if len(x) <= _MANY else 3,
            alpha=0.6 if len(x) <= _MANY else 0.3, markeredgewidth=0, zorder=3,
            rasterized=len(x) > 10 * _MANY)


def _range(values: Sequence[float], at_least: float) -> tuple[float, float]:
  """Ends of an axis: the values with a margin, and no narrower than `at_least`."""
  low, high = float(min(values)), float(max(values))
  half = max(0.54 * (high - low), at_least / 2)
  return (low + high) / 2 - half, (low + high) / 2 + half
