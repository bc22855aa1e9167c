"""Figures of two measurements of the same angles: Bland-Altman plot, and one against the other."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spinejax.report import figures
from spinejax.report import tables

_SMALL = figures.FONT - 1  # points
_BAND_COLOR = '#56b4e9'


def bland_altman(reference: Sequence[float | None], other: Sequence[float | None],
                 agreement: Mapping[str, Any], names: tuple[str, str] = ('A', 'B')) -> Figure:
  """Difference of each case over the mean of its pair, with bias and limits of agreement.

  Shaded are the intervals of the three lines.

  Args:
    reference, other: [n] degrees; pairs with None or NaN are left out.
    agreement: of the same angles, by `metrics.agreement.agree`; what it leaves undefined (limits of
      fewer than two pairs) is not drawn.
    names: of the two measurements.
  """
  pairs = _pairs(reference, other)
  means, differences = pairs.mean(1), pairs[:, 1] - pairs[:, 0]
  limits: Sequence[Any] = agreement['limits'] or (None, None)
  lower, upper = limits
  lines = [line for line in (
      ('+1.96 SD', upper, agreement['upper_limit_ci'], figures.VERMILION, (0, (5, 2))),
      ('bias', agreement['bias'], agreement['bias_ci'], figures.BLUE, '-'),
      ('−1.96 SD', lower, agreement['lower_limit_ci'], figures.VERMILION, (0, (5, 2))))
           if line[1] is not None]
  figure = Figure(figsize=(6.2, 4.2), layout='constrained')
  axis = figure.subplots()
  if not len(pairs):
    return _without_pairs(figure, axis)
  axis.axhline(0, color=figures.MUTED, linewidth=0.9, zorder=1)
  for _, value, interval, color, dashes in lines:
    axis.axhline(value, color=color, linewidth=1.5, linestyle=dashes, zorder=2)
    if interval is not None:
      axis.axhspan(*interval, color=color, alpha=0.13, linewidth=0, zorder=0)
  _dots(axis, means, differences)
  axis.set_xlim(_range(means, at_least=10.0))
  bottom, top = _range([*differences, *(value for _, value, *_ in lines), 0.0], at_least=4.0)
  axis.set_ylim(bottom, top)
  heights = _apart([value for _, value, *_ in lines], 0.062 * (top - bottom))
  for (name, value, _, color, _), height in zip(lines, heights):
    axis.annotate(f'{name} {tables.format_difference(value, 1)}°', (1.01, height), color=color,
                  xycoords=('axes fraction', 'data'), va='center', fontsize=_SMALL,
                  annotation_clip=False)
  _finish(axis, f'mean of {names[0]} and {names[1]}, degrees',
          f'{names[1]} − {names[0]}, degrees')
  return figure


def scatter(reference: Sequence[float | None], other: Sequence[float | None],
            agreement: Mapping[str, Any], names: tuple[str, str] = ('A', 'B')) -> Figure:
  """One measurement against the other, with the line of identity and the limits of the bands.

  Tinted squares hold the cases that both put into one band; dotted lines are `limit` degrees off.

  Args:
    reference, other: [n] degrees; pairs with None or NaN are left out.
    agreement: of the same angles, by `metrics.agreement.agree`.
    names: of the two measurements, the reference (horizontal) first.
  """
  pairs = _pairs(reference, other)
  figure = Figure(figsize=(4.8, 4.8), layout='constrained')
  axis = figure.subplots()
  if not len(pairs):
    return _without_pairs(figure, axis)
  low, high = _range([*pairs.ravel(), 0.0], at_least=20.0)
  bands = agreement['bands']
  edges = [edge for edge in bands['limits'] if edge is not None]
  edges = [edge for edge in [*(-edge for edge in edges[::-1]), *edges] if low < edge < high]
  for start, end in zip([low, *edges], [*edges, high]):
    axis.add_patch(Rectangle((start, start), end - start, end - start, color=_BAND_COLOR,
                             alpha=0.16, linewidth=0, zorder=0))
  for edge in edges:
    for line in (axis.axhline, axis.axvline):
      line(edge, color=figures.MUTED, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
  axis.axline((0, 0), slope=1, color=figures.INK, linewidth=1.2, zorder=2, label='equal')
  for sign, label in ((1, f'{agreement["limit"]:g}° off'), (-1, None)):
    axis.axline((0, sign * agreement['limit']), slope=1, color=figures.VERMILION, linewidth=1.0,
                linestyle=(0, (1.5, 1.5)), zorder=2, label=label)
  _dots(axis, *pairs.T)
  axis.set(xlim=(low, high), ylim=(low, high), aspect='equal')
  axis.set_yticks([tick for tick in axis.get_xticks() if low <= tick <= high])
  axis.set_xticks(axis.get_yticks())
  for name, start, end in _spans(bands, low, high):
    axis.annotate(name, ((start + end) / 2, 1.01), xycoords=('data', 'axes fraction'),
                  ha='center', va='bottom', fontsize=_SMALL, color=figures.MUTED,
                  annotation_clip=False)
  _finish(axis, f'{names[0]}, degrees', f'{names[1]}, degrees', legend=True)
  return figure


def _pairs(reference, other) -> np.ndarray:
  pairs = np.stack([np.asarray(values, np.float64) for values in (reference, other)], 1)
  return pairs[np.isfinite(pairs).all(1)]


def _without_pairs(figure: Figure, axis: Axes) -> Figure:
  figures.say(axis, 'no pair of angles')
  axis.set_axis_off()
  return figure


def _dots(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
  axis.plot(x, y, 'o', color=figures.INK, markersize=4.6 if len(x) <= 200 else 3,
            alpha=0.6 if len(x) <= 200 else 0.3, markeredgewidth=0, zorder=3,
            rasterized=len(x) > 2000)


def _range(values: Sequence[float], at_least: float) -> tuple[float, float]:
  """Ends of an axis: the values and a margin, no narrower than `at_least`."""
  low, high = float(min(values)), float(max(values))
  half = max(0.54 * (high - low), at_least / 2)
  return (low + high) / 2 - half, (low + high) / 2 + half


def _apart(heights: Sequence[float], gap: float) -> list[float]:
  """Descending heights of three labels at most, moved off the middle one by at least `gap`."""
  if len(heights) < 3:
    return list(heights)
  upper, middle, lower = heights
  return [max(upper, middle + gap), middle, min(lower, middle - gap)]


def _spans(bands: Mapping[str, Any], low: float, high: float) -> list[tuple[str, float, float]]:
  """(name, start, end) of the bands of positive angles that are wide enough for their name."""
  starts = [max(low, 0.0), *bands['limits'][:-1]]
  ends = [high if end is None else min(end, high) for end in bands['limits']]
  return [(name, start, end) for name, start, end in zip(bands['names'], starts, ends)
          if end - start > 0.022 * len(name) * (high - low)]


def _finish(axis: Axes, x_label: str, y_label: str, legend: bool = False) -> None:
  figures.style(axis, x_label, y_label, legend=legend)
  for label in (axis.xaxis.label, axis.yaxis.label, *axis.texts):
    label.set_parse_math(False)
