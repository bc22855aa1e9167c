"""Laminae found, missed and falsely found, and the distance of their centroids from the truth.

A lamina is a connected component of a mask in three dimensions. With the centroids g_i of the true
components and h_j of the predicted ones (C-U-net, Wong et al., 2021, eq. 1, 7 and 8 and fig. 4):

  name              value
  dice              2 |P and T| / (|P| + |T|) over voxels
  d3d_mean          mean over i of min_j |g_i - h_j|, in voxels; eq. 7 as printed
  d3d_sum           sum over i of the same
  ..._mm            the same in millimeters, with the nearest h_j in millimeters
  delta             |number of true components - number of predicted ones|; eq. 8
  true, predicted   numbers of components
  missed            true components without a predicted voxel (false negatives)
  false             predicted components without a true voxel (false positives)
  missed_cleaned, false_cleaned   the same after `clean`, which the paper's discussion asks for

The 118.1 voxels of the paper's table I can only be `d3d_sum`, 3.5 voxels for each of 34 laminae: as
the mean they would put the nearest prediction a third of the 384 voxels away, at a Dice of 0.41.

If one predicted component covers several laminae, or several components cover one lamina, none is
missed and none false; only `delta` shows it. In `delta` missed and false laminae cancel.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from spinejax.measurement.results import Lamina
from spinejax.metrics.results import LaminaeSummary, RegionTable, mean_sd

REGIONS = ('thoracic', 'lumbar')  # by their number in a record
METRICS = ('dice', 'd3d_mean', 'd3d_sum', 'd3d_mean_mm', 'd3d_sum_mm', 'delta', 'true', 'predicted',
           'missed', 'false', 'missed_cleaned', 'false_cleaned')
_CONNECTIVITY = {'face': 1, 'full': 3}
_UNKNOWN = -1  # region of a component


class Components(NamedTuple):
  """Connected components of a mask."""
  labels: np.ndarray  # int32 [D,H,W], 0 outside, else 1 + the row of the component in the others
  centroids: np.ndarray  # float64 [N,3] in voxels; voxel centers are whole numbers
  sizes: np.ndarray  # int64 [N] voxels


def find_components(mask: np.ndarray, connectivity: str = 'face') -> Components:
  """Components of a mask [D,H,W], by 'face' (6 neighbors) or 'full' connectivity (26 neighbors)."""
  structure = ndimage.generate_binary_structure(3, _CONNECTIVITY[connectivity])
  labels, number = ndimage.label(mask, structure)
  places = np.nonzero(labels)
  rows = labels[places] - 1
  sizes = np.bincount(rows, minlength=number)
  sums = [np.bincount(rows, axis, number) for axis in places]
  return Components(labels, np.stack(sums, -1) / sizes[:, None], sizes)


def clean(mask: np.ndarray, laminae: Sequence[Lamina]) -> np.ndarray:
  """A mask bool [D,H,W] of laminae: components of the found ones, 3x3x3 voxels of proposed ones.

  Args:
    mask: [D,H,W], 0 is background.
    laminae: of a measurement of this mask; without any the mask stays as it is.
  """
  if not laminae:
    return mask > 0
  places = np.array([(lamina.row, lamina.column, lamina.depth) for lamina in laminae])
  found = np.array([lamina.found for lamina in laminae])
  components = find_components(mask)
  cleaned = np.isin(components.labels, 1 + _nearest(places[found], components.centroids)[1])
  for center in np.rint(places[~found]).astype(int):
    cleaned[tuple(slice(max(c - 1, 0), max(c + 2, 0)) for c in center)] = True
  return cleaned


def case_metrics(
    prediction: np.ndarray, label: np.ndarray, *, cleaned: np.ndarray | None = None,
    spacing: Sequence[float] | np.ndarray | None = None, landmarks: np.ndarray | None = None,
    region: np.ndarray | None = None, connectivity: str = 'face') -> RegionTable:
  """Metrics of one volume, over all laminae and by region.

  A true component has the region of its nearest landmark, a predicted one that of the true
  component with the nearest centroid, both in voxels. The distances of a region are those of its
  true components to the nearest prediction in any region. Without a predicted component each
  distance is the diagonal of the volume, as in the loss. Undefined values are None: distances
  without a true component, those in mm with an unknown spacing, and the Dice of two empty masks.

  Args:
    prediction, label: bool or int [D,H,W] on one grid, 0 is background.
    cleaned: the prediction after `clean`, or None.
    spacing: [3] mm per voxel; None or NaN if unknown.
    landmarks: float [P,3] in voxels; rows that are not finite are ignored.
    region: int [P], an index into REGIONS, or -1 if unknown.
    connectivity: of components, as in the loss.

  Returns:
    {metric: {'all', 'thoracic' and 'lumbar': value}}, with 'all' alone if no landmark has a region.

  Raises:
    ValueError: the masks are not of this kind or not on one grid.
  """
  for mask in (prediction, label):
    if mask.shape != label.shape or mask.ndim != 3 or mask.dtype.kind not in 'biu':
      raise ValueError('masks of laminae must be [D,H,W] of bool or whole numbers on one grid, got '
                       f'{list(mask.shape)} of {mask.dtype}; threshold probabilities first.')
  true, predicted = (find_components(mask, connectivity) for mask in (label, prediction))
  true_region = np.full(len(true.sizes), _UNKNOWN)
  if landmarks is not None and region is not None:
    finite = np.isfinite(landmarks).all(1)
    true_region = _take(region[finite], _nearest(true.centroids, landmarks[finite])[1])
  predicted_region = _take(true_region, _nearest(predicted.centroids, true.centroids)[1])
  shared = (true.labels > 0) & (predicted.labels > 0)
  true_row, predicted_row = true.labels[shared] - 1, predicted.labels[shared] - 1
  is_missed = np.bincount(true_row, minlength=len(true.sizes)) == 0
  is_false = np.bincount(predicted_row, minlength=len(predicted.sizes)) == 0
  steps = np.full(3, np.nan) if spacing is None else np.asarray(spacing, np.float64)
  distances = {'': _distances(true, predicted, np.ones(3)),
               '_mm': None if np.isnan(steps).any() else _distances(true, predicted, steps)}

  rated = {'all': (np.full(len(true_region), True), np.full(len(predicted_region), True))}
  if (true_region != _UNKNOWN).any():
    rated |= {name: (true_region == number, predicted_region == number)
              for number, name in enumerate(REGIONS)}
  values: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  for key, (of_true, of_predicted) in rated.items():
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
  if cleaned is not None:
    after = case_metrics(cleaned, label, landmarks=landmarks, region=region,
                         connectivity=connectivity)
    values |= {f'{metric}_cleaned': dict(after[metric]) for metric in ('missed', 'false')}
  return {metric: by_region for metric, by_region in values.items() if by_region}


def summarize(cases: Sequence[RegionTable]) -> LaminaeSummary:
  """Mean and standard deviation of the results of `case_metrics`, possibly none."""
  mean: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  sd: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  for metric in METRICS:
    for key in ('all', *REGIONS):
      values = [case[metric][key] for case in cases if key in case.get(metric, ())]
      if values:
        mean[metric][key], sd[metric][key], _ = mean_sd(values)
  return LaminaeSummary(mean, sd)


def _nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Distance to, and row of, the nearest of `others` [M,3] for each of `points` [N,3].

  Without others the distances are infinite and the rows -1.
  """
  if not len(others) or not len(points):
    return np.full(len(points), math.inf), np.full(len(points), -1)
  return cKDTree(others).query(points)


def _take(regions: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """regions[rows]; unknown for row -1."""
  return np.append(regions, _UNKNOWN)[rows]


def _distances(true: Components, predicted: Components, steps: np.ndarray) -> np.ndarray:
  """min_j |g_i - h_j| in units of `steps`, [N]; the diagonal if nothing is predicted."""
  if not len(predicted.sizes):
    return np.full(len(true.sizes), np.linalg.norm(true.labels.shape * steps))
  return _nearest(true.centroids * steps, predicted.centroids * steps)[0]
