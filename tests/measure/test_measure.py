"""Angles of exact phantom masks, what moves them and what must not, and hostile masks."""
import json

import numpy as np
import pytest
from scipy import ndimage

from spinejax import measure
from spinejax import phantoms
from spinejax.measure import angles, candidates, midline, pairing


def major(truth, key):
  return max((abs(curve.angle) for curve in truth[key]), default=0.0)


@pytest.fixture(scope='module')
def vpi_cases():
  return [phantoms.vpi((11, i), (512, 128), 0.0) for i in range(6)]


@pytest.fixture(scope='module')
def xray_cases():
  return [phantoms.xray((11, i), (600, 225), 0.0) for i in range(4)]


def test_extremes_drop_small_swings():
  assert angles.extremes([0, 10, 8, 20, 0]) == [0, 3, 4]
  assert len(angles.extremes([0, 3, 1])) < 2


def test_curves_say_side_apex_and_lower_bounds():
  curve, = angles.find_curves(np.array([10.0, 1.0, -10.0]), ['T5', 'T8', 'T11'], np.arange(3.0))
  assert (curve['angle_deg'], curve['side'], curve['apex']) == (20.0, 'right', 'T8')
  assert curve['region'] == 'thoracic' and curve['truncated'] and curve['ci95'] is None


def test_an_interval_across_a_limit_names_both_bands():
  curve = {'angle_deg': 24.0, 'ci95': [21.0, 27.0], 'truncated': False}
  assert angles.make_result('uca', spacing=None, curves=[curve])['band'] == 'mild or moderate'


def test_joint_fit_returns_a_straight_line():
  y = np.linspace(0, 300, 17)
  fit, draws = midline.fit_joint(y, 5 + 0.1 * y, np.full(17, 0.1), np.full(17, 4.0), 40.0,
                                 replicates=5, lam=0.0)
  np.testing.assert_allclose(fit.slope(y), 0.1, atol=1e-6)
  np.testing.assert_allclose(fit.position(np.array([-10.0])), 4.0, atol=1e-4)
  np.testing.assert_allclose(draws.slope(y), 0.1, atol=1e-5)


def test_smooth_fit_returns_a_straight_line():
  y = np.linspace(0, 300, 257)
  fit, _ = midline.fit_smooth(y, 5 + 0.1 * y, lam=1.0)
  np.testing.assert_allclose(fit.slope(y), 0.1, atol=1e-5)


def test_alignment_skips_the_missing_one():
  left = np.stack([np.arange(5) * 20.0, np.zeros(5)], -1)
  right = left[[0, 1, 3, 4]] + [1, 40]
  assert pairing.align(left, right, np.zeros(5), 9.0, 40.0) == [(0, 0), (1, 1), (3, 2), (4, 3)]


def test_chain_finds_pairs_among_false_points():
  z = np.arange(12) * 25.0
  points = np.stack([np.repeat(z, 2), np.tile([40.0, 60.0], 12), np.full(24, 20.0)], -1)
  chain = pairing.best_chain(np.concatenate([points, [[130.0, 78.0, 30.0]]]))
  assert chain == [(2 * i, 2 * i + 1) for i in range(12)]


def test_a_fused_blob_is_cut_in_two():
  y, x = np.mgrid[:60, :30]
  mask = np.hypot(y - 15, x - 15) < 10
  mask |= np.hypot(y - 33, x - 15) < 10
  blob = np.argwhere(mask)
  parts = candidates.split_blob(blob, np.ones(2))
  assert sorted(round(part[:, 0].mean()) for part in parts) in ([15, 33], [14, 34])
  assert len(candidates.split_blob(np.argwhere(np.hypot(y - 20, x - 15) < 10), np.ones(2))) == 1


def test_three_fused_blobs_are_cut_apart():
  y, x = np.mgrid[:90, :200]
  mask = np.zeros(y.shape, bool)
  for row, column in ((15, 15), (33, 15), (51, 15), (15, 60), (45, 60), (15, 100), (45, 100)):
    mask |= np.hypot(y - row, x - column) < 10
  centers = candidates.find_blobs(mask, np.ones(2), split=True).centers
  assert sorted(np.rint(centers[centers[:, 1] < 40, 0])) == pytest.approx([15, 33, 51], abs=1)
  assert len(centers) == 7


def test_halves_of_a_turned_blob_give_its_turn():
  y, x = np.mgrid[-60:61, -80:81]
  for degrees in (-35.0, 10.0, 25.0):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    blob = np.argwhere(((x * cos + y * sin) / 50)**2 + ((y * cos - x * sin) / 18)**2 < 1)
    (top, left), (bottom, right) = candidates.half_centers(blob, np.ones(2))
    assert abs(np.degrees(np.arctan2(bottom - top, right - left)) - degrees) < 0.3


def test_intervals_of_a_known_curve_cover_it():
  y = np.linspace(0, 400, 17)
  rng, covered = np.random.default_rng(0), []
  position, slope = 12 * np.cos(y / 70), -12 / 70 * np.sin(y / 70)
  tilts = np.degrees(np.arctan(slope))
  upper, lower = int(tilts.argmin()), int(tilts.argmax())
  for seed in range(80):
    _, draws = midline.fit_joint(
        y, position + rng.normal(0, 0.7, 17), slope + rng.normal(0, 0.035, 17), np.full(17, 4.5),
        45.0, replicates=100, seed=seed)
    angle = draws.tilt(y)[:, lower] - draws.tilt(y)[:, upper]
    low, high = np.percentile(angle, [2.5, 97.5])
    covered.append(low <= tilts[lower] - tilts[upper] <= high)
  assert np.mean(covered) > 0.85


def test_a_floor_widens_an_interval_in_quadrature():
  tilts, samples = np.array([0.0, 20.0]), np.array([[0.0, 17.0], [0.0, 24.0]])
  plain, wide = (angles.find_curves(tilts, [None] * 2, np.arange(2.0), samples, floor_deg=floor)[0]
                 for floor in (0.0, 1.0))
  arms = np.abs(np.array(plain['ci95']) - 20)
  expected = 20 + np.hypot(arms, 1.96 * 2**0.5) * [-1, 1]
  np.testing.assert_allclose(wide['ci95'], expected, atol=0.02)


def test_exact_vpi_masks(vpi_cases):
  results = [measure.measure_vpi(case['label'], case['truth']['spacing']) for case in vpi_cases]
  errors = [r['major_deg'] - major(c['truth'], 'cobb') for r, c in zip(results, vpi_cases)]
  assert np.abs(errors).mean() < 2.0
  assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_exact_xray_masks(xray_cases):
  errors = [measure.measure_xray(c['label'] == 1, c['truth']['spacing'])['major_deg']
            - major(c['truth'], 'centerline_cobb') for c in xray_cases]
  assert np.abs(errors).mean() < 2.0


def test_masks_of_one_class_of_bone(vpi_cases):
  results = [measure.measure_vpi(case['label'] > 0, case['truth']['spacing'], process=1, lump=1)
             for case in vpi_cases]
  errors = [r['major_deg'] - major(c['truth'], 'cobb') for r, c in zip(results, vpi_cases)]
  assert np.abs(errors).mean() < 2.5
  for mask in (vpi_cases[0]['label'][::-1] > 0, vpi_cases[0]['label'] == 3,
               np.ones((300, 80), bool), np.zeros((30, 30), bool),
               np.random.default_rng(0).random((512, 128)) < 0.05):
    result = measure.measure_vpi(mask, 1.0, process=1, lump=1)
    assert result['status'] == 'fail' and result['flags']


def without(case, levels, sides=(0, 1)):
  """The label of a phantom without the processes of these levels and sides."""
  labels, _ = ndimage.label(case['label'] == 2, np.ones((3, 3)))
  gone = [labels[tuple(np.rint(case['truth']['processes'][level, side]).astype(int))]
          for level in levels for side in sides]
  return np.where((labels > 0) & np.isin(labels, gone), 0, case['label'])


def test_each_failure_has_its_words(vpi_cases):
  label, spacing = vpi_cases[0]['label'], vpi_cases[0]['truth']['spacing']
  assert measure.measure_vpi(label, spacing)['status'] == 'ok'

  few = measure.measure_vpi(np.where(np.arange(len(label))[:, None] > 130, 0, label), spacing)
  assert few['status'] == 'fail' and few['major_deg'] is None
  assert 'too few' in few['flags'][0] or '6 are needed' in few['flags'][0]

  missing = without(vpi_cases[0], (4, 5))
  missing = measure.measure_vpi(missing, spacing)
  assert missing['status'] == 'partial'
  rows = [level['row'] for level in missing['levels']]
  widest = int(np.diff(rows).argmax())
  assert f'rows {rows[widest]:.0f} and {rows[widest + 1]:.0f}' in missing['flags'][0]

  lone = measure.measure_vpi(without(vpi_cases[0], (2, 3, 5, 7, 9), (1,)), spacing)
  assert lone['status'] == 'partial'
  assert any('5 processes have no partner' in flag for flag in lone['flags'])

  wild = label.copy()
  rng = np.random.default_rng(0)
  labels, number = ndimage.label(label == 2, np.ones((3, 3)))
  wild[label == 2] = 0
  for i in range(1, number + 1):
    blob = np.argwhere(labels == i) + [rng.choice([-6, 6]), 0]
    wild[tuple(blob.clip(0, np.array(label.shape) - 1).T)] = 2
  wild = measure.measure_vpi(wild, spacing)
  assert wild['status'] == 'partial' and any('scatter' in flag for flag in wild['flags'])


def test_a_curve_cut_by_the_picture_is_a_lower_bound(vpi_cases):
  case = max(vpi_cases, key=lambda case: major(case['truth'], 'cobb'))
  whole = measure.measure_vpi(case['label'], case['truth']['spacing'])
  main = max(whole['curves'], key=lambda curve: curve['angle_deg'])
  labels, number = ndimage.label(case['label'], np.ones((3, 3)))
  rows = [row for row, _ in ndimage.center_of_mass(labels, labels, range(1, number + 1))]
  gone = 1 + np.flatnonzero(np.array(rows) > main['apex_row'] + 5)
  result = measure.measure_vpi(np.where(np.isin(labels, gone), 0, case['label']),
                               case['truth']['spacing'])
  cut = result['curves'][-1]
  assert cut['truncated'] and cut['side'] == main['side']
  assert cut['angle_deg'] < main['angle_deg'] == whole['major_deg']
  worst = max(result['curves'], key=lambda curve: curve['angle_deg'])
  assert worst['truncated'] == any('at least' in flag for flag in result['flags'])


def test_square_pixels_of_unknown_size_are_pixels_of_one(vpi_cases):
  label = vpi_cases[1]['label'].repeat(2, 1)[:, ::2]
  known, unknown = (measure.measure_vpi(label, spacing) for spacing in ((0.7, 0.7), 1.0))
  assert abs(known['major_deg'] - unknown['major_deg']) < 0.02
  assert known['levels'] == unknown['levels'] and unknown['spacing'] == [1.0, 1.0]


def variants(mask):
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  yield 'crop', mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 1
  yield 'shift', np.pad(mask, ((7, 0), (11, 3))), 1
  yield 'flip', mask[:, ::-1], 1
  yield 'resample', np.repeat(np.repeat(mask, 2, 0), 2, 1), 2
  yield 'stretch', np.repeat(mask, 3, 0), np.array([3, 1])


@pytest.mark.parametrize('kind', ['vpi', 'xray'])
def test_shift_flip_and_resampling_change_what_they_must(kind, vpi_cases, xray_cases):
  case = {'vpi': vpi_cases, 'xray': xray_cases}[kind][0]
  function = {'vpi': measure.measure_vpi, 'xray': measure.measure_xray}[kind]
  mask = case['label'] if kind == 'vpi' else case['label'] == 1
  spacing = np.array(case['truth']['spacing'])
  plain = function(mask, spacing)
  for name, changed, factor in variants(mask):
    result = function(changed, spacing / factor)
    assert abs(result['major_deg'] - plain['major_deg']) < (
        0.02 if name in ('shift', 'crop') else 0.7), name
    sides = [curve['side'] for curve in result['curves']]
    expected = [curve['side'] for curve in plain['curves']]
    if name == 'flip':
      expected = [{'left': 'right', 'right': 'left'}[side] for side in expected]
    assert sides == expected


def hostile(label):
  yield 'empty', np.zeros_like(label)
  for value in (1, 2, 3):
    yield f'all {value}', np.full_like(label, value)
  blob = np.zeros_like(label)
  blob[100:110, 50:60] = 2
  yield 'one component', blob
  yield 'upside down', label[::-1]
  yield 'left side only', np.where(np.arange(label.shape[1]) < 64, label, 0)
  yield 'one pixel', np.eye(1, 1, dtype=np.uint8)
  yield 'no pixel', np.zeros((0, 0), np.uint8)
  yield 'noise', np.random.default_rng(0).integers(0, 4, label.shape)
  many = np.zeros((900, 120), np.uint8)
  for i in range(40):
    many[10 + 22 * i:20 + 22 * i, 30:90] = 3
  yield '40 lumps', many
  for number in (2, 6):
    few = np.where(np.arange(900)[:, None] < 22 * number, many, 0)
    yield f'{number} lumps', few
  yield 'specks', np.random.default_rng(1).random((1024, 256)) < 0.05
  yield 'specks of two', 2 * (np.random.default_rng(1).random((1024, 256)) < 0.05)
  yield 'NaN', np.full(label.shape, np.nan)
  yield 'floats with NaN', np.where(np.eye(*label.shape) > 0, np.nan, label)
  yield 'negative', -label.astype(int)
  yield 'bool', label > 0
  yield 'straight', np.where(np.arange(label.shape[1]) // 10 == 6, 2, 0) + 0 * label


@pytest.mark.parametrize('function', [measure.measure_vpi, measure.measure_xray])
def test_hostile_masks_give_a_status_and_words(function, vpi_cases):
  for name, mask in hostile(vpi_cases[0]['label']):
    result = function(mask, 0.5)
    json.dumps(result, allow_nan=False)
    assert result['status'] in ('ok', 'partial', 'fail'), name
    if result['status'] == 'fail':
      assert result['flags'] and result['major_deg'] is None and not result['curves'], name
    elif function is measure.measure_vpi:
      assert result['flags'], name


@pytest.mark.parametrize('function', [measure.measure_vpi, measure.measure_xray])
def test_unknown_spacing_is_refused(function, vpi_cases):
  for spacing in (None, float('nan'), (0.5, float('nan')), (0.0, 1.0)):
    result = function(vpi_cases[0]['label'], spacing)
    assert result['status'] == 'fail' and 'spacing' in result['flags'][0]
  with pytest.raises(ValueError, match='one per axis'):
    function(vpi_cases[0]['label'], (1, 1, 1))


def test_a_missing_level_is_flagged(vpi_cases):
  case = vpi_cases[0]
  labels, number = ndimage.label(case['label'] == 3, np.ones((3, 3)))
  mask = np.where(labels == 3, 0, case['label'])
  result = measure.measure_vpi(mask, case['truth']['spacing'])
  assert result['status'] == 'partial'
  assert any('missing' in flag for flag in result['flags'])
