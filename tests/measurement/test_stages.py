"""The stages between a mask and its angles, by hand: find, pair, fit, curves, flags."""
import numpy as np
import pytest

from spinejax.measurement import curves, find, fit, flags, pair
from spinejax.measurement.results import Curve


def make_curve(angle, ci95=None, truncated=False):
  return Curve(angle, ci95, None, None, None, 0.0, 2.0, 1.0, 'left', None, truncated)


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
    (top, left), (bottom, right) = find.half_centers(blob, np.ones(2))
    assert abs(np.degrees(np.arctan2(bottom - top, right - left)) - degrees) < 0.3


def test_the_path_is_the_cheapest():
  cost = np.ones((5, 7))
  cost[range(5), [1, 2, 4, 4, 5]] = 0
  np.testing.assert_array_equal(find.cheapest_path(cost, 2, 0.05), [1, 2, 4, 4, 5])
  wall = np.ones((3, 9))
  wall[0, 0] = wall[2, 8] = -4.0
  assert np.abs(np.diff(find.cheapest_path(wall, 2, 0.05))).max() <= 2


def test_alignment_skips_the_missing_one():
  left = np.stack([np.arange(5) * 20.0, np.zeros(5)], -1)
  right = left[[0, 1, 3, 4]] + [1, 40]
  assert pair.align(left, right, np.zeros(5), 9.0, 40.0) == [(0, 0), (1, 1), (3, 2), (4, 3)]


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
  draws = fit.resample_joint(data, line, smoothing=0.0, replicates=5)
  np.testing.assert_allclose(draws.slope(y), 0.1, atol=1e-5)
  y = np.linspace(0, 300, 257)
  line, _ = fit.fit_smooth(y, 5 + 0.1 * y, smoothing=1.0)
  np.testing.assert_allclose(line.slope(y), 0.1, atol=1e-5)


def test_intervals_of_a_known_curve_cover_it():
  y = np.linspace(0, 400, 17)
  rng, covered = np.random.default_rng(0), []
  position, slope = 12 * np.cos(y / 70), -12 / 70 * np.sin(y / 70)
  tilts = np.degrees(np.arctan(slope))
  upper, lower = int(tilts.argmin()), int(tilts.argmax())
  for seed in range(80):
    data = level_data(y, position + rng.normal(0, 0.7, 17), slope + rng.normal(0, 0.035, 17), 4.5)
    draws = fit.resample_joint(data, fit.fit_joint(data), replicates=100, seed=seed)
    angle = draws.tilt(y)[:, lower] - draws.tilt(y)[:, upper]
    low, high = np.percentile(angle, [2.5, 97.5])
    covered.append(low <= tilts[lower] - tilts[upper] <= high)
  assert np.mean(covered) > 0.85


def test_curves_tell_side_apex_and_lower_bounds():
  curve, = curves.find_curves(np.array([10.0, 1.0, -10.0]), np.arange(3.0), ['T5', 'T8', 'T11'])
  assert (curve.angle_deg, curve.side, curve.apex) == (20.0, 'right', 'T8')
  assert curve.region == 'thoracic' and curve.truncated and curve.ci95 is None


def test_a_floor_widens_an_interval_in_quadrature():
  tilts, samples = np.array([0.0, 20.0]), np.array([[0.0, 17.0], [0.0, 24.0]])
  plain, wide = (curves.find_curves(tilts, np.arange(2.0), [None] * 2, samples, floor_deg=floor)[0]
                 for floor in (0.0, 1.0))
  arms = np.abs(np.array(plain.ci95) - 20)
  expected = 20 + np.hypot(arms, 1.96 * 2**0.5) * [-1, 1]
  np.testing.assert_allclose(wide.ci95, expected, atol=0.02)


def test_an_interval_across_a_limit_names_both_bands():
  result = flags.make_result('uca', (1.0, 1.0), [make_curve(24.0, (21.0, 27.0))])
  assert result.band == 'mild or moderate' and result.major_deg == 24.0
  assert flags.make_result('uca', (1.0, 1.0)).band == 'none'


def test_a_truncated_largest_curve_is_flagged_as_a_lower_bound():
  small, large = make_curve(12.0), make_curve(30.0, truncated=True)
  assert 'at least' in flags.make_result('uca', (1.0, 1.0), [small, large]).flags[-1]
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
