"""The style that all figures share: colors, fonts, panels of images, axes and legends.

Figures are `matplotlib.figure.Figure` objects made without pyplot, so no global state changes.
"""
import io
import math
import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from spinejax import runs

INK, MUTED, RULE = '#1c2024', '#5d6672', '#dfe3e8'  # text, secondary text, grid lines
FONT = 9.0  # points
FOOT = 0.46  # inches below the panels, for a legend or a color bar
PANEL_AREA = 7.8  # square inches
ROW_WIDTH = 11.5  # inches; panels beyond this width go to the next row
MAX_PANEL_PIXELS = 300_000  # larger images are reduced, which keeps the pages small


def shown_size(size: Sequence[float]) -> tuple[int, int]:
  """Size at which an image [H,W] is shown: its own, or one of MAX_PANEL_PIXELS pixels."""
  scale = min(1.0, math.sqrt(MAX_PANEL_PIXELS / (size[0] * size[1])))
  return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """An image [H,W] or [H,W,3] at `size`, by linear interpolation."""
  return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def panels(titles: Sequence[str], size: tuple[int, int]) -> tuple[Figure, list[Axes]]:
  """A figure of equal panels for images of `size`, in as few rows as ROW_WIDTH allows."""
  gap, head = 0.09, 0.36  # inches between columns, and above each row for the titles
  width = math.sqrt(PANEL_AREA * size[1] / size[0])
  height = PANEL_AREA / width
  columns = min(len(titles), max(1, int((ROW_WIDTH + gap) / (width + gap))))
  rows = math.ceil(len(titles) / columns)
  total_width = columns * (width + gap) - gap
  total_height = rows * (height + head) + FOOT
  figure = Figure(figsize=(total_width, total_height))
  axes = []
  for index, title in enumerate(titles):
    row, column = divmod(index, columns)
    axis = figure.add_axes((column * (width + gap) / total_width,
                            1 - (row + 1) * (height + head) / total_height,
                            width / total_width, height / total_height))
    lines = textwrap.wrap(title, max(6, int(width / 0.075)), max_lines=2, placeholder='…')
    axis.set_title('\n'.join(lines), fontsize=FONT, color=INK, pad=4, parse_math=False,
                   linespacing=1.05)
    axis.set_axis_off()
    axes.append(axis)
  return figure, axes


def show_image(axis: Axes, image: np.ndarray) -> AxesImage:
  """Shows an image of gray levels 0..255 or RGB that fills its axes."""
  return axis.imshow(image, cmap='gray', vmin=0, vmax=255, interpolation='none', aspect='auto')


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
  """Adds a legend below the panels, in as many rows as it needs."""
  width = figure.get_size_inches()[0]
  widths = [0.36 + 0.058 * len(str(handle.get_label())) for handle in handles]  # inches
  columns = len(handles) if sum(widths) <= width else max(1, int(width / max(widths)))
  legend = figure.legend(handles=handles, loc='upper center', ncols=columns, frameon=False,
                         bbox_to_anchor=(0.5, FOOT / figure.get_figheight()), fontsize=FONT - 1,
                         labelcolor=INK, handlelength=1.2, handleheight=0.8, columnspacing=1.2,
                         handletextpad=0.5, borderaxespad=0.4)
  for text in legend.get_texts():
    text.set_parse_math(False)


def finish_axes(axis: Axes, x_label: str, y_label: str, legend: bool = False) -> None:
  """Labels the axes of a chart and applies the style; `$` in labels is a plain character."""
  axis.set_xlabel(x_label, color=MUTED, fontsize=FONT, parse_math=False)
  axis.set_ylabel(y_label, color=MUTED, fontsize=FONT, parse_math=False)
  axis.set_facecolor('none')
  axis.spines[['top', 'right']].set_visible(False)
  axis.spines[['left', 'bottom']].set_color(MUTED)
  axis.tick_params(colors=MUTED, labelsize=FONT, width=0.6, length=3, which='both')
  axis.grid(color=RULE, linewidth=0.7)
  axis.set_axisbelow(True)
  if legend and axis.get_legend_handles_labels()[0]:
    drawn = axis.legend(fontsize=FONT, labelcolor=INK, frameon=False, handlelength=2.2)
    for text in drawn.get_texts():
      text.set_parse_math(False)


def write_message(axis: Axes, message: str) -> None:
  """Writes a message in the middle of axes that have nothing to show."""
  axis.text(0.5, 0.5, message, transform=axis.transAxes, ha='center', color=MUTED, fontsize=FONT)


def save_png(path: str | os.PathLike, figure: Figure, *, tight: bool = False) -> None:
  """Writes a figure as PNG of 150 dots per inch, atomically; `tight` cuts the empty margin."""
  data = io.BytesIO()
  figure.savefig(data, format='png', dpi=150, facecolor='white',
                 bbox_inches='tight' if tight else None, pad_inches=0.05)
  runs.write_bytes(path, data.getvalue())
