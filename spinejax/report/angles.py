"""Figures of measured angles: image, mask, levels, midline, and curves with their angles."""
from collections.abc import Sequence

import matplotlib.patheffects
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from spinejax import colors
from spinejax.data import resize
from spinejax.measurement.results import AngleResult, Curve
from spinejax.report import formats, overlays, style

_HALO = [matplotlib.patheffects.withStroke(linewidth=2.6, foreground='#000000')]


def angle_figure(image: np.ndarray | None, mask: np.ndarray, result: AngleResult,
                 classes: Sequence[str]) -> Figure:
  """Two panels: the image, and the image with mask, levels, midline and curves.

  Each of the three largest curves is shown with its angle between its two end lines, which are
  perpendicular to the midline. Panels have the proportions of the image in millimeters.

  Args:
    image: [H,W] or [H,W,C], gray levels 0..255; None shows the mask alone on black.
    mask: int [H,W].
    result: of the mask; a failed one is shown without curves.
    classes: class names by index, background first.
  """
  mask = np.asarray(mask).astype(np.uint8)
  steps = np.asarray((result.spacing or (1.0, 1.0))[:2])
  size = style.shown_size(np.maximum(1, mask.shape * steps / steps.min()).round())
  scale = np.array(size) / mask.shape
  titles = ['Mask and angle'] if image is None else ['Image', 'Mask and angle']
  figure, axes = style.panels(titles, size)
  shown = style.resize_image(
      np.zeros_like(mask) if image is None else colors.to_bytes(image), size)
  for axis in axes:
    style.show_image(axis, shown)
    axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
  axis = axes[-1]

  def to_panel(points) -> np.ndarray:
    return (np.asarray(points, np.float64)[:, :2] + 0.5) * scale - 0.5

  handles: list[Artist] = []
  small = resize.resize_nearest(mask, size)
  for index in np.unique(small[small > 0]):
    color = colors.class_color(index)
    _fill(axis, small == index, color)
    name = classes[index] if index < len(classes) else f'class {index}'
    handles.append(Patch(facecolor=color, alpha=0.6, label=name))
  for level in result.levels:
    if level.left and level.right:
      _plot(axis, to_panel([level.left, level.right]), colors.LEVEL_COLOR, 1.1)
  if result.midline:
    midline = to_panel(result.midline)
    _plot(axis, midline, colors.MIDLINE_COLOR, 1.5)
    handles.append(Line2D([], [], color=colors.MIDLINE_COLOR, linewidth=2, label='midline'))
    largest_first = sorted(result.curves, key=lambda curve: -curve.angle_deg)
    for curve, color in reversed(list(zip(largest_first, colors.CURVE_COLORS))):
      rows = (np.array([curve.upper_row, curve.lower_row, curve.apex_row]) + 0.5) * scale[0] - 0.5
      _draw_curve(axis, curve, rows, midline, color, is_main=curve is largest_first[0])
  if result.status == 'fail':
    style.write_message(axis, 'no angle')
  style.legend_below(figure, handles)
  return figure


def _plot(axis: Axes, points: np.ndarray, color: str, width: float, **options) -> None:
  """Draws a line through points (row, column) with a dark halo."""
  axis.plot(points[:, 1], points[:, 0], color=color, linewidth=width, path_effects=_HALO, **options)


def _fill(axis: Axes, region: np.ndarray, color: str) -> None:
  """Tints and outlines a region of pixels."""
  rgba = np.zeros((*region.shape, 4), np.uint8)
  rgba[region] = (*colors.color_bytes(color), 90)
  axis.imshow(rgba, interpolation='none', aspect='auto')
  overlays.draw_outlines(axis, region, color, 0.8)


def _draw_curve(axis: Axes, curve: Curve, rows: np.ndarray, midline: np.ndarray, color: str,
                is_main: bool) -> None:
  """Draws the end lines, the midline [n,2] between them, and the angle at the apex.

  `rows` are those of the upper end, the lower end and the apex. The main curve is drawn larger.
  """
  width = axis.get_xlim()[1] + 0.5
  columns = np.interp(rows, *midline.T)
  slopes = np.interp(rows, midline[:, 0], np.gradient(midline[:, 1], midline[:, 0]))
  half = width * (0.32 if is_main else 0.22)
  for row, column, slope in list(zip(rows, columns, slopes))[:2]:
    run = half / np.hypot(1, slope)
    ends = np.array([[row + run * slope, column - run], [row - run * slope, column + run]])
    _plot(axis, ends, color, 2.0 if is_main else 1.3, solid_capstyle='round')
  between = (midline[:, 0] >= rows[0]) & (midline[:, 0] <= rows[1])
  _plot(axis, midline[between], color, 2.2 if is_main else 1.5, solid_capstyle='butt')
  is_right = columns[2] < width / 2  # the side of the apex with more room
  inches = axis.bbox.width / axis.figure.dpi
  axis.text(width - 1 if is_right else 0, rows[2], formats.curve_angle(curve),
            ha='right' if is_right else 'left', va='center', color='#ffffff',
            fontsize=min(17, 8 * inches) * (1 if is_main else 0.7), fontweight='bold',
            bbox=dict(boxstyle='round,pad=0.2', facecolor=color, edgecolor='white', linewidth=0.8))
