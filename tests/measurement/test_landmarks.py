"""Cobb angles of corners by hand, by our rule and the challenge's; what moves them and must not."""
import numpy as np
import pytest

from spinejax import measurement
from spinejax import phantoms
from spinejax.measurement import landmarks


def corners(tilts, bend) -> np.ndarray:
  """[68, 2] of bodies with the tilts [17] degrees; their edges lie 10 rows apart on a bend."""
  middles = np.stack([10.0 * np.arange(34), 100 + SHAPES[bend](np.linspace(-1, 1, 34))], -1)
  turn = np.radians(np.repeat(tilts, 2))
  across = 20 * np.stack([-np.sin(turn), np.cos(turn)], -1)
  return np.stack([middles - across, middles + across], 1).reshape(68, 2)


SHAPES = {'C': lambda u: 30 * (1 - u**2) + u, 'S': lambda u: 30 * np.sin(np.pi * u) + u}


@pytest.fixture
def tilts():
  tilts = np.zeros(17)
  tilts[[0, 2, 12, 16]] = 3, 10, -20, -5
  return tilts


@pytest.fixture(scope='module')
def truth():
  return phantoms.xray((11, 0), (240, 90), 0.0, family='double_major').truth


def test_exact_corners_give_the_exact_angles(truth):
  result = measurement.measure_landmarks(truth.landmarks, truth.spacing)
  expected = [abs(curve.angle) for curve in truth.cobb]
  np.testing.assert_allclose([c.angle_deg for c in result.curves], expected, atol=0.02)
  assert [c.upper for c in result.curves] == [c.upper for c in truth.cobb]
  assert max(result.pt_mt_tl_deg) == result.major_deg == result.pt_mt_tl_deg[1]


def test_our_rule_by_hand(tilts):
  result = measurement.measure_landmarks(corners(tilts, 'C'), 1.0)
  # Swings: T1..T2 3 (too small), T2..T3 10, T3..L1 30, L1..L2 20, L4..L5 5.
  assert result.pt_mt_tl_deg == pytest.approx([10.0, 30.0, 20.0], abs=0.01)
  assert result.curves[1].upper == 'T3' and result.curves[1].lower == 'L1'


@pytest.mark.parametrize('bend, height, expected', [
    ('C', 400, (7, 30, 15)),   # a(T1, T3) and a(L1, L5)
    ('S', 400, (10, 30, 20)),  # rows 40 + 240 < 400: T2 against T3, L2 against L1
    ('S', 200, (10, 30, 3)),   # else from T2, where PT was found, up: T1 against T2
])
def test_the_rule_of_the_challenge_by_hand(bend, height, expected, tilts):
  points = corners(tilts, bend)
  assert landmarks.challenge_angles(points, height) == pytest.approx(expected, abs=1e-4)
  result = measurement.measure_landmarks(points, 1.0, rule='challenge', height=height)
  assert result.pt_mt_tl_deg == pytest.approx(expected, abs=0.01)
  assert result.rule == 'challenge' and result.major_deg == pytest.approx(30, abs=0.01)


def test_cropping_changes_the_rule_of_the_challenge_and_not_ours(tilts):
  points = corners(tilts, 'S')
  challenge = {'rule': 'challenge', 'height': 400}
  ours, theirs = (measurement.measure_landmarks(points, 1.0, **rule) for rule in ({}, challenge))
  moved = points + [100, 30]  # 100 rows more above the spine and as many fewer below it
  assert measurement.measure_landmarks(moved, 1.0).pt_mt_tl_deg == ours.pt_mt_tl_deg
  changed = measurement.measure_landmarks(moved, 1.0, **challenge)
  assert changed.pt_mt_tl_deg[:2] == theirs.pt_mt_tl_deg[:2]
  assert abs(changed.pt_mt_tl_deg[2] - theirs.pt_mt_tl_deg[2]) > 10


def test_spacing_and_shifts_change_nothing_and_a_mirror_swaps_the_sides(truth):
  points, other = truth.landmarks, {'left': 'right', 'right': 'left'}
  plain = measurement.measure_landmarks(points, 1.0)
  moved = measurement.measure_landmarks(points * [2.0, 0.5] + [9.0, -40.0], [0.5, 2.0])
  assert abs(plain.major_deg - moved.major_deg) < 0.02
  swapped = (points * [1, -1]).reshape(17, 2, 2, 2)[:, :, ::-1].reshape(68, 2)
  mirrored = measurement.measure_landmarks(swapped, 1.0)
  assert [c.side for c in mirrored.curves] == [other[c.side] for c in plain.curves]
  assert mirrored.major_deg == plain.major_deg


@pytest.mark.parametrize('spoil', [
    lambda points: 0 * points, lambda points: points * np.nan,
    lambda points: points[::-1], lambda points: points * [1, -1], lambda points: points * [-1, 1],
    lambda points: np.random.default_rng(0).permutation(points)])
def test_bad_landmarks_give_words(spoil, truth):
  result = measurement.measure_landmarks(spoil(truth.landmarks), 1.0)
  assert result.status == 'fail' and 'landmarks' in result.flags[0]
  assert result.major_deg is None and not result.curves


def test_wrong_arguments_are_told(truth):
  with pytest.raises(ValueError, match='extremes, challenge'):
    measurement.measure_landmarks(truth.landmarks, 1.0, rule='aasce')
  with pytest.raises(ValueError, match='height'):
    measurement.measure_landmarks(truth.landmarks, 1.0, rule='challenge')
