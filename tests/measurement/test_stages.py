"""The stages between a mask and its angles, by hand: find, pair, fit, curves, flags."""
import numpy as np
import pytest

from spinejax.measurement import curves, find, fit, flags, pair
from spinejax.measurement.results import Curve


def make_curve(angle, ci95=None, truncated=False, **error):
  return Curve(angle, ci95, None, None, None, 0.0, 2.0, 1.0, 'left', None, truncated, **error)


def level_data(y, x, slope, slope_deg=4.0):
  return fit.LevelData(y, x, slope, np.full(len(y), slope_deg), np.full(len(y), 0.03), 40.0)


def disks(shape, *centers, radius=10):
  y, x = np.indices(shape)
  return np.any([np.hypot(y - row, x - column) < radius for row, column in centers], axis=0)


def test_a_fused_blob_is_cut_in_two():
  parts = find.split_blob(np.argwhere(disks((60, 30), (15, 15), (33, 15))), np.ones(2))
  assert sorted(round(part[:, 0].mean()) for part in parts) in ([15, 33], [14, 34])
  assert len(find.split_blob(np.argwhere(disks((60, 30), (20, 15))), np.ones(2))) == 1


def test_three_fused_blobs_are_cut_apart():
  mask = disks((90, 200), (15, 15), (33, 15), (51, 15), (15, 60), (45, 60), (15, 100), (45, 100))
  centers = find.find_blobs(mask, np.ones(2), split=True).centers
  assert sorted(np.rint(centers[centers[:, 1] < 40, 0])) == pytest.approx([15, 33, 51], abs=1)
  assert len(centers) == 7


def test_halves_of_a_turned_blob_give_its_turn():
  y, x = np.mgrid[-60:61, -80:81]
  for degrees in (-35.0, 10.0, 25.0):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    blob = np.argwhere(((x * cos + y * sin) / 50)**2 + ((y * cos - x * sin) / 18)**2 < 1)
    (top, left), (bottom, right) = find.half_centers(blob, np.ones(len(blob)))
    assert abs(np.degrees(np.arctan2(bottom - top, right - left)) - degrees) < 0.3


def test_the_path_is_the_cheapest():
  cost = np.ones((5, 7))
  cost[range(5), [1, 2, 4, 4, 5]] = 0
  np.testing.assert_array_equal(find.cheapest_path(cost, 2, 0.05), [1, 2, 4, 4, 5])
  wall = np.ones((3, 9))
  wall[0, 0] = wall[2, 8] = -4.0
  assert np.abs(np.diff(find.cheapest_path(wall, 2, 0.05))).max() <= 2


def test_alignment_skips_the_missing_one():
  left = np.arange(5) * 20.0
  cost = np.abs(left[[0, 1, 3, 4]] + 1 - left[:, None])
  assert pair.align(cost, 9.0) == [(0, 0), (1, 1), (3, 2), (4, 3)]
  assert pair.align(cost[:0], 9.0) == []


def test_chain_finds_pairs_among_false_points():
  z = np.arange(12) * 25.0
  points = np.stack([np.repeat(z, 2), np.tile([40.0, 60.0], 12), np.full(24, 20.0)], -1)
  chain = pair.best_chain(np.concatenate([points, [[130.0, 78.0, 30.0]]]))
  np.testing.assert_array_equal(chain, np.arange(24).reshape(12, 2))
  assert pair.best_chain(points[:1]).shape == (0, 2)


def test_fits_return_a_straight_line():
  y = np.linspace(0, 300, 17)
  data = level_data(y, 5 + 0.1 * y, np.full(17, 0.1))
  line = fit.fit_joint(data, smoothing=0.0)
  np.testing.assert_allclose(line.slope(y), 0.1, atol=1e-6)
  np.testing.assert_allclose(line.position(np.array([-10.0])), 4.0, atol=1e-4)
  y = np.linspace(0, 300, 257)
  line = fit.fit_smooth(y, 5 + 0.1 * y, smoothing=1.0)
  np.testing.assert_allclose(line.slope(y), 0.1, atol=1e-5)


def test_curves_tell_side_apex_and_lower_bounds():
  curve, = curves.find_curves(np.array([10.0, 1.0, -10.0]), np.arange(3.0), ['T5', 'T8', 'T11'])
  assert (curve.angle_deg, curve.side, curve.apex) == (20.0, 'right', 'T8')
  assert curve.region == 'thoracic' and curve.truncated and curve.ci95 is None


def test_the_error_of_a_curve_by_hand():
  tilts = np.array([0.0, 18.0, 20.0])
  samples = np.array([[0.0, 22.0, 18.0], [-2.0, 20.0, 24.0]])  # 22 and 26 degrees at the most
  curve, = curves.find_curves(tilts, np.arange(3.0), [None] * 3, samples,
                              spread=curves.Spread(2.0, 1.0))
  error = np.hypot(2 * np.std([18, 26]), np.sqrt(2))
  assert curve.angle_deg == 24.0
  assert curve.expected_error_deg == pytest.approx(error, abs=0.01)
  np.testing.assert_allclose(curve.ci95, 24 + 1.96 * error * np.array([-1, 1]), atol=0.01)
  assert curve.lower_bound_deg == pytest.approx(24 - 1.645 * error, abs=0.01)
  assert curves.interval_of(1.0, 5.0) == ((0.0, 10.8), 0.0)


def test_a_small_curve_within_its_error_of_none_is_a_note():
  found = [make_curve(angle, expected_error_deg=2.0) for angle in (5.7, 6.0, 12.0)]
  kept, notes = curves.split_doubtful(found)
  assert [curve.angle_deg for curve in kept] == [6.0, 12.0]
  assert len(notes) == 1 and 'a curve of 5.7 degrees' in notes[0]


def test_a_curve_is_truncated_where_its_end_still_rises():
  rows, names = np.arange(5.0), [None] * 5
  for tilts, truncated in (([0, 0, 20, 20, 20], False), ([0, 0, 10, 19.8, 20], False),
                           ([0, 0, 10, 18, 20], True), ([-3, 0, 20, 10, 10], True)):
    found = curves.find_curves(np.array(tilts, float), rows, names)
    assert found[0].truncated == truncated


def test_an_inner_curve_comes_before_one_that_touches_an_end():
  curve = [make_curve(30.0, truncated=True), make_curve(27.0), make_curve(26.0)]
  assert flags.find_major(curve, inner_first=True) is curve[1]
  assert flags.find_major(curve, inner_first=False) is curve[0]
  assert flags.find_major([curve[0], curve[2]], inner_first=True) is curve[0]
  assert flags.find_major([], inner_first=True) is None


def test_an_interval_across_a_limit_names_both_bands():
  result = flags.make_result('uca', (1.0, 1.0), [make_curve(24.0, (21.0, 27.0))])
  assert result.band == 'mild or moderate' and result.major_deg == 24.0
  assert flags.make_result('uca', (1.0, 1.0)).band == 'none'


def test_a_truncated_largest_curve_is_flagged_as_a_lower_bound():
  small, large = make_curve(12.0), make_curve(30.0, truncated=True, lower_bound_deg=24.4)
  result = flags.make_result('uca', (1.0, 1.0), [small, large])
  assert result.flags[-1].endswith('at least 24 degrees') and result.lower_bound_deg == 24.4
  assert not flags.make_result('uca', (1.0, 1.0), [make_curve(12.0, truncated=True),
                                                   make_curve(30.0)]).flags


@pytest.mark.parametrize('tilts, min_deg, expected', [
    ([], 5, []),
    ([3], 5, [0]),
    ([0, 4], 5, [1]),
    ([0, 5], 5, [0, 1]),
    ([0, 10, 20, 10, 0], 5, [0, 2, 4]),
    ([0, 3, 0, 20], 5, [2, 3]),
    ([20, 0, 3], 5, [0, 1]),
    ([0, 20, 17, 30], 5, [0, 3]),
    ([0, 20, 17, 30], 0, [0, 1, 2, 3]),
    ([0, 20, 15, 30], 5, [0, 1, 2, 3]),
    ([0, 0, 10, 10, -2, -2], 5, [0, 2, 4]),
    ([0, 1, 0, 1, 0], 5, [4]),
    ([-8, 12, 9, 11, -15, -14], 5, [0, 1, 4]),
])
def test_extremes_rule_by_hand(tilts, min_deg, expected):
  assert curves.extremes(tilts, min_deg) == expected
  assert curves.extremes([-t for t in tilts], min_deg) == expected
