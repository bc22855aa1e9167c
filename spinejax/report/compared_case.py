"""One test case as several runs segment it, side by side.

These are the figures 3 and 4 of RSN-U-net (Huang et al., 2020), 3 of SEAM (Zhao et al., 2021) and 6
of SADANet (Xie et al., 2023).
"""
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from spinejax import colors
from spinejax.data import resize
from spinejax.metrics.results import ComparedCase
from spinejax.report import formats, overlays, style

ZOOM = 0.5  # side of the window, as a share of the image's shorter side
_GAP, _HEAD, _LINE = 0.09, 0.36, 0.24  # inches between panels, for titles, and for a line below
_LEAST_WIDTH = 0.9  # inches of a panel
_WINDOW_COLOR = colors.VERMILION


class Window(NamedTuple):
  """A part of an image, in pixels."""
  top: int
  left: int
  height: int
  width: int


def largest_disagreement(masks: Sequence[np.ndarray], label: np.ndarray, side: int
                         ) -> Window | None:
  """The window in which the most pixels differ between the masks.

  If all masks are the same, they are compared with the label; None if they are that too. Of equal
  windows it is the one nearest to their mean. The masks, at least one, and the label are int [H,W].
  The window has `side` x `side` pixels, or less where H or W is less.
  """
  differs = np.any([mask != masks[0] for mask in masks], axis=0)
  if not differs.any():
    differs = masks[0] != label
  if not differs.any():
    return None
  height, width = (min(side, n) for n in label.shape)
  total = np.pad(differs.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  counts = (total[height:, width:] - total[:-height, width:] - total[height:, :-width]
            + total[:-height, :-width])
  corners = np.argwhere(counts == counts.max())
  top, left = corners[np.square(corners - corners.mean(0)).sum(1).argmin()].tolist()
  return Window(top, left, height, width)


def compared_figure(case: ComparedCase, classes: Sequence[str]) -> Figure:
  """A column for the image, the truth and each run.

  Its rows are whole images with the Dice of the run below, the window of `largest_disagreement`
  with the contour of the truth, and the probabilities if the case has them.
  """
  columns: dict[str, np.ndarray | None] = {'Image': None, 'Truth': case.label, **case.masks}
  shape, masks = case.label.shape, list(case.masks.values())
  window = largest_disagreement(masks, case.label, max(1, round(ZOOM * min(shape))))
  width = max(_LEAST_WIDTH, min(math.sqrt(style.PANEL_AREA * shape[1] / shape[0]),
                                (style.ROW_WIDTH + _GAP) / len(columns) - _GAP))
  whole = width * shape[0] / shape[1]
  heights = [whole]
  if window:
    heights.append(width * window.height / window.width)
  if case.probs:
    heights.append(whole)
  figure, rows = _grid(list(columns), width, heights)
  size = style.shown_size(shape)
  for axis, (name, mask) in zip(rows[0], columns.items()):
    _show_mask(axis, case.image, mask, size, classes)
    if window:
      _frame(axis, window.left / shape[1], 1 - (window.top + window.height) / shape[0],
             window.width / shape[1], window.height / shape[0])
    if name in case.masks:
      axis.text(0.5, -0.04 / whole, f'Dice {formats.format_value(case.dice[name])}', ha='center',
                va='top', transform=axis.transAxes, fontsize=style.FONT, color=style.INK)
  if window:
    for axis, (name, mask) in zip(rows[1], columns.items()):
      _show_window(axis, case, mask, window, classes, with_truth=name in case.masks)
  if case.probs:
    _show_probabilities(figure, rows[-1], case.probs, list(columns), size)
  style.legend_below(figure, _legend(classes, with_window=window is not None))
  return figure


def _grid(titles: Sequence[str], width: float, heights: Sequence[float]
          ) -> tuple[Figure, list[list[Axes]]]:
  """A figure with rows of panels, one column for each title; widths and heights are in inches."""
  spaces = [_LINE, *[_GAP] * (len(heights) - 1)]  # below the rows
  figure_width = len(titles) * (width + _GAP) - _GAP
  figure_height = _HEAD + sum(heights) + sum(spaces) + style.FOOT
  figure = Figure(figsize=(figure_width, figure_height))
  rows, bottom = [], figure_height - _HEAD
  for height, space in zip(heights, spaces):
    bottom -= height
    rows.append([figure.add_axes((
        i * (width + _GAP) / figure_width, bottom / figure_height, width / figure_width,
        height / figure_height)) for i in range(len(titles))])
    bottom -= space
  for axis in sum(rows, []):
    axis.set_axis_off()
  for axis, title in zip(rows[0], titles):
    style.write_title(axis, title, width)
  return figure, rows


def _show_mask(axis: Axes, image: np.ndarray, mask: np.ndarray | None, size: tuple[int, int],
               classes: Sequence[str]) -> None:
  """Shows an image at `size`, with its mask if there is one."""
  shown = style.resize_image(colors.to_bytes(image), size)
  if mask is not None:
    shown = overlays.overlay(shown, resize.resize_nearest(mask, size), classes)
  style.show_image(axis, shown)


def _show_window(axis: Axes, case: ComparedCase, mask: np.ndarray | None, window: Window,
                 classes: Sequence[str], with_truth: bool) -> None:
  """Shows a window at the original pixels, with the contour of the truth if asked for."""
  top, left, height, width = window

  def cut(array: np.ndarray) -> np.ndarray:  # with a margin, where contours are closed
    sides = ((1, 1), (1, 1), *[(0, 0)] * (array.ndim - 2))
    return np.pad(array, sides, mode='edge')[top:top + height + 2, left:left + width + 2]

  _show_mask(axis, cut(case.image), None if mask is None else cut(mask), (height + 2, width + 2),
             classes)
  if with_truth:
    overlays.draw_outlines(axis, cut(case.label), colors.TRUTH_COLOR, 1.2)
  axis.set(xlim=(0.5, width + 0.5), ylim=(height + 0.5, 0.5))
  _frame(axis, 0, 0, 1, 1)


def _show_probabilities(figure: Figure, axes: Sequence[Axes], probs: Mapping[str, np.ndarray],
                        names: Sequence[str], size: tuple[int, int]) -> None:
  """Shows the heat map of each run, and the color bar in the column of the truth."""
  for axis, name in zip(axes, names):
    if name in probs:
      shown = style.show_image(
          axis, style.resize_image(np.clip(probs[name], 0, 1).astype(np.float32), size))
      shown.set(cmap='inferno', clim=(0.0, 1.0))
  left, bottom, width, height = axes[1].get_position().bounds
  middle, inch = bottom + height / 2, 1 / figure.get_figheight()
  style.probability_bar(
      figure, shown, (left + 0.1 * width, middle, 0.8 * width, 0.09 * inch))
  figure.text(left + width / 2, middle + 0.16 * inch, 'probability of\nthe foreground',
              ha='center', va='bottom', fontsize=style.FONT - 1, color=style.MUTED)


def _frame(axis: Axes, left: float, bottom: float, width: float, height: float) -> None:
  """Draws the frame of a window, in shares of the axes."""
  axis.add_patch(Rectangle((left, bottom), width, height, transform=axis.transAxes, fill=False,
                           linewidth=1.4, edgecolor=_WINDOW_COLOR, clip_on=False))


def _legend(classes: Sequence[str], with_window: bool) -> list[Artist]:
  handles: list[Artist] = [Patch(facecolor=colors.class_color(i), label=name)
                           for i, name in enumerate(classes) if i]
  if with_window:
    handles += [Line2D([], [], color=colors.TRUTH_COLOR, linewidth=2.2, label='truth contour'),
                Patch(facecolor='none', edgecolor=_WINDOW_COLOR, label='largest disagreement')]
  return handles
