"""The posterior of a midline: by hand, against a solution, with outliers and without data."""
import numpy as np
import pytest

from spinejax.measurement import posterior
from spinejax.measurement.posterior import Data, Grid, Range, fit_posterior, fit_sections

ONE = Grid((0.1,), (0.0,), (1.0,), ((1.0,), (1.0,)))  # a single cell


def places(y, x, sd=0.03):
  return Data(y, x, np.zeros(len(y), bool), np.full(len(y), sd), np.zeros(len(y), int))


def with_slopes(y, x, slope, sd=0.03, slope_sd=0.05):
  count = len(y)
  return Data(np.append(y, y), np.append(x, slope), np.arange(2 * count) >= count,
              np.repeat([sd, slope_sd], count), (np.arange(2 * count) >= count).astype(int))


def bent(y, degrees=40.0, height=10.0):
  """x and dx/dy of a curve that turns by some degrees over the height."""
  swing = np.tan(np.radians(degrees / 2))
  return (swing * height / np.pi * np.sin(np.pi * y / height), swing * np.cos(np.pi * y / height))


def test_the_prior_is_the_integral_of_its_equation():
  extent, kappa, trend = Range(2.0, 9.0, 21), 0.2, 0.7
  c = np.random.default_rng(0).standard_normal(21)
  y = np.linspace(2, 11, 200_001)
  tau = 2 * (y - 2) / 9 - 1
  q = extent.rows(y, 2) @ c / np.exp(trend * tau)
  energy = 1.5 * np.gradient(q, y)**2 + q**2 / 1.5
  expected = (np.trapezoid(energy, y) + q[0]**2 + q[-1]**2) / (2 * kappa**2)
  middle = np.array([6.5])
  expected += (extent.rows(middle) @ c)[0]**2 / 25
  expected += ((extent.rows(middle, 1) @ c)[0] / np.tan(np.radians(15)))**2
  assert c @ posterior.precision(extent, kappa, trend) @ c == pytest.approx(expected, rel=1e-3)


def test_the_midline_is_straight_beyond_its_range():
  extent = Range.of(np.linspace(0, 10, 5))
  c = np.random.default_rng(1).standard_normal(extent.num)
  line = extent.midline(c)
  y = np.array([-3.0, -2.0, -0.1, 10.1, 13.0])
  np.testing.assert_allclose(extent.rows(y) @ c, line.position(y), atol=1e-10)
  assert np.diff(line.position(y[:2])) == pytest.approx(line.slope(y[:1]))


def test_data_without_doubt_are_followed_and_their_error_is_known():
  y = np.linspace(0, 10, 17)
  rng, x, slope = np.random.default_rng(0), *bent(y)
  tilts = np.degrees(np.arctan(slope))
  covered, errors = [], []
  for _ in range(60):
    noisy = with_slopes(y, x + rng.normal(0, 0.03, 17), slope + rng.normal(0, 0.05, 17))
    found = fit_posterior(noisy, Range.of(y))
    turn = found.draws.tilt(y)[:, 0] - found.draws.tilt(y)[:, -1]
    low, high = np.percentile(turn, [2.5, 97.5])
    covered.append(low <= tilts[0] - tilts[-1] <= high)
    errors.append(found.mean.tilt(y)[0] - found.mean.tilt(y)[-1] - tilts[0] + tilts[-1])
  assert np.mean(covered) > 0.88 and np.std(errors) < 3 and abs(np.mean(errors)) < 2


def test_one_cell_without_outliers_is_the_least_squares_of_its_weights():
  y = np.linspace(0, 10, 30)
  x, _ = bent(y)
  extent, data = Range.of(y), places(y, x)
  found = fit_posterior(data, extent, ONE)
  rows, weights = extent.rows(y), found.weights / data.sd**2
  expected = np.linalg.solve((rows.T * weights) @ rows + posterior.precision(extent, 0.1),
                             rows.T @ (weights * x))
  np.testing.assert_allclose(found.mean.position(y), rows @ expected, atol=1e-4)


def test_an_outlier_loses_its_weight():
  y = np.linspace(0, 10, 21)
  x, _ = bent(y)
  spoiled = x.copy()
  spoiled[10] += 1.0
  found = fit_posterior(places(y, spoiled), Range.of(y))
  assert found.weights[10] < 0.05 < 0.5 < np.delete(found.weights, 10).min()
  assert np.abs(found.mean.position(y) - x).max() < 0.03


def test_the_noise_and_the_gain_are_found():
  y = np.linspace(0, 10, 41)
  rng, x, slope = np.random.default_rng(2), *bent(y, 60.0)
  grid = Grid(gain=(1.0, 0.85, 0.7))
  scale = {}
  for sd in (0.015, 0.06):
    noisy = with_slopes(y, x + rng.normal(0, sd, 41), 0.7 * slope + rng.normal(0, 0.05, 41))
    found = fit_posterior(noisy, Range.of(y), grid)
    assert found.gain == pytest.approx(0.72, abs=0.06)
    scale[sd] = found.noise[0]
  assert scale[0.015] < 0.8 and scale[0.06] > 1.3
  unspoiled = fit_posterior(with_slopes(y, x, slope), Range.of(y), grid)
  assert unspoiled.gain > 0.95


def test_without_data_the_posterior_is_the_prior():
  extent = Range(0.0, 8.0, 19)
  found = fit_posterior(places(np.zeros(0), np.zeros(0)), extent, ONE)
  np.testing.assert_allclose(found.mean.coefficients, 0, atol=1e-12)
  slope = found.draws.slope(np.array([4.0]))
  assert slope.std() == pytest.approx(np.tan(np.radians(15)), rel=0.25)
  assert found.log_evidence == pytest.approx(0.0, abs=1e-6)


def test_between_far_data_the_curvature_returns_to_zero():
  y = np.concatenate([np.linspace(0, 3, 10), np.linspace(7, 10, 10)])
  x, _ = bent(y)
  found = fit_posterior(places(y, x), Range.of(y))
  spread = found.draws.position(np.array([1.5, 5.0])).std(0)
  assert spread[1] > 3 * spread[0]


def test_draws_are_antithetic_and_repeat():
  y = np.linspace(0, 10, 12)
  x, _ = bent(y)
  one, two = (fit_posterior(places(y, x), Range.of(y)) for _ in range(2))
  np.testing.assert_array_equal(one.draws.coefficients, two.draws.coefficients)
  assert 380 <= len(one.draws.coefficients) <= 420
  np.testing.assert_allclose(one.draws.coefficients.mean(0), one.mean.coefficients, atol=0.01)


def test_a_frayed_end_is_not_followed():
  y = np.linspace(0, 400, 257)
  x, _ = bent(y, 30.0, 400.0)
  frayed = x + (y - 370).clip(0)**1.5 / 8
  grid = Grid(curvature=(0.03, 0.06, 0.12, 0.2), noise=((0.15, 0.5, 1.0, 2.0), (1.0,)))
  clean, spoiled = (fit_sections(y, each, 40.0, 0.02, grid) for each in (x, frayed))
  at = np.array([0.0, 360.0])
  np.testing.assert_allclose(spoiled.mean.tilt(at), clean.mean.tilt(at), atol=2.0)
  followed = np.degrees(np.arctan(np.gradient(frayed, y)))
  assert abs(spoiled.mean.tilt(np.array([395.0]))[0] - followed[-1]) > 15
  assert len(fit_sections(y[:24], x[:24], 40.0, 0.02, grid).draws.coefficients) > 300
