"""Figures of measured angles: the image, the mask, the levels found, the curve and its angle."""
import os
from collections.abc import Mapping, Sequence

import matplotlib.patheffects
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from PIL import Image

from spinejax.report import figures

MIDLINE_COLOR, LEVEL_COLOR = figures.TRUTH_COLOR, '#ffffff'
CURVE_COLORS = (figures.VERMILION, figures.BLUE, figures.PREDICTION_COLOR)  # largest angle first
_HALO = [matplotlib.patheffects.withStroke(linewidth=2.6, foreground='#000000')]


def angle_figure(image: np.ndarray | None, mask: np.ndarray, result: Mapping,
                 classes: Sequence[str]) -> Figure:
  """Image | image with mask, lines of the levels, midline, and each curve between its end lines.

  An end line is perpendicular to the midline; the angle of a curve is that between its two. Pixels
  are shown as wide and high as they are in millimeters.

  Args:
    image: [H,W] or [H,W,C], gray levels 0..255; None shows the mask alone, on black.
    mask: int [H,W].
    result: of `spinejax.measure`; a failed one is shown as image and mask, with its reason.
    classes: class names by index, background first.
  """
  mask = np.asarray(mask).astype(np.uint8)
  titles = ['Mask and angle'] if image is None else ['Image', 'Mask and angle']
  image = np.zeros_like(mask) if image is None else figures.to_bytes(image)
  steps = np.asarray((result['spacing'] or (1.0, 1.0))[:2], np.float64)
  size = figures.shown_size(tuple(np.maximum(1, mask.shape * steps / steps.min()).round()))
  scale = np.array(size) / mask.shape
  shown = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
  figure, axes = figures.panels(titles, size)
  for axis in axes:
    figures.show(axis, shown)
    axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
  axis = axes[-1]
  small = figures.nearest(mask, size)
  present = [i for i in np.unique(small) if i]
  for index in present:
    _fill(axis, small == index, figures.class_color(index))
  place = lambda points: (np.asarray(points, np.float64)[:, :2] + 0.5) * scale - 0.5
  for level in result.get('levels') or ():
    if level.get('left') and level.get('right'):
      ends = place([level['left'], level['right']])
      axis.plot(ends[:, 1], ends[:, 0], color=LEVEL_COLOR, linewidth=1.1, path_effects=_HALO)
  handles: list[Artist] = [
      Patch(facecolor=figures.class_color(i), alpha=0.6, label=_name(classes, i)) for i in present]
  line = np.zeros((0, 2))
  if result.get('midline'):
    line = place(result['midline'])
    axis.plot(line[:, 1], line[:, 0], color=MIDLINE_COLOR, linewidth=1.5, path_effects=_HALO)
    handles.append(Line2D([], [], color=MIDLINE_COLOR, linewidth=2, label='midline'))
  order = sorted(result['curves'], key=lambda curve: -curve['angle_deg'])
  for curve, color in list(zip(order, CURVE_COLORS))[::-1]:
    _draw_curve(axis, curve, line, place, color, size, main=curve is order[0])
  if result['status'] == 'fail':
    figures.say(axis, 'no angle')
  figures.legend_below(figure, handles)
  return figure


def save_figure(path: str | os.PathLike, figure: Figure) -> None:
  """Writes a figure as a PNG of 150 dots per inch, replaced only when complete."""
  partial = f'{os.fspath(path)}.partial'
  try:
    figure.savefig(partial, format='png', dpi=150, facecolor='white', bbox_inches='tight',
                   pad_inches=0.05)
    os.replace(partial, path)
  finally:
    if os.path.exists(partial):
      os.remove(partial)


def _name(classes, index) -> str:
  return classes[index] if index < len(classes) else f'class {index}'


def _fill(axis, region, color) -> None:
  """A region of pixels, tinted, with its outline along the pixels' edges."""
  rgba = np.zeros((*region.shape, 4), np.uint8)
  rgba[region] = (*figures.color_bytes(color), 90)
  axis.imshow(rgba, interpolation='none', aspect='auto')
  edges = figures.outline_edges(region)
  path = Path(edges.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(edges)))
  axis.add_patch(PathPatch(path, fill=False, edgecolor=color, linewidth=0.8))


def _draw_curve(axis, curve, line, place, color, size, main) -> None:
  """End lines across the spine, the stretch of midline between them, and the angle."""
  if not len(line):
    return
  rows = place([[curve[f'{end}_row'], 0] for end in ('upper', 'lower', 'apex')])[:, 0]
  columns = np.interp(rows, line[:, 0], line[:, 1])
  slopes = np.interp(rows, line[:, 0], np.gradient(line[:, 1], line[:, 0]))
  half = size[1] * (0.32 if main else 0.22)
  for row, column, slope in list(zip(rows, columns, slopes))[:2]:
    run = half / np.hypot(1, slope)
    axis.plot([column - run, column + run], [row + run * slope, row - run * slope], color=color,
              linewidth=2.0 if main else 1.3, path_effects=_HALO, solid_capstyle='round')
  between = (line[:, 0] >= rows[0]) & (line[:, 0] <= rows[1])
  axis.plot(line[between, 1], line[between, 0], color=color, linewidth=2.2 if main else 1.5,
            path_effects=_HALO, solid_capstyle='butt')
  words = f'{"≥ " if curve["truncated"] else ""}{curve["angle_deg"]:.0f}°'
  right = columns[2] < size[1] / 2  # the side of the apex that has more room
  inches = axis.get_position().width * axis.figure.get_figwidth()
  axis.text(size[1] - 1 if right else 0, rows[2], words, ha='right' if right else 'left',
            va='center', color='#ffffff', fontsize=min(17, 8 * inches) * (1 if main else 0.7),
            fontweight='bold', bbox=dict(boxstyle='round,pad=0.2', facecolor=color,
                                         edgecolor='white', linewidth=0.8))
