"""Figures of a run, each a `matplotlib.figure.Figure` made without global state.

Colors follow Okabe and Ito (2008). Every class keeps one color in every figure; yellow is the
truth and green the prediction, as in RSN-U-net (Huang et al., 2020, fig. 3 and 4).
"""
import math
import os
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from PIL import Image

INK, MUTED, RULE = '#1c2024', '#5d6672', '#dfe3e8'
BLUE, VERMILION = '#0072b2', '#d55e00'
TRUTH_COLOR, PREDICTION_COLOR = '#f0e442', '#009e73'
BACKGROUND_COLOR = '#8b95a1'
# By class index; 0 is the background. Classes beyond the last color start again at index 1.
CLASS_COLORS = (BACKGROUND_COLOR, '#e69f00', '#56b4e9', '#cc79a7', VERMILION, BLUE)
# By the place of a run in a comparison; runs beyond the last color start again.
RUN_COLORS = (BLUE, '#e69f00', '#009e73', '#cc79a7', '#56b4e9', VERMILION)

MAX_PANEL_PIXELS = 300_000
FONT = 9.0  # points
FOOT = 0.46  # inches beneath the panels, for a legend or a color bar


def class_color(index: int) -> str:
  """Color of class `index` as '#rrggbb'."""
  return CLASS_COLORS[(index - 1) % (len(CLASS_COLORS) - 1) + 1] if index else CLASS_COLORS[0]


def outline_edges(label: np.ndarray) -> np.ndarray:
  """Borders between pixels of different classes, along the pixels' own edges.

  Args:
    label: int [H,W]; outside the array is background (0), so outlines close at the image's edge.
  Returns:
    float64 [S,2,2]: S straight segments (start, end) of (x, y) in pixels, pixel centers at whole
    numbers; the outline of the single pixel (row 1, column 2) runs through x = 1.5 and 2.5,
    y = 0.5 and 1.5. S = 0 for a label map of background alone.
  """
  padded = np.pad(np.asarray(label), 1)

  def runs(is_edge):
    steps = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[1]
    return line - 0.5, start - 0.5, end - 0.5

  y, left, right = runs(padded[1:, 1:-1] != padded[:-1, 1:-1])
  x, top, bottom = runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
  horizontal = np.stack([np.stack([left, y], -1), np.stack([right, y], -1)], 1)
  vertical = np.stack([np.stack([x, top], -1), np.stack([x, bottom], -1)], 1)
  return np.concatenate([horizontal, vertical])


def inner_contours(label: np.ndarray, width: int = 1) -> np.ndarray:
  """Pixels of a class that lie within `width` city-block steps of another class.

  Args:
    label: int [H,W]; outside the array is background (0).
    width: thickness of the contour in pixels.
  Returns:
    bool [H,W]; never true on the background, so a contour does not enlarge its region.
  """
  core = np.asarray(label)
  for _ in range(width):
    around = np.pad(core, 1)
    is_inside = ((around[:-2, 1:-1] == core) & (around[2:, 1:-1] == core)
                 & (around[1:-1, :-2] == core) & (around[1:-1, 2:] == core))
    core = np.where(is_inside, core, 0)
  return (np.asarray(label) > 0) & (core == 0)


def to_bytes(image: np.ndarray) -> np.ndarray:
  """Gray levels 0..255 of any dtype, [H,W], [H,W,1] or [H,W,3+] -> uint8 [H,W] or [H,W,3]."""
  image = np.asarray(image)
  if image.ndim == 3:
    image = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
  if image.ndim != 2 and image.ndim != 3:
    raise ValueError(f'expected an image [H,W] or [H,W,C], got shape {image.shape}; '
                     'pass one image without a batch axis')
  if image.dtype == np.uint8:
    return image
  return np.clip(np.rint(np.nan_to_num(image)), 0, 255).astype(np.uint8)


def stretch(image: np.ndarray) -> np.ndarray:
  """Gray values [*S] of any scale as float32 0..255, from the 0.5th to the 99.5th percentile."""
  low, high = np.percentile(image, (0.5, 99.5))
  return np.clip(255 * (image - low) / max(high - low, 1e-6), 0, 255).astype(np.float32)


def interlace(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image in even rows and its mask in odd ones, uint8 [H,W,3].

  Background rows of the mask repeat the image at half its brightness, classes have their colors.
  The X-ray U-Net (Selvia, section II.E) interlaces X-ray and trimap in this way; its trimaps are
  all but black.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], gray levels 0..255.
    mask: int [H,W].
  """
  image = to_bytes(image)
  rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
  palette = np.array([color_bytes(class_color(i)) for i in range(int(mask.max(initial=0)) + 1)],
                     np.uint8)
  colored = np.where(mask[..., None] > 0, palette[mask], rgb // 2)
  out = rgb.copy()
  out[1::2] = colored[1::2]
  return out


def save_overlay(path: str | os.PathLike, image: np.ndarray, prediction: np.ndarray,
                 label: np.ndarray | None = None, classes: Sequence[str] = ()) -> None:
  """Writes a PNG of the image with each predicted class filled and outlined, at the image's size.

  A pixel inside a predicted region is 0.65 image + 0.35 class color; its contour (the region's
  own outermost pixels) is the class color. The truth's contour is yellow and lies beneath the
  prediction's, so yellow shows where the two differ. Contours are 1 px wide, 2 px and more on
  images whose shorter side exceeds 480 px.

  Args:
    path: file to write; replaced only when the new one is complete.
    image: [H,W] or [H,W,C], gray levels 0..255.
    prediction: int [H,W], 0 = background.
    label: int [H,W] or None: the truth.
    classes: class names by index; when given, an index beyond them is an error.
  Raises:
    ValueError: sizes differ or an index has no class.
  """
  image = to_bytes(image)
  prediction = _checked_mask('prediction', prediction, image.shape[:2], classes)
  rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
  width = max(1, round(min(rgb.shape[:2]) / 320))
  palette = np.array([color_bytes(class_color(i)) for i in range(int(prediction.max()) + 1)])
  colors = palette[prediction]
  filled = prediction > 0
  out = rgb.copy()
  out[filled] = np.rint(0.65 * rgb[filled] + 0.35 * colors[filled]).astype(np.uint8)
  if label is not None:
    label = _checked_mask('label', label, image.shape[:2], classes)
    out[inner_contours(label, width)] = color_bytes(TRUTH_COLOR)
  contour = inner_contours(prediction, width)
  out[contour] = colors[contour]
  partial = f'{os.fspath(path)}.partial'
  try:
    Image.fromarray(out).save(partial, format='PNG', compress_level=3)
    os.replace(partial, path)
  finally:
    if os.path.exists(partial):
      os.remove(partial)


def overlay(image: np.ndarray, label: np.ndarray | None, prediction: np.ndarray,
            classes: Sequence[str], *, interlaced: bool = False) -> Figure:
  """Image | truth | prediction | image with both contours, with a legend.

  Args:
    image: [H,W] or [H,W,C], gray levels 0..255.
    label: int [H,W], or None: the truth's panel and contour are left out.
    prediction: int [H,W].
    classes: class names by index, background first.
    interlaced: adds a panel of `interlace` with the prediction.
  Large images are shown at no more than MAX_PANEL_PIXELS; masks are sampled at pixel centers, and
  contours run along pixel edges of what is shown.
  """
  image = to_bytes(image)
  full_size = image.shape[:2]
  size = shown_size(full_size)
  image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
  masks = {'Prediction': _checked_mask('prediction', prediction, full_size, classes)}
  lines = {'Prediction': (PREDICTION_COLOR, 1.1)}
  if label is not None:
    masks = {'Truth': _checked_mask('label', label, full_size, classes)} | masks
    lines = {'Truth': (TRUTH_COLOR, 2.2)} | lines
  masks = {name: nearest(mask, size) for name, mask in masks.items()}
  figure, axes = panels(['Image', *masks, *['Interlaced'] * interlaced, 'Contours'], size)
  show(axes[0], image)
  palette = np.array([(0, 0, 0)] + [color_bytes(class_color(i)) for i in range(1, len(classes))],
                     np.uint8)
  for axis, mask in zip(axes[1:], masks.values()):
    show(axis, palette[mask])
  if interlaced:
    show(axes[-2], interlace(image, masks['Prediction']))
  show(axes[-1], image)
  for name, (color, width) in lines.items():
    edges = outline_edges(masks[name])
    if len(edges):
      path = Path(edges.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(edges)))
      path.should_simplify = False
      axes[-1].add_patch(PathPatch(path, fill=False, edgecolor=color, linewidth=width,
                                   capstyle='projecting', snap=False))
  handles: list[Artist] = [
      Patch(facecolor=class_color(i), label=name) for i, name in enumerate(classes) if i]
  handles += [Line2D([], [], color=color, linewidth=2.2, label=f'{name.lower()} contour')
              for name, (color, _) in lines.items()]
  legend_below(figure, handles)
  return figure


def probability_maps(probs: np.ndarray, classes: Sequence[str]) -> Figure:
  """Heat map of each class's probability and, with several, of any foreground (1 - background).

  Args:
    probs: float [H,W,K], K = len(classes), background first.
    classes: class names by index.
  """
  probs = np.asarray(probs)
  if probs.ndim != 3 or probs.shape[-1] != len(classes):
    raise ValueError(f'expected probabilities [H,W,{len(classes)}] for classes {tuple(classes)}, '
                     f'got shape {probs.shape}')
  maps = {name: probs[..., index] for index, name in enumerate(classes) if index}
  if len(classes) > 2:
    maps['any foreground'] = 1.0 - probs[..., 0]
  size = shown_size(probs.shape[:2])
  figure, axes = panels([f'P({name})' for name in maps], size)
  for axis, values in zip(axes, maps.values()):
    levels = Image.fromarray(np.clip(values, 0, 1).astype(np.float32))
    drawn = show(axis, np.asarray(levels.resize(size[::-1], Image.Resampling.BILINEAR)))
    drawn.set(cmap='inferno', clim=(0.0, 1.0))
  width, height = figure.get_size_inches()
  bar_width = min(2.6, 0.7 * width)
  place = figure.add_axes([0.5 - bar_width / width / 2, (FOOT - 0.2) / height, bar_width / width,
                           0.09 / height])
  bar = figure.colorbar(drawn, cax=place, orientation='horizontal', ticks=[0, 0.5, 1])
  bar.outline.set_visible(False)
  place.tick_params(length=0, labelsize=FONT - 1, labelcolor=MUTED, pad=2)
  return figure


def loss_curves(history: Sequence[Mapping]) -> Figure:
  """Training loss, its parts, the validation loss and, beneath, the learning rate by step.

  Args:
    history: rows of metrics.jsonl: `step`, `phase` ('train' or 'validation'), `loss`, parts as
      `loss/name`, `learning_rate`. Rows without a finite value are left out; of several rows of
      one step the last counts. More than 300 rows are averaged in 300 bins of steps, with the
      lowest and highest loss of each bin as a band.
  """
  rate = _series(history, 'train', 'learning_rate')
  figure = Figure(figsize=(6.2, 3.9), layout='constrained')
  axes = figure.subplots(2 if len(rate[0]) else 1, sharex=True, squeeze=False,
                         height_ratios=[4, 1] if len(rate[0]) else None)[:, 0]
  steps, mean, low, high = _binned(*_series(history, 'train', 'loss'))
  axes[0].fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0)
  axes[0].plot(steps, mean, color=BLUE, linewidth=1.6, label='training', **_dot(steps))
  validation = _series(history, 'validation', 'loss')
  axes[0].plot(*validation, color=VERMILION, linewidth=1.4, marker='o', markersize=3.5,
               label='validation')
  parts = sorted({key for row in history if row.get('phase') == 'train' for key in row
                  if key.startswith('loss/')})
  for index, key in enumerate(parts):
    part_steps, part, _, _ = _binned(*_series(history, 'train', key))
    axes[0].plot(part_steps, part, color=MUTED, linewidth=1.1,
                 linestyle=('--', ':', '-.', (0, (5, 1, 1, 1, 1, 1)))[index % 4],
                 label=f'training, {key[5:].replace("_", " ")}')
  values = np.concatenate([low, validation[1]])
  if len(values) and values.min() > 0 and values.max() > 30 * values.min():
    axes[0].set_yscale('log')
  if not len(values):
    say(axes[0], 'no training history')
  style(axes[0], '', 'loss', legend=True)
  if len(rate[0]):
    axes[1].plot(*rate, color=MUTED, linewidth=1.2)
    axes[1].set_ylim(bottom=0)
    axes[1].ticklabel_format(axis='y', style='sci', scilimits=(0, 0), useMathText=False)
    axes[1].yaxis.get_offset_text().set(color=MUTED, size=FONT - 1)
    style(axes[1], '', 'learning rate')
  axes[-1].set_xlabel('step', color=MUTED, fontsize=FONT)
  return figure


def validation_curves(history: Sequence[Mapping], classes: Sequence[str]) -> Figure:
  """Validation Dice by step: each class, both means, and a mark on the best mean of foreground.

  Args:
    history: as in `loss_curves`, with `dice/<class>`, `dice/mean_foreground`, `dice/mean_all`.
    classes: class names by index, background first.
  """
  figure = Figure(figsize=(6.2, 3.9), layout='constrained')
  axis = figure.subplots()
  steps, best = _series(history, 'validation', 'dice/mean_foreground')
  axis.plot(steps, best, color=INK, linewidth=2, label='mean of foreground', zorder=3,
            **_dot(steps))
  if len(steps):
    top = int(np.argmax(best))
    axis.plot(steps[top], best[top], 'o', color=INK, markersize=7, markerfacecolor='none',
              zorder=4)
    axis.set_title(f'best mean of foreground {best[top]:.3f} at step {int(steps[top])}',
                   fontsize=FONT, color=INK, loc='left')
  steps, values = _series(history, 'validation', 'dice/mean_all')
  axis.plot(steps, values, color=MUTED, linewidth=1.4, linestyle='--', label='mean of all classes')
  for index, name in enumerate(classes):
    steps, values = _series(history, 'validation', f'dice/{name}')
    if len(steps) and index:
      axis.plot(steps, values, color=class_color(index), linewidth=1.3, label=name, **_dot(steps))
  if not any(np.size(line.get_xdata()) for line in axis.get_lines()):
    say(axis, 'no validation history')
  axis.set_ylim(top=1.0)
  style(axis, 'step', 'validation Dice', legend=True)
  return figure


def roc_curves(roc: Mapping[str, Mapping], classes: Sequence[str]) -> Figure:
  """Pixel-level ROC curve of each class against the rest, with its area.

  Args:
    roc: {name: {'fpr': [P], 'tpr': [P], 'auc': float or None}}; name is a class or 'any_foreground'
      (against the background). Classes without a curve (absent from the truth) are left out.
    classes: class names by index, background first.
  """
  figure = Figure(figsize=(4.6, 4.4), layout='constrained')
  axis = figure.subplots()
  axis.plot([0, 1], [0, 1], color=RULE, linewidth=1, zorder=1)
  dashes = ('-', (0, (6, 2)), (0, (2, 1.2)), (0, (6, 2, 1.5, 2)))
  names = [name for name in classes if name in roc] + [name for name in roc if name not in classes]
  for name in names:
    curve = roc[name]
    if curve.get('auc') is None or not len(curve.get('fpr', ())):
      continue
    index = list(classes).index(name) if name in classes else None
    axis.plot(curve['fpr'], curve['tpr'], linewidth=1.7 if index is None else 2.0,
              color=INK if index is None else class_color(index),
              linestyle=(0, (1, 1.2)) if index is None else dashes[index % len(dashes)],
              label=f"{name if index is not None else 'any foreground'}, AUC {curve['auc']:.3f}")
  axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect='equal')
  axis.set_xticks(np.linspace(0, 1, 6))
  axis.set_yticks(np.linspace(0, 1, 6))
  if len(axis.get_lines()) == 1:
    say(axis, 'no class with both positive and negative pixels')
  style(axis, 'false positive rate', 'true positive rate', legend=True)
  return figure


def dice_by_case(cases: Mapping[str, Mapping], classes: Sequence[str]) -> Figure:
  """Every case's Dice by class as a dot, with the median as a line.

  Args:
    cases: {case name: {'dice': {class or mean: float or None}}}; undefined values are left out.
    classes: class names by index, background first.
  """
  columns = [(name, name, class_color(i)) for i, name in enumerate(classes) if i]
  columns.append(('mean_foreground', 'mean of foreground', INK))
  figure = Figure(figsize=(max(3.2, 1.6 + 1.2 * len(columns)), 4.4), layout='constrained')
  axis = figure.subplots()
  lowest = 1.0
  for place, (key, _, color) in enumerate(columns):
    values = np.sort([value for case in cases.values()
                      if _is_number(value := case.get('dice', {}).get(key))])
    if not len(values):
      continue
    lowest = min(lowest, values[0])
    axis.plot(place + _spread(values), values, 'o', color=color, markersize=5, alpha=0.8,
              markeredgewidth=0, clip_on=False)
    axis.plot([place - 0.32, place + 0.32], [np.median(values)] * 2, color=INK, linewidth=1.6)
  axis.set_xticks(range(len(columns)), [textwrap.fill(name, 12) for _, name, _ in columns],
                  parse_math=False)
  axis.set(xlim=(-0.6, len(columns) - 0.4), ylim=(max(0.0, math.floor(lowest * 10 - 0.5) / 10), 1))
  style(axis, '', 'Dice per case')
  axis.grid(axis='x', visible=False)
  return figure


def centroid_paths(paths: Mapping[str, np.ndarray], truth: np.ndarray,
                   errors: Mapping[str, np.ndarray]) -> Figure:
  """How blobs moved under several losses: distance over the steps, and their ways in the plane.

  Args:
    paths: centers [steps + 1, P, 3] by name of the loss.
    truth: coronal projection [D,H] of the laminae.
    errors: mean distance [steps + 1] in voxels by name.
  """
  figure = Figure(figsize=(10, 4.2), layout='constrained')
  curve, *planes = figure.subplots(
      1, len(paths) + 1, gridspec_kw={'width_ratios': [2.2] + [1] * len(paths)})
  for index, (name, path) in enumerate(paths.items()):
    color = class_color(index + 1)
    curve.plot(errors[name], color=color, label=name, linewidth=2, linestyle=('-', '--')[index % 2])
    axis = planes[index]
    axis.imshow(truth, cmap='gray', vmin=0, vmax=2.5)
    axis.plot(path[:, :, 1], path[:, :, 0], color=color, linewidth=1.5)
    axis.plot(path[-1, :, 1], path[-1, :, 0], 'o', color=color, markersize=6)
    axis.set(title=name.replace(', ', ',\n'), xticks=[], yticks=[])
    axis.title.set_fontsize(9)
  style(curve, 'step', 'mean distance to the laminae, voxels', legend=True)
  curve.set_ylim(bottom=0)
  return figure


def box_plot(values: Mapping[str, Sequence[float | None]], name: str) -> Figure:
  """Box of each run: median, quartiles, whiskers at most 1.5 interquartile ranges beyond them.

  Every case is a dot, the mean a diamond.

  Args:
    values: {run: one value per case}; undefined ones (None) are left out.
    name: of what is on the axis.
  """
  labels = [textwrap.shorten(run, 34, placeholder='…') if ' ' in run or len(run) <= 34
            else f'{run[:16]}…{run[-17:]}' for run in values]
  longest = max(map(len, labels), default=0)
  figure = Figure(figsize=(4.4 + 0.066 * longest, 0.8 + 0.46 * max(len(values), 1)),
                  layout='constrained')
  axis = figure.subplots()
  rng = np.random.default_rng(0)
  for place, of_run in enumerate(values.values()):
    found = np.array([value for value in of_run if _is_number(value)], float)
    color = RUN_COLORS[place % len(RUN_COLORS)]
    if not len(found):
      continue
    axis.boxplot(found, positions=[place], orientation='horizontal', widths=0.56, whis=1.5,
                 showfliers=False, patch_artist=True,
                 boxprops={'facecolor': (*to_rgb(color), 0.25), 'edgecolor': color},
                 whiskerprops={'color': color}, capprops={'color': color},
                 medianprops={'color': INK, 'linewidth': 1.8})
    axis.plot(found, place + rng.uniform(-0.16, 0.16, len(found)), 'o', color=color, markersize=3.6,
              alpha=0.8, markeredgewidth=0, zorder=3)
    axis.plot(found.mean(), place, 'D', color=INK, markersize=4.6, markerfacecolor='none', zorder=4)
  if not axis.get_lines():
    say(axis, 'no value')
  axis.set_yticks(range(len(values)), labels, parse_math=False)
  axis.set_ylim(len(values) - 0.5, -0.5)
  style(axis, name, '')
  axis.grid(axis='y', visible=False)
  axis.tick_params(axis='y', length=0, labelcolor=INK)
  return figure


def color_bytes(color: str) -> tuple[int, ...]:
  """(red, green, blue) 0..255 of a color."""
  return tuple(round(255 * channel) for channel in to_rgb(color))


def _checked_mask(what, mask, size, classes) -> np.ndarray:
  mask = np.asarray(mask)
  if mask.shape != tuple(size):
    raise ValueError(f'expected a {what} of size {tuple(size)} like the image, got {mask.shape}; '
                     'resize it first')
  if mask.dtype == bool:
    mask = mask.astype(np.uint8)
  if mask.min() < 0 or (classes and mask.max() >= len(classes)):
    raise ValueError(f'expected classes 0..{len(classes) - 1} in the {what}, got '
                     f'{mask.min()}..{mask.max()}; check the class list')
  return mask


def shown_size(size) -> tuple[int, int]:
  """Size of a picture of that size, reduced to MAX_PANEL_PIXELS."""
  scale = min(1.0, math.sqrt(MAX_PANEL_PIXELS / (size[0] * size[1])))
  return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def nearest(mask, size) -> np.ndarray:
  """A mask sampled at the pixel centers of another size."""
  rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape))
  return mask[rows[:, None], columns[None, :]]


def panels(titles, size):
  """Figure of equal panels of 7.8 square inches, in one row if 11.5 inches hold them."""
  gap, head = 0.09, 0.36
  width = math.sqrt(7.8 * size[1] / size[0])
  height = 7.8 / width
  columns = min(len(titles), max(1, int((11.5 + gap) / (width + gap))))
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


def show(axis, array):
  """An image in gray levels 0..255 that fills its axis."""
  return axis.imshow(array, cmap='gray', vmin=0, vmax=255, interpolation='none', aspect='auto')


def legend_below(figure, handles) -> None:
  """A legend under the panels, in as many rows as it needs."""
  width = figure.get_size_inches()[0]
  widths = [0.45 + 0.062 * len(handle.get_label()) for handle in handles]
  columns = len(handles) if sum(widths) <= width else max(1, int(width / max(widths)))
  legend = figure.legend(handles=handles, loc='upper center', ncols=columns, frameon=False,
                         bbox_to_anchor=(0.5, FOOT / figure.get_figheight()), fontsize=FONT - 1,
                         labelcolor=INK, handlelength=1.2, handleheight=0.8, columnspacing=1.2,
                         handletextpad=0.5, borderaxespad=0.4)
  for text in legend.get_texts():
    text.set_parse_math(False)


def style(axis, x_label, y_label, legend=False) -> None:
  axis.set_xlabel(x_label, color=MUTED, fontsize=FONT)
  axis.set_ylabel(y_label, color=MUTED, fontsize=FONT)
  axis.set_facecolor('none')
  axis.spines[['top', 'right']].set_visible(False)
  axis.spines[['left', 'bottom']].set_color(MUTED)
  axis.tick_params(colors=MUTED, labelsize=FONT, width=0.6, length=3, which='both')
  axis.grid(color=RULE, linewidth=0.7)
  axis.set_axisbelow(True)
  handles, _ = axis.get_legend_handles_labels()
  if legend and handles:
    drawn = axis.legend(fontsize=FONT, labelcolor=INK, frameon=False, handlelength=2.2)
    for text in drawn.get_texts():
      text.set_parse_math(False)


def say(axis, sentence) -> None:
  """A sentence in place of a drawing."""
  axis.text(0.5, 0.5, sentence, transform=axis.transAxes, ha='center', color=MUTED, fontsize=FONT)


def _dot(steps) -> dict:
  return {'marker': 'o', 'markersize': 4} if len(steps) <= 20 else {}


def _is_number(value) -> bool:
  return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _series(history, phase, key) -> tuple[np.ndarray, np.ndarray]:
  values = {row['step']: row[key] for row in history
            if row.get('phase') == phase and 'step' in row and _is_number(row.get(key))}
  steps = sorted(values)
  return np.array(steps, float), np.array([values[step] for step in steps], float)


def _binned(steps, values, bins=300):
  """Mean, lowest and highest value of consecutive rows in at most `bins` groups."""
  if len(steps) <= bins:
    return steps, values, values, values
  starts = np.linspace(0, len(steps), bins, endpoint=False).astype(int)
  counts = np.diff(np.append(starts, len(steps)))
  return (np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts,
          np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def _spread(values, width=0.28, near=0.012) -> np.ndarray:
  """Sideways offset of each sorted value, so that dots closer than `near` stand side by side."""
  offsets = np.zeros(len(values))
  start = 0
  for end in range(1, len(values) + 1):
    if end == len(values) or values[end] - values[start] > near:
      count = end - start
      ranks = np.arange(count)
      sides = np.where(ranks % 2, ranks + 1, -ranks) / 2 - (0.5 if count % 2 == 0 else 0)
      offsets[start:end] = sides * min(0.09, 2 * width / count)
      start = end
  return offsets
