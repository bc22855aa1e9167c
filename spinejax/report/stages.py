"""The preparation of a volume as one picture, figure 1 of C-U-net (Wong et al., 2021)."""
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from spinejax import colors
from spinejax.data import resize
from spinejax.data.preparation import Step
from spinejax.measurement.spacing import Numbers

TITLES = {'crop_top_layer': 'without top layer', 'crop_to_column': 'cropped to the column',
          'rescale': 'rescaled'}
_HEIGHTS = 4.6, 1.0  # inches of a coronal projection and of an axial slice


def preparation_figure(volume: np.ndarray, steps: Mapping[str, Step], spacing: Numbers) -> Figure:
  """A column for the volume as it was read and after each step of its preparation.

  The rows are the coronal projection, which is the maximum over the depth, and the axial slice a
  third of the way down, with the skin on top. Pixels have their size in mm if the spacing is known.

  Args:
    volume: gray levels [D,H,W].
    steps: of `preparation.prepare`, by their names in order.
    spacing: [3] mm per voxel, NaN where unknown.
  """
  spacing = np.asarray(spacing, np.float64)
  spacing = np.where(np.isfinite(spacing).all(), spacing, 1.0)
  stages = {'as read': (colors.stretch(volume), spacing)}
  for name, step in steps.items():
    volume = volume[step.kept]
    if step.grid != step.size:
      volume = resize.resize_bilinear(volume.astype(np.float32), step.grid)
    spacing = spacing * step.size / step.grid
    stages[TITLES[name]] = colors.stretch(volume), spacing
  figure = Figure(figsize=(2.1 * len(stages), sum(_HEIGHTS) + 0.6), layout='constrained')
  axes = figure.subplots(2, len(stages), squeeze=False, height_ratios=_HEIGHTS)
  for (coronal, axial), (title, (image, steps_mm)) in zip(axes.T, stages.items()):
    down, across, deep = steps_mm
    coronal.set_title(f'{title}\n' + ' x '.join(map(str, image.shape)), fontsize=8)
    coronal.imshow(image.max(2), cmap='gray', vmin=0, vmax=255, aspect=down / across)
    axial.imshow(image[len(image) // 3].T, cmap='gray', vmin=0, vmax=255, aspect=deep / across)
    for axis in (coronal, axial):
      axis.set_axis_off()
  return figure
