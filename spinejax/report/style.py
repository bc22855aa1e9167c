"""The style that all figures share, and figures as PNG files and as SVG inside a page.

Figures are `matplotlib.figure.Figure` objects made without pyplot, so no global state changes.
"""
import base64
import io
import math
import os
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
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
_THEME = {INK: 'var(--ink)', MUTED: 'var(--muted)', RULE: 'var(--rule)'}  # colors of the page
_NEEDLESS_SVG = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>| xmlns(:\w+)?="[^"]*"| version="[^"]*"'
    r'| (width|height)="[\d.]+pt"| font-family: [^;"]*;', re.DOTALL)


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
  rows = math.ceil(len(titles) / max(1, int((ROW_WIDTH + gap) / (width + gap))))
  columns = math.ceil(len(titles) / rows)
  total_width = columns * (width + gap) - gap
  total_height = rows * (height + head) + FOOT
  figure = Figure(figsize=(total_width, total_height))
  axes = []
  for index, title in enumerate(titles):
    row, column = divmod(index, columns)
    axis = figure.add_axes((column * (width + gap) / total_width,
                            1 - (row + 1) * (height + head) / total_height,
                            width / total_width, height / total_height))
    write_title(axis, title, width)
    axis.set_axis_off()
    axes.append(axis)
  return figure, axes


def write_title(axis: Axes, title: str, width: float) -> None:
  """Writes a title above axes of `width` inches, in two lines at most."""
  lines = textwrap.wrap(title, max(6, int(width / 0.075)), max_lines=2, placeholder='…')
  axis.set_title('\n'.join(lines), fontsize=FONT, color=INK, pad=4, parse_math=False,
                 linespacing=1.05)


def show_image(axis: Axes, image: np.ndarray) -> AxesImage:
  """Shows an image of gray levels 0..255 or RGB that fills its axes."""
  return axis.imshow(image, cmap='gray', vmin=0, vmax=255, interpolation='none', aspect='auto')


def probability_bar(figure: Figure, shown: AxesImage, box: tuple[float, float, float, float]
                    ) -> None:
  """Draws a horizontal color bar of probabilities; the box is in shares of the figure."""
  place = figure.add_axes(box)
  bar: Any = figure.colorbar(shown, cax=place, orientation='horizontal', ticks=[0, 0.5, 1])
  bar.outline.set_visible(False)
  place.tick_params(length=0, labelsize=FONT - 1, labelcolor=MUTED, pad=2)


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


def embed(figure: Figure, prefix: str, description: str) -> Markup:
  """A figure as an <svg> element that follows the colors and fonts of the page.

  Args:
    figure: drawn with the colors of this module where it should follow the page.
    prefix: put before every id; different for each figure of a page.
    description: what a screen reader says instead of the picture.
  """
  text = io.StringIO()
  settings: Any = {'svg.fonttype': 'none', 'svg.hashsalt': prefix, 'image.composite_image': False}
  with matplotlib.rc_context(settings):
    figure.savefig(text, format='svg', facecolor='none', metadata={'Date': None})
  svg = text.getvalue()
  svg = _NEEDLESS_SVG.sub('', svg[svg.index('<svg'):])
  used = set(re.findall(r'(?:url\(|href=")#([^")]*)', svg))
  svg = re.sub(r' id="([^"]*)"',
               lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else '', svg)
  svg = re.sub(r'(url\(|href=")#', rf'\1#{prefix}-', svg)
  svg = svg.replace('xlink:href', 'href')
  svg = re.sub(r'(?<=data:image/png;base64,)[^"]*', lambda found: base64.b64encode(
      shrink_png(base64.b64decode(found[0]))).decode(), svg)
  svg = re.sub(r'(?<=[ML] )(-?[\d.]+) (-?[\d.]+) *\n',
               lambda point: f'{float(point[1]):.2f} {float(point[2]):.2f}\n', svg)
  for color, variable in _THEME.items():
    svg = svg.replace(color, variable)
  return Markup(svg.replace('<svg', f'<svg role="img" aria-label="{escape(description)}"', 1))


def shrink_png(data: bytes) -> bytes:
  """The same pixels as a smaller PNG: gray, a palette of up to 256 colors, or RGB if opaque."""
  image = Image.open(io.BytesIO(data)).convert('RGBA')
  if image.getchannel('A').getextrema() == (255, 255):
    image = image.convert('RGB')
    pixels = np.asarray(image).astype(np.int32)
    codes, indices = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True)
    if (pixels == pixels[..., :1]).all():
      image = image.convert('L')
    elif len(codes) <= 256:
      image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode='P')
      image.putpalette(np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1)
                       .astype(np.uint8).tobytes())
  out = io.BytesIO()
  image.save(out, format='PNG', optimize=True)
  return out.getvalue()
