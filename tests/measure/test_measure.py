"""Angles of exact phantom masks, what moves them and what must not, and hostile masks."""
import json

import numpy as np
import pytest
from scipy import ndimage

from spinejax import measure
from spinejax.data import phantoms
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


def test_exact_vpi_masks(vpi_cases):
  results = [measure.measure_vpi(case['label'], case['truth']['spacing']) for case in vpi_cases]
  errors = [r['major_deg'] - major(c['truth'], 'cobb') for r, c in zip(results, vpi_cases)]
  assert np.abs(errors).mean() < 2.0
  assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_exact_xray_masks(xray_cases):
  errors = [measure.measure_xray(c['label'] == 1, c['truth']['spacing'])['major_deg']
            - major(c['truth'], 'centerline_cobb') for c in xray_cases]
  assert np.abs(errors).mean() < 2.0


def variants(mask):
  yield 'shift', np.pad(mask, ((7, 0), (11, 3))), 1
  yield 'flip', mask[:, ::-1], 1
  yield 'resample', np.repeat(np.repeat(mask, 2, 0), 2, 1), 2


@pytest.mark.parametrize('kind', ['vpi', 'xray'])
def test_shift_flip_and_resampling_change_what_they_must(kind, vpi_cases, xray_cases):
  case = {'vpi': vpi_cases, 'xray': xray_cases}[kind][0]
  function = {'vpi': measure.measure_vpi, 'xray': measure.measure_xray}[kind]
  mask = case['label'] if kind == 'vpi' else case['label'] == 1
  spacing = np.array(case['truth']['spacing'])
  plain = function(mask, spacing)
  for name, changed, factor in variants(mask):
    result = function(changed, spacing / factor)
    assert abs(result['major_deg'] - plain['major_deg']) < (0.02 if name == 'shift' else 0.7), name
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
