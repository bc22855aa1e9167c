"""Masks, probabilities and angles over images: overlay files, and the panels of a case.

Images are gray levels 0..255 [H,W] or [H,W,C]. Masks are int [H,W], 0 = background. `classes` are
class names by index, background first.
"""
import io
import os
from collections.abc import Mapping, Sequence

import matplotlib.patheffects
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from PIL import Image

from spinejax import colors, runs
from spinejax.data import resize
from spinejax.measurement.results import AngleResult, Curve
from spinejax.report import formats, style

FILL = 0.35  # share of the class color inside a predicted region
CONTOUR_STEP = 320  # pixels of the image's shorter side for each pixel of contour width
_HALO = [matplotlib.patheffects.withStroke(linewidth=2.6, foreground='#000000')]


def outline_edges(label: np.ndarray) -> np.ndarray:
  """Borders between pixels of different classes, along the edges of the pixels.

  Outside the array is background, so outlines close at the edge of the image.

  Returns:
    float64 [S,2,2]: S straight segments (start, end) of (x, y) in pixels. Pixel centers are whole
    numbers: the outline of the pixel in row 1 and column 2 has x = 1.5 and 2.5, y = 0.5 and 1.5.
  """
  def runs_of(is_edge):
    steps = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[1]
    return line - 0.5, start - 0.5, end - 0.5

  padded = np.pad(label, 1)
  y, left, right = runs_of(padded[1:, 1:-1] != padded[:-1, 1:-1])
  x, top, bottom = runs_of((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
  horizontal = np.stack([np.stack([left, y], -1), np.stack([right, y], -1)], 1)
  vertical = np.stack([np.stack([x, top], -1), np.stack([x, bottom], -1)], 1)
  return np.concatenate([horizontal, vertical])


def draw_outlines(axis: Axes, label: np.ndarray, color: str, width: float) -> None:
  """Draws the borders of a label map [H,W] on axes that show the image at the same size."""
  edges = outline_edges(label)
  if len(edges):
    path = Path(edges.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(edges)))
    path.should_simplify = False
    axis.add_patch(PathPatch(path, fill=False, edgecolor=color, linewidth=width,
                             capstyle='projecting', snap=False))


def inner_contours(label: np.ndarray, width: int = 1) -> np.ndarray:
  """Pixels of a class within `width` city-block steps of another class, bool [H,W].

  Outside the array is background. A contour does not enlarge its region: the background is False.
  """
  core = label
  for _ in range(width):
    around = np.pad(core, 1)
    is_inside = ((around[:-2, 1:-1] == core) & (around[2:, 1:-1] == core)
                 & (around[1:-1, :-2] == core) & (around[1:-1, 2:] == core))
    core = np.where(is_inside, core, 0)
  return (label > 0) & (core == 0)


def interlace(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image in even rows and its mask in odd rows, uint8 [H,W,3].

  The background of the mask repeats the image at half its brightness. The X-ray U-Net (Selvia,
  section II.E) interlaces X-ray and trimap in this way; its trimaps are almost black.
  """
  rgb = _to_rgb(colors.to_bytes(image))
  colored = np.where(mask[..., None] > 0, _class_colors(mask), rgb // 2)
  is_odd = np.arange(len(rgb)) % 2 == 1
  return np.where(is_odd[:, None, None], colored, rgb)


def overlay(image: np.ndarray, prediction: np.ndarray, classes: Sequence[str] = ()) -> np.ndarray:
  """The image with each predicted class filled and outlined, uint8 [H,W,3].

  A pixel inside a predicted region is 0.65 image + 0.35 class color. The contour is the outermost
  pixels of the region; it is wider than 1 px where the image's shorter side exceeds 480 px.

  Raises:
    ValueError: the sizes differ, or an index has no class.
  """
  rgb = _to_rgb(colors.to_bytes(image))
  prediction = _checked_mask('prediction', prediction, rgb.shape[:2], classes)
  colored = _class_colors(prediction)
  filled = prediction > 0
  result = rgb.copy()
  result[filled] = np.rint((1 - FILL) * rgb[filled] + FILL * colored[filled]).astype(np.uint8)
  contour = inner_contours(prediction, max(1, round(min(rgb.shape[:2]) / CONTOUR_STEP)))
  result[contour] = colored[contour]
  return result


def save_overlay(path: str | os.PathLike, image: np.ndarray, prediction: np.ndarray,
                 classes: Sequence[str] = ()) -> None:
  """Writes `overlay` as a PNG, atomically."""
  data = io.BytesIO()
  Image.fromarray(overlay(image, prediction, classes)).save(data, format='PNG', compress_level=3)
  runs.write_bytes(path, data.getvalue())


def samples_figure(images: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str]) -> Figure:
  """Parts of images [H,W] of equal size as a grid, a row for each name, as wide as the images.

  A part is twice as wide as it is high, and lies where the first and the last image of its row
  differ most.
  """
  height, width = next(iter(images.values()))[0].shape
  part = min(height, max(1, round(height / 8)))
  figure = Figure(figsize=(0.9 + 2.1 * len(columns), 0.3 + 1.3 * len(images)),
                  layout='constrained')
  axes = figure.subplots(len(images), len(columns), squeeze=False)
  for row, (name, pictures) in zip(axes, images.items()):
    change = np.abs(pictures[-1].astype(float) - pictures[0]).sum(1)
    top = int(np.argmax(np.convolve(change, np.ones(part), 'valid')))
    for axis, picture in zip(row, pictures):
      style.show_image(axis, picture[top:top + part])
      axis.set(xticks=[], yticks=[])
      axis.spines[:].set_visible(False)
    row[0].set_ylabel(name, fontsize=style.FONT, color=style.INK, parse_math=False)
  for axis, column in zip(axes[0], columns):
    axis.set_title(column, fontsize=style.FONT, color=style.INK)
  return figure


def overlay_figure(image: np.ndarray, label: np.ndarray, prediction: np.ndarray,
                   classes: Sequence[str], *, interlaced: bool = False) -> Figure:
  """Image, truth, prediction, and image with both contours, as panels with a legend.

  Large images are reduced to `style.MAX_PANEL_PIXELS`; contours follow the pixel edges of the
  reduced masks. `interlaced` adds a panel of `interlace`.
  """
  image = colors.to_bytes(image)
  size = style.shown_size(image.shape)
  truth, predicted = (resize.resize_nearest(_checked_mask(*mask, image.shape[:2], classes), size)
                      for mask in (('label', label), ('prediction', prediction)))
  image = style.resize_image(image, size)
  shades = colors.palette(len(classes))
  shades[0] = 0
  pictures = {'Image': image, 'Truth': shades[truth], 'Prediction': shades[predicted]}
  if interlaced:
    pictures['Interlaced'] = interlace(image, predicted)
  pictures['Contours'] = image
  figure, axes = style.panels(list(pictures), size)
  for axis, picture in zip(axes, pictures.values()):
    style.show_image(axis, picture)
  handles: list[Artist] = [
      Patch(facecolor=colors.class_color(i), label=name) for i, name in enumerate(classes) if i]
  for name, mask, color, width in (('truth', truth, colors.TRUTH_COLOR, 2.2),
                                   ('prediction', predicted, colors.PREDICTION_COLOR, 1.1)):
    draw_outlines(axes[-1], mask, color, width)
    handles.append(Line2D([], [], color=color, linewidth=2.2, label=f'{name} contour'))
  style.legend_below(figure, handles)
  return figure


def probability_figure(probs: np.ndarray, classes: Sequence[str]) -> Figure:
  """Heat map of each foreground class, and of all of them together (1 - background) if several.

  `probs` are float [H,W,K], K = len(classes), background first.
  """
  if probs.shape[2:] != (len(classes),):
    raise ValueError(f'expected probabilities [H,W,{len(classes)}] of the classes '
                     f'{", ".join(classes)}, got shape {probs.shape}.')
  maps = {name: probs[..., index] for index, name in enumerate(classes) if index}
  if len(classes) > 2:
    maps['any foreground'] = 1.0 - probs[..., 0]
  size = style.shown_size(probs.shape)
  figure, axes = style.panels([f'P({name})' for name in maps], size)
  for axis, values in zip(axes, maps.values()):
    shown = style.show_image(
        axis, style.resize_image(np.clip(values, 0, 1).astype(np.float32), size))
    shown.set(cmap='inferno', clim=(0.0, 1.0))
  width, height = figure.get_size_inches()
  share = min(2.6 / width, 0.7)  # of the width, for the color bar
  style.probability_bar(
      figure, shown, (0.5 - share / 2, (style.FOOT - 0.2) / height, share, 0.09 / height))
  return figure


def angle_figure(image: np.ndarray | None, mask: np.ndarray, result: AngleResult,
                 classes: Sequence[str]) -> Figure:
  """Two panels: the image, and the image with mask, levels, midline and curves.

  The midline has a band of two standard deviations. The lines of levels are colored by the
  confidence in their names. Each of the three largest curves is shown with its angle between its
  two end lines, which are perpendicular to the midline. Panels have the proportions of the image in
  millimeters. Without an image the mask is shown alone on black. `result` is that of the mask.
  """
  mask = mask.astype(np.uint8)
  steps = np.asarray((result.spacing or (1.0, 1.0))[:2])
  size = style.shown_size(np.maximum(1, mask.shape * steps / steps.min()).round())
  scale = np.array(size) / mask.shape
  figure, axes = style.panels(
      ['Mask and angle'] if image is None else ['Image', 'Mask and angle'], size)
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
    tint = np.zeros((*size, 4), np.uint8)
    tint[small == index] = (*colors.color_bytes(color), 90)
    axis.imshow(tint, interpolation='none', aspect='auto')
    draw_outlines(axis, small == index, color, 0.8)
    name = classes[index] if index < len(classes) else f'class {index}'
    handles.append(Patch(facecolor=color, alpha=0.6, label=name))
  for level in result.levels:
    if level.left and level.right:
      _plot(axis, to_panel([level.left, level.right]), colors.confidence_color(level.confidence),
            1.1)
    if level.corners:
      axis.plot(*to_panel(level.corners).T[::-1], '.', color=colors.LANDMARK_COLOR, markersize=3)
  if result.midline:
    midline = to_panel(result.midline)
    if result.midline_sd:
      half = 2 * np.array(result.midline_sd) * scale[1]
      axis.fill_betweenx(midline[:, 0], midline[:, 1] - half, midline[:, 1] + half,
                         color=colors.MIDLINE_COLOR, alpha=0.35, linewidth=0)
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


def _to_rgb(image: np.ndarray) -> np.ndarray:
  return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def _class_colors(mask: np.ndarray) -> np.ndarray:
  """The color of the class of each pixel, uint8 [H,W,3]."""
  return colors.palette(int(mask.max(initial=0)) + 1)[mask]


def _checked_mask(what: str, mask: np.ndarray, size: tuple[int, ...],
                  classes: Sequence[str]) -> np.ndarray:
  mask = np.asarray(mask)
  if mask.shape != tuple(size):
    raise ValueError(f'expected a {what} of size {tuple(size)} like the image, got {mask.shape}; '
                     'resize it first.')
  if mask.dtype == bool:
    mask = mask.astype(np.uint8)
  if mask.min() < 0 or (classes and mask.max() >= len(classes)):
    raise ValueError(f'expected classes 0..{len(classes) - 1} in the {what}, got '
                     f'{mask.min()}..{mask.max()}; check the list of classes.')
  return mask


def _plot(axis: Axes, points: np.ndarray, color: str, width: float, **options) -> None:
  """Draws a line through points (row, column) with a dark halo."""
  axis.plot(points[:, 1], points[:, 0], color=color, linewidth=width, path_effects=_HALO, **options)


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
