"""Pictures of what a network attends to."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from spinejax import colors
from spinejax.data import resize
from spinejax.metrics.results import AttentionMaps
from spinejax.report import style

SATURATED = 0.99  # a row with a larger weight is one-hot
MARK = '#56b4e9'  # of the pixel that attends


def maps_figure(image: np.ndarray, label: np.ndarray | None, maps: AttentionMaps,
                classes: Sequence[str]) -> Figure:
  """Image, truth, prediction, key map of each bone, rebuilt features and attended positions.

  `image` are gray levels [H,W] or [H,W,C] and `label` classes [H,W] of any size. The maps are
  stretched over them. The key map is shown from 0 to 1, the others from 0 to their largest value;
  of the weights of the positions the square root is shown.
  """
  size = style.shown_size(image.shape)
  shades = colors.palette(len(classes))
  shades[0] = 0
  masks = {'Truth': label, 'Prediction': maps.prediction}
  pictures = {'Image': style.resize_image(colors.to_bytes(image), size),
              **{name: shades[resize.resize_nearest(mask, size)]
                 for name, mask in masks.items() if mask is not None}}
  heat = {}
  if maps.key is not None:
    heat = {f'Key map: {name}': maps.key[..., i] for i, name in enumerate(classes) if i}
  if maps.rebuilt is not None:
    heat['Rebuilt features'] = maps.rebuilt / max(maps.rebuilt.max(), 1e-12)
  if maps.positions is not None:
    heat['Attended from ×'] = np.sqrt(maps.positions / max(maps.positions.max(), 1e-12))
  figure, axes = style.panels([*pictures, *heat], size)
  for axis, picture in zip(axes, pictures.values()):
    style.show_image(axis, picture)
  for axis, values in zip(axes[len(pictures):], heat.values()):
    shown = style.show_image(axis, resize.resize_nearest(values, size))
    shown.set(cmap='inferno', clim=(0.0, 1.0))
  if maps.pixel is not None:
    y, x = ((n + 0.5) * new / old - 0.5
            for n, new, old in zip(maps.pixel, size, maps.prediction.shape))
    for axis in (axes[0], axes[-1]):
      axis.plot(x, y, 'x', color=MARK, markersize=8, markeredgewidth=2)
  return figure


def weights_figure(maps: AttentionMaps, classes: Sequence[str]) -> Figure:
  """The matrices of the weights: class by channel, and channel by channel, as heat maps."""
  shown = []
  if maps.affinity is not None:
    shown.append(('Affinity', maps.affinity.T, 'channel', classes, 0.3 * len(classes)))
  if maps.channels is not None:
    shown.append(('Channel attention', maps.channels, 'weight of channel', (), 4.0))
  height = sum(inches + 1.0 for *_, inches in shown)
  figure, top = Figure(figsize=(6.0, height)), height
  for title, matrix, x_label, names, inches in shown:
    top -= inches + 0.4
    axis = figure.add_axes((1.2 / 6, top / height, 4 / 6, inches / height))
    top -= 0.6
    drawn = axis.imshow(matrix, cmap='inferno', vmin=0, aspect='auto', interpolation='none')
    style.finish_axes(axis, x_label, '' if names else 'in channel')
    axis.grid(False)
    axis.set_title(title, fontsize=style.FONT, color=style.INK, pad=4)
    if names:
      axis.set_yticks(range(len(names)), names, parse_math=False)
    place = figure.add_axes((5.3 / 6, (top + 0.6) / height, 0.09 / 6, inches / height))
    bar = figure.colorbar(drawn, cax=place)
    bar.outline.set_visible(False)
    place.tick_params(length=0, labelsize=style.FONT - 1, labelcolor=style.MUTED, pad=2)
  return figure


def maps_note(maps: AttentionMaps) -> str:
  """Says how much of the attention is one-hot: a row of it with a weight above 0.99."""
  parts = []
  if maps.affinity is not None:
    parts.append(f'affinity: {_saturated(maps.affinity)}')
  if maps.channels is not None:
    own = np.mean(np.diagonal(maps.channels))
    parts.append(f'channels: {_saturated(maps.channels)}, mean weight of a channel in itself '
                 f'{own:.2f}')
  if maps.positions is not None:
    parts.append(f'positions: largest weight {maps.positions.max():.3f}')
  return '; '.join(parts)


def _saturated(weights: np.ndarray) -> str:
  count = int(np.sum(weights.max(-1) > SATURATED))
  return f'{count} of {len(weights)} rows above {SATURATED}'
