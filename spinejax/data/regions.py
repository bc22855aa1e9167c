"""Cells of the connected components of a label, computed on the host once per case."""
import numpy as np
from scipy import ndimage

MAX_COMPONENTS = 255  # of a class; cells are uint8


def component_cells(label: np.ndarray, num_classes: int) -> np.ndarray:
  """The nearest component of each class at every pixel: R_m of SEAM (Zhao et al., 2021, eq. 7).

  Components are connected over faces, edges and corners (8 neighbors in two dimensions) and
  numbered from 1 in scan order. Nearest is by Euclidean distance in pixels. Component m of class n
  is `(label == n) & (cells[..., n - 1] == m)`. If a class has more than 255 components, the
  smallest ones get no number and their pixels belong to the nearest numbered one.

  Args:
    label: integers [...] of two or more dimensions, classes 0 (background) to num_classes - 1.
    num_classes: K, background included.

  Returns:
    uint8 [...,K-1]: cells[..., n - 1] belongs to class n and is 0 everywhere if it is absent.
  """
  label = np.asarray(label)
  cells = np.zeros((*label.shape, num_classes - 1), np.uint8)
  for n in range(1, num_classes):
    components, count = ndimage.label(label == n, np.ones((3,) * label.ndim))
    if count > MAX_COMPONENTS:
      sizes = np.bincount(components.reshape(-1), minlength=count + 1)
      sizes[0] = 0
      kept = np.sort(np.argsort(-sizes, kind='stable')[:MAX_COMPONENTS])
      number = np.zeros(count + 1, components.dtype)
      number[kept] = np.arange(1, MAX_COMPONENTS + 1)
      components = number[components]
    if count:
      nearest = ndimage.distance_transform_edt(
          components == 0, return_distances=False, return_indices=True)
      cells[..., n - 1] = components[tuple(nearest)]
  return cells
