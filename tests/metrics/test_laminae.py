"""Metrics of laminae against cases counted by hand and a slow transcription of what they mean."""
import itertools
import json
import math

import numpy as np
import pytest

from spinejax.measurement.results import Lamina
from spinejax.metrics import laminae

SHAPE = (20, 10, 6)


def cubes(*centers, shape=SHAPE):
  mask = np.zeros(shape, np.uint8)
  for center in centers:
    mask[tuple(slice(max(c - 1, 0), c + 2) for c in center)] = 1
  return mask


def test_a_case_counted_by_hand():
  # Four true laminae. The first is met exactly, the second beside, one voxel off in each of two
  # axes, the third by nothing, the fourth by nothing; one prediction is made up, near the fourth.
  truth = cubes((2, 2, 2), (7, 7, 2), (12, 2, 2), (17, 7, 2))
  prediction = cubes((2, 2, 2), (8, 8, 2), (17, 2, 2))
  values = laminae.case_metrics(
      prediction, truth, spacing=(2.0, 1.0, 1.0),
      landmarks=np.array([[2, 2, 2], [7, 7, 2], [12, 2, 2], [17, 7, 2.0]]),
      region=np.array([0, 0, 1, 1], np.int8))
  assert values['true'] == {'all': 4, 'thoracic': 2, 'lumbar': 2}
  # The third prediction lies 5 from (12, 2, 2) and 5 from (17, 7, 2): both lumbar.
  assert values['predicted'] == {'all': 3, 'thoracic': 2, 'lumbar': 1}
  assert values['missed'] == {'all': 2, 'thoracic': 0, 'lumbar': 2}
  assert values['false'] == {'all': 1, 'thoracic': 0, 'lumbar': 1}
  assert values['delta'] == {'all': 1, 'thoracic': 0, 'lumbar': 1}
  distances = {'thoracic': [0, 2**0.5], 'lumbar': [5, 5]}
  # In mm the third lamina is 10 from the made-up one and (8, 6, 0), 10 again, from the second.
  in_mm = {'thoracic': [0, 5**0.5], 'lumbar': [10, 5]}
  for unit, table in (('', distances), ('_mm', in_mm)):
    table['all'] = table['thoracic'] + table['lumbar']
    for key, found in table.items():
      assert values[f'd3d_sum{unit}'][key] == pytest.approx(sum(found))
      assert values[f'd3d_mean{unit}'][key] == pytest.approx(sum(found) / len(found))
  assert values['dice'] == pytest.approx({
      'all': 2 * (27 + 12) / (7 * 27), 'thoracic': 2 * (27 + 12) / (4 * 27), 'lumbar': 0.0})
  assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_a_mask_cleaned_by_hand():
  """Of the two found laminae one is true; the third component is false, the fourth one missed."""
  truth = cubes((2, 2, 2), (7, 7, 2), (17, 7, 0))
  prediction = cubes((2, 2, 2), (8, 8, 2), (17, 2, 2))
  named = [Lamina(None, 'right', *place, 0.9, found) for place, found in (
      ((2.2, 2, 2), True), ((7.9, 8, 2), True), ((16.4, 6.6, -0.8), False))]
  cleaned = laminae.clean(prediction, named)
  expected = cubes((2, 2, 2), (8, 8, 2)).astype(bool)
  expected[15:18, 6:9, :1] = True
  np.testing.assert_array_equal(cleaned, expected)
  values = laminae.case_metrics(prediction, truth, cleaned=cleaned)
  assert counts_of(values) == (1, 1, 0)
  assert (values['missed_cleaned'], values['false_cleaned']) == ({'all': 0}, {'all': 0})
  np.testing.assert_array_equal(laminae.clean(prediction, ()), prediction > 0)
  mean = laminae.summarize([values, laminae.case_metrics(prediction, truth)]).mean
  assert mean['missed_cleaned'] == {'all': 0.0} and mean['missed'] == {'all': 1.0}


def counts_of(values, key='all'):
  return tuple(values[metric][key] for metric in ('missed', 'false', 'delta'))


def test_a_bridge_and_a_split_are_neither_missed_nor_false():
  truth = cubes((4, 4, 2), (10, 4, 2))
  bridge, split = truth.copy(), truth.copy()
  bridge[4:11, 4, 2] = 1
  values = laminae.case_metrics(bridge, truth)
  # The one centroid lies midway, three voxels from either.
  assert counts_of(values) == (0, 0, 1) and values['d3d_mean'] == {'all': pytest.approx(3)}
  split[4] = 0
  values = laminae.case_metrics(split, truth)
  assert counts_of(values) == (0, 0, 1) and values['d3d_sum']['all'] == pytest.approx(1)


def test_corners_touch_by_full_connectivity_alone():
  mask = np.zeros(SHAPE, bool)
  mask[3, 3, 3] = mask[4, 4, 4] = True
  assert laminae.find_components(mask).centroids.tolist() == [[3, 3, 3], [4, 4, 4]]
  joined = laminae.find_components(mask, 'full')
  assert joined.centroids.tolist() == [[3.5, 3.5, 3.5]] and joined.sizes.tolist() == [2]
  assert laminae.case_metrics(mask, mask, connectivity='full')['true']['all'] == 1


def test_nothing_predicted_is_the_diagonal_away():
  truth, nothing = cubes((4, 4, 2), (10, 4, 2)), np.zeros(SHAPE, bool)
  values = laminae.case_metrics(nothing, truth, spacing=(1.0, 2.0, 3.0))
  assert values['d3d_mean']['all'] == pytest.approx(math.sqrt(20**2 + 10**2 + 6**2))
  assert values['d3d_sum_mm']['all'] == pytest.approx(2 * math.sqrt(20**2 + 20**2 + 18**2))
  assert counts_of(values) == (2, 0, 2) and values['dice']['all'] == 0


def test_no_lamina_in_the_truth():
  nothing = np.zeros(SHAPE, np.uint8)
  values = laminae.case_metrics(cubes((4, 4, 2)), nothing, spacing=(1, 1, 1),
                                landmarks=np.zeros((0, 3)), region=np.zeros(0, np.int8))
  assert values['d3d_mean'] == values['d3d_sum'] == values['d3d_mean_mm'] == {'all': None}
  assert counts_of(values) == (0, 1, 1) and values['dice'] == {'all': 0.0}
  assert laminae.case_metrics(nothing, nothing)['dice'] == {'all': None}


def test_a_region_without_laminae():
  truth, landmarks = cubes((4, 4, 2)), np.array([[4, 4, 2.0], [np.nan] * 3])
  values = laminae.case_metrics(truth, truth, landmarks=landmarks, region=np.array([0, 1]))
  assert values['d3d_mean'] == {'all': 0.0, 'thoracic': 0.0, 'lumbar': None}
  assert values['dice'] == {'all': 1.0, 'thoracic': 1.0, 'lumbar': None}
  assert counts_of(values, 'lumbar') == (0, 0, 0)
  unknown = laminae.case_metrics(truth, truth, landmarks=landmarks, region=np.array([-1, -1]))
  assert set(unknown['missed']) == {'all'}


@pytest.mark.parametrize('spacing', [None, (np.nan, 1, 1), (np.nan,) * 3])
def test_an_unknown_spacing_leaves_millimeters_undefined(spacing):
  values = laminae.case_metrics(cubes((4, 4, 2)), cubes((4, 5, 2)), spacing=spacing)
  assert values['d3d_mean'] == {'all': 1.0} and values['d3d_mean_mm'] == {'all': None}


def slow_metrics(prediction, truth, spacing, landmarks, region, connectivity):
  """Loops over voxels and components, by the definitions alone; and whether a region is a tie."""

  def components(mask):
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
      stack, component = [left.pop()], []
      while stack:
        voxel = stack.pop()
        component.append(voxel)
        for offset in itertools.product((-1, 0, 1), repeat=3):
          other = tuple(a + b for a, b in zip(voxel, offset))
          near = connectivity == 'full' or sum(map(abs, offset)) == 1
          if near and other in left:
            left.remove(other)
            stack.append(other)
      found.append((set(component), [sum(axis) / len(component) for axis in zip(*component)]))
    return found

  def away(a, b, unit=(1, 1, 1)):
    return math.sqrt(sum(((x - y) * s)**2 for x, y, s in zip(a, b, unit)))

  true = [(*c, region[min(range(len(landmarks)), key=lambda p: away(c[1], landmarks[p]))])
          for c in components(truth)]
  predicted, tied = [], False
  for c in components(prediction):
    order = sorted(true, key=lambda t: away(c[1], t[1]))
    near = [t[2] for t in order if away(c[1], t[1]) < away(c[1], order[0][1]) + 1e-9]
    tied |= len(set(near)) > 1
    predicted.append((*c, near[0] if near else None))
  result = {}
  for key, number in (('all', None), ('thoracic', 0), ('lumbar', 1)):
    mine = [t for t in true if number is None or t[2] == number]
    theirs = [p for p in predicted if number is None or p[2] == number]
    t_voxels, p_voxels = (set().union(*(c[0] for c in cs)) for cs in (mine, theirs))
    voxels = len(t_voxels) + len(p_voxels)
    row = {'dice': 2 * len(t_voxels & p_voxels) / voxels if voxels else None,
           'delta': abs(len(mine) - len(theirs)), 'true': len(mine), 'predicted': len(theirs),
           'missed': sum(not any(t[0] & p[0] for p in predicted) for t in mine),
           'false': sum(not any(t[0] & p[0] for t in true) for p in theirs)}
    for unit, size in (('', (1, 1, 1)), ('_mm', spacing)):
      diagonal = away(truth.shape, (0, 0, 0), size)
      found = [min((away(t[1], p[1], size) for p in predicted), default=diagonal) for t in mine]
      row[f'd3d_sum{unit}'] = sum(found) if found else None
      row[f'd3d_mean{unit}'] = sum(found) / len(found) if found else None
    result[key] = row
  return result, tied


@pytest.mark.parametrize('connectivity', ['face', 'full'])
def test_random_masks_agree_with_the_transcription(connectivity):
  rng = np.random.default_rng(3)
  num_ties = 0
  for case in range(40):
    shape = tuple(rng.integers(4, 10, 3))
    truth, prediction = (rng.random(shape) < density for density in rng.choice([0, .05, .2, .5], 2))
    spacing = rng.uniform(0.5, 2, 3)
    landmarks, region = rng.uniform(0, 9, (5, 3)), np.array([0, 1, 0, 1, 1])
    values = laminae.case_metrics(prediction, truth, spacing=spacing, landmarks=landmarks,
                                  region=region, connectivity=connectivity)
    expected, tied = slow_metrics(prediction, truth, spacing, landmarks, region, connectivity)
    num_ties += tied
    for metric, table in values.items():
      assert set(table) == (set(expected) if truth.any() else {'all'})
      for key, value in table.items():
        if key == 'all' or not tied:
          assert value == pytest.approx(expected[key][metric]), (case, metric, key)
  assert num_ties < 20


@pytest.mark.parametrize('prediction', [
    np.zeros((3, 3, 4), bool), np.zeros((3, 3), bool), np.zeros((3, 3, 3))])
def test_masks_of_another_kind_or_grid_are_refused(prediction):
  with pytest.raises(ValueError, match=r'must be \[D,H,W\] of bool or whole numbers on one grid'):
    laminae.case_metrics(prediction, np.zeros((3, 3, 3), bool))


def test_summary_leaves_undefined_values_out():
  truth, nothing = cubes((4, 4, 2), (10, 4, 2)), np.zeros(SHAPE, np.uint8)
  where = {'landmarks': np.array([[4, 4, 2], [10, 4, 2.0]]), 'region': np.array([0, 1])}
  cases = [laminae.case_metrics(truth, truth, **where),
           laminae.case_metrics(cubes((4, 5, 2)), truth, **where),
           laminae.case_metrics(truth, nothing)]
  summary = laminae.summarize(cases)
  far = math.sqrt(6**2 + 1)
  assert summary.mean['d3d_sum']['all'] == pytest.approx((1 + far) / 2)
  assert summary.sd['d3d_sum']['all'] == pytest.approx((1 + far) / math.sqrt(2))
  assert summary.mean['missed'] == pytest.approx({'all': 1 / 3, 'thoracic': 0, 'lumbar': 0.5})
  assert summary.mean['d3d_mean_mm'] == {'all': None, 'thoracic': None, 'lumbar': None}
  assert summary.sd['missed']['lumbar'] == pytest.approx(math.sqrt(0.5))
  assert laminae.summarize([]).mean['dice'] == {}
  assert laminae.summarize(cases[:1]).sd['dice']['all'] is None
