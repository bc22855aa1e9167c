"""Masks and probabilities over images: overlay files, and the panels of a case.

Images are gray levels 0..255 [H,W] or [H,W,C]. Masks are int [H,W], 0 = background. `classes` are
class names by index, background first; a mask with an index beyond them is an error.
"""
import io
import os
from collections.abc import Sequence

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
from spinejax.report import style

FILL = 0.35  # share of the class color inside a predicted region
CONTOUR_STEP = 320  # pixels of the image's shorter side for each pixel of contour width


def outline_edges(label: np.ndarray) -> np.ndarray:
  """Borders between pixels of different classes, along the edges of the pixels.

  Outside the array is background, so outlines close at the edge of the image.

  Returns:
    float64 [S,2,2]: S straight segments (start, end) of (x, y) in pixels. Pixel centers are whole
    numbers: the outline of the pixel in row 1 and column 2 has x = 1.5 and 2.5, y = 0.5 and 1.5.
  """
  padded = np.pad(np.asarray(label), 1)

  def runs_of(is_edge):
    steps = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[1]
    return line - 0.5, start - 0.5, end - 0.5

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
  core = np.asarray(label)
  for _ in range(width):
    around = np.pad(core, 1)
    is_inside = ((around[:-2, 1:-1] == core) & (around[2:, 1:-1] == core)
                 & (around[1:-1, :-2] == core) & (around[1:-1, 2:] == core))
    core = np.where(is_inside, core, 0)
  return (np.asarray(label) > 0) & (core == 0)


def interlace(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image in even rows and its mask in odd rows, uint8 [H,W,3].

  Classes have their colors; background rows of the mask repeat the image at half its brightness.
  The X-ray U-Net (Selvia, section II.E) interlaces X-ray and trimap in this way; its trimaps are
  almost black.
  """
  rgb = _to_rgb(colors.to_bytes(image))
  of_class = colors.palette(int(mask.max(initial=0)) + 1)
  colored = np.where(mask[..., None] > 0, of_class[mask], rgb // 2)
  result = rgb.copy()
  result[1::2] = colored[1::2]
  return result


def overlay(image: np.ndarray, prediction: np.ndarray, classes: Sequence[str] = ()) -> np.ndarray:
  """The image with each predicted class filled and outlined, uint8 [H,W,3].

  A pixel inside a predicted region is 0.65 image + 0.35 class color. The contour is the outermost
  pixels of the region, in the class color; it is 1 px wide, and wider on images whose shorter side
  exceeds 480 px.

  Raises:
    ValueError: the sizes differ, or an index has no class.
  """
  rgb = _to_rgb(colors.to_bytes(image))
  prediction = _checked_mask('prediction', prediction, rgb.shape[:2], classes)
  colored = colors.palette(int(prediction.max()) + 1)[prediction]
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


def overlay_figure(image: np.ndarray, label: np.ndarray, prediction: np.ndarray,
                   classes: Sequence[str], *, interlaced: bool = False) -> Figure:
  """Image, truth, prediction, and image with both contours, as panels with a legend.

  Large images are reduced to `style.MAX_PANEL_PIXELS`. Masks are sampled at pixel centers, and
  contours follow the pixel edges of the reduced masks. `interlaced` adds a panel of `interlace`.
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
  probs = np.asarray(probs)
  if probs.ndim != 3 or probs.shape[-1] != len(classes):
    raise ValueError(f'expected probabilities [H,W,{len(classes)}] of the classes '
                     f'{", ".join(classes)}, got shape {probs.shape}.')
  maps = {name: probs[..., index] for index, name in enumerate(classes) if index}
  if len(classes) > 2:
    maps['any foreground'] = 1.0 - probs[..., 0]
  size = style.shown_size(probs.shape)
  figure, axes = style.panels([f'P({name})' for name in maps], size)
  for axis, values in zip(axes, maps.values()):
    values = style.resize_image(np.clip(values, 0, 1).astype(np.float32), size)
    shown = style.show_image(axis, values)
    shown.set(cmap='inferno', clim=(0.0, 1.0))
  width, height = figure.get_size_inches()
  share = min(2.6 / width, 0.7)  # of the width, for the color bar
  place = figure.add_axes((0.5 - share / 2, (style.FOOT - 0.2) / height, share, 0.09 / height))
  bar = figure.colorbar(shown, cax=place, orientation='horizontal', ticks=[0, 0.5, 1])
  bar.outline.set_visible(False)
  place.tick_params(length=0, labelsize=style.FONT - 1, labelcolor=style.MUTED, pad=2)
  return figure


def _to_rgb(image: np.ndarray) -> np.ndarray:
  return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


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
