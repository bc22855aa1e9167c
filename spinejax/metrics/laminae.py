"""Laminae found, missed and made up, and how far their centroids lie from the truth. Host code.

A lamina is a connected component of a mask in three dimensions. Of true components, with centroids
g_i, and predicted ones, with centroids h_j (C-U-net, Wong et al., 2021, eq. 1, 7 and 8 and fig. 4):

  name        value
  dice        2 |P and T| / (|P| + |T|) over voxels
  d3d_mean    mean over i of min_j |g_i - h_j|, in voxels; eq. 7 as printed
  d3d_sum     sum over i of the same
  ..._mm      the same in millimeters, the nearest h_j chosen there
  delta       |number of true components - number of predicted ones|; eq. 8
  true, predicted   numbers of components
  missed      true components without a predicted voxel (false negatives)
  false       predicted components without a true voxel (false positives)

The 118.1 voxels of table I can only be `d3d_sum`. At 34 laminae they are 3.5 voxels a lamina. As
the mean they would put the usual nearest prediction a third of the 384 voxels away, with a Dice of
0.41; and the paper calls their difference, 33 voxels, that of "the total distance".

One predicted component may find several laminae, and one lamina be found by several components: of
these none is missed and none false. `delta` sees it, and misses and false laminae cancel in it.
"""
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

REGIONS = ('thoracic', 'lumbar')  # by their number in a record
METRICS = ('dice', 'd3d_mean', 'd3d_sum', 'd3d_mean_mm', 'd3d_sum_mm', 'delta', 'true', 'predicted',
           'missed', 'false')
_CONNECTIVITY = {'face': 1, 'full': 3}
_UNKNOWN = -1


class Components(NamedTuple):
  """Connected components of a mask.

  Attributes:
    labels: int32 [D,H,W], 0 outside, else 1 + the row of the component in what follows.
    centroids: float64 [N,3] in voxels, voxel centers at whole numbers.
    sizes: int64 [N] voxels.
  """
  labels: np.ndarray
  centroids: np.ndarray
  sizes: np.ndarray


def find_components(mask: np.ndarray, connectivity: str = 'face') -> Components:
  """Components of a mask [D,H,W], of bool or whole numbers with 0 outside.

  Args:
    mask: the mask; may be empty.
    connectivity: 'face' (6 neighbors) or 'full' (26).

  Raises:
    ValueError: a mask of another kind, another connectivity.
  """
  mask = np.asarray(mask)
  if mask.ndim != 3 or not (mask.dtype == bool or np.issubdtype(mask.dtype, np.integer)):
    raise ValueError('a mask of laminae must be [D,H,W] of bool or whole numbers, got '
                     f'{list(mask.shape)} of {mask.dtype}; threshold probabilities first.')
  if connectivity not in _CONNECTIVITY:
    raise ValueError(f"connectivity must be 'face' or 'full', not {connectivity!r}.")
  structure = ndimage.generate_binary_structure(3, _CONNECTIVITY[connectivity])
  labels, number = ndimage.label(mask, structure)
  places = np.nonzero(labels)
  rows = labels[places] - 1
  sizes = np.bincount(rows, minlength=number)
  sums = [np.bincount(rows, axis, number) for axis in places]
  return Components(labels, np.stack(sums, -1) / sizes[:, None], sizes)


def case_metrics(
    prediction: np.ndarray, label: np.ndarray, *, spacing: Sequence[float] | None = None,
    landmarks: np.ndarray | None = None, region: np.ndarray | None = None,
    connectivity: str = 'face') -> dict[str, dict[str, float | int | None]]:
  """Metrics of one volume, over all laminae and by region; names are explained above.

  The region of a true component is that of its nearest landmark, the region of a predicted one
  that of the true component with the nearest centroid, both in voxels. Within a region distances
  are those of its true components to the nearest prediction anywhere.

  Args:
    prediction, label: bool or int [D,H,W] on one grid, 0 is background.
    spacing: [3] mm per voxel; None or NaN where unknown.
    landmarks: float [P,3] in voxels; rows that are not finite count for nothing.
    region: int [P], an index into REGIONS or -1, unknown.
    connectivity: of components, 'face' or 'full', as the loss has it.

  Returns:
    {metric: {'all': value, 'thoracic': value, 'lumbar': value}} of python numbers, without regions
    where no landmark has one. Without a predicted component a distance is the diagonal of the
    volume, as in the loss: finite, and no distance within it is longer. Without a true component
    distances are None, `missed` is 0 and every predicted component false. Dice is None where
    neither has a voxel, distances in mm where the spacing is unknown.

  Raises:
    ValueError: shapes or kinds of the arrays that do not fit; a spacing that is not positive.
  """
  prediction, label = np.asarray(prediction), np.asarray(label)
  if prediction.shape != label.shape:
    raise ValueError(f'the predicted mask is {list(prediction.shape)} and the true one '
                     f'{list(label.shape)}; both must be on one grid.')
  spacing = _checked_spacing(spacing)
  true, predicted = (find_components(mask, connectivity) for mask in (label, prediction))
  true_region = _regions_of(true.centroids, landmarks, region)
  predicted_region = _take(true_region, _nearest(predicted.centroids, true.centroids)[1])

  shared = (true.labels > 0) & (predicted.labels > 0)
  true_row, predicted_row = true.labels[shared] - 1, predicted.labels[shared] - 1
  is_missed = np.bincount(true_row, minlength=len(true.sizes)) == 0
  is_false = np.bincount(predicted_row, minlength=len(predicted.sizes)) == 0
  distances: dict[str, np.ndarray | None] = {'': _distances(true, predicted, np.ones(3))}
  distances['_mm'] = None if spacing is None else _distances(true, predicted, spacing)

  values: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  keys: dict[str, int | None] = {'all': None}
  if (true_region != _UNKNOWN).any():
    keys |= {name: number for number, name in enumerate(REGIONS)}
  for key, number in keys.items():
    of_true, of_predicted = (
        np.full(len(regions), True) if number is None else regions == number
        for regions in (true_region, predicted_region))
    num_true, num_predicted = int(of_true.sum()), int(of_predicted.sum())
    hits = int((of_true[true_row] & of_predicted[predicted_row]).sum())
    voxels = int(true.sizes[of_true].sum() + predicted.sizes[of_predicted].sum())
    values['dice'][key] = 2 * hits / voxels if voxels else None
    for unit, distance in distances.items():
      found = None if distance is None or not num_true else distance[of_true]
      values[f'd3d_mean{unit}'][key] = None if found is None else float(found.mean())
      values[f'd3d_sum{unit}'][key] = None if found is None else float(found.sum())
    values['delta'][key] = abs(num_true - num_predicted)
    values['true'][key], values['predicted'][key] = num_true, num_predicted
    values['missed'][key] = int((is_missed & of_true).sum())
    values['false'][key] = int((is_false & of_predicted).sum())
  return values


def summarize(cases: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
              ) -> dict[str, dict[str, Any]]:
  """The table of a test set.

  Args:
    cases: {name: `case_metrics`}, possibly empty.

  Returns:
    {'cases': cases, 'mean': {metric: {'all' or region: value}}, 'sd': the same}, over the cases in
    which the metric is defined; None is undefined everywhere, and a deviation (n - 1 below) of
    fewer than two cases.
  """
  mean: dict[str, dict[str, float | None]] = {}
  deviation: dict[str, dict[str, float | None]] = {}
  for metric in METRICS:
    tables = [case[metric] for case in cases.values()]
    mean[metric], deviation[metric] = {}, {}
    for key in ('all', *REGIONS):
      if any(key in table for table in tables):
        found = [value for table in tables if (value := table.get(key)) is not None]
        mean[metric][key] = float(np.mean(found)) if found else None
        deviation[metric][key] = float(np.std(found, ddof=1)) if len(found) > 1 else None
  return {'cases': dict(cases), 'mean': mean, 'sd': deviation}


def _checked_spacing(spacing: Sequence[float] | None) -> np.ndarray | None:
  if spacing is None:
    return None
  spacing = np.asarray(spacing, np.float64)
  if spacing.shape != (3,) or (spacing <= 0).any() or np.isinf(spacing).any():
    raise ValueError(f'spacing must be three positive numbers of mm, got {spacing.tolist()}.')
  return None if np.isnan(spacing).any() else spacing


def _nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Distance to, and row of, the nearest of `others` [M,3] for each of `points` [N,3].

  Without others distances are infinite and rows -1.
  """
  if not len(others) or not len(points):
    return np.full(len(points), math.inf), np.full(len(points), -1)
  return cKDTree(others).query(points)


def _take(regions: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """regions[rows], unknown where the row is -1."""
  return np.append(regions, _UNKNOWN)[rows]


def _regions_of(centroids: np.ndarray, landmarks: np.ndarray | None, region: np.ndarray | None
                ) -> np.ndarray:
  """Region of each true component, int [N]."""
  if landmarks is None or region is None:
    return np.full(len(centroids), _UNKNOWN)
  landmarks, region = np.asarray(landmarks, np.float64), np.asarray(region, np.int64)
  if landmarks.ndim != 2 or landmarks.shape[1] != 3 or region.shape != landmarks.shape[:1]:
    raise ValueError('landmarks must be [P,3] with a region [P], got '
                     f'{list(landmarks.shape)} and {list(region.shape)}.')
  finite = np.isfinite(landmarks).all(1)
  return _take(region[finite], _nearest(centroids, landmarks[finite])[1])


def _distances(true: Components, predicted: Components, spacing: np.ndarray) -> np.ndarray:
  """min_j |g_i - h_j| in units of spacing, [N]; the diagonal where nothing is predicted."""
  if not len(predicted.sizes):
    return np.full(len(true.sizes), np.linalg.norm(true.labels.shape * spacing))
  return _nearest(true.centroids * spacing, predicted.centroids * spacing)[0]
