"""Cobb angles of exact corners; moving or mirroring them changes what it must."""
import numpy as np
import pytest

from spinejax import measure
from spinejax.data import phantoms


@pytest.fixture(scope='module')
def truth():
  return phantoms.xray((11, 0), (240, 90), 0.0, family='double_major')['truth']


def test_exact_corners_give_the_exact_angles(truth):
  result = measure.measure_landmarks(truth['landmarks'], truth['spacing'])
  expected = [abs(curve.angle) for curve in truth['cobb']]
  np.testing.assert_allclose([c['angle_deg'] for c in result['curves']], expected, atol=0.02)
  assert [c['upper'] for c in result['curves']] == [c.upper for c in truth['cobb']]
  assert max(result['pt_mt_tl_deg']) == result['major_deg'] == result['pt_mt_tl_deg'][1]


def test_anisotropic_pixels_and_shifts_change_nothing(truth):
  plain = measure.measure_landmarks(truth['landmarks'], truth['spacing'])
  moved = measure.measure_landmarks(
      truth['landmarks'] * [2.0, 0.5] + [9.0, -40.0], np.array(truth['spacing']) * [0.5, 2.0])
  assert abs(plain['major_deg'] - moved['major_deg']) < 0.02


def test_bad_landmarks_give_words(truth):
  for points in (np.zeros((68, 2)), truth['landmarks'][::-1], truth['landmarks'] * np.nan):
    result = measure.measure_landmarks(points, 1.0)
    assert result['status'] == 'fail' and result['flags'] and result['major_deg'] is None
  assert measure.measure_landmarks(truth['landmarks'], None)['status'] == 'fail'
  with pytest.raises(ValueError, match='68 rows'):
    measure.measure_landmarks(np.zeros((4, 2)), 1.0)
