"""Agreement of two measurements: published tables, values by hand, pingouin, and hostile input."""
import dataclasses
import itertools
import json
import math

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats

from spinejax.metrics import agreement
from spinejax.metrics.results import Decision, Smape

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9],
                          [6, 2, 4, 7]])
A, B = [10.0, 20, 30, 40], [12.0, 21, 35, 38]
OPTIONAL = ('mad', 'mad_sd', 'bias', 'bias_ci', 'sd', 'limits', 'lower_limit_ci',
            'upper_limit_ci', 'within', 'r', 'r_ci', 'r2', 'icc2_1', 'icc2_1_ci', 'icc3_1',
            'icc3_1_ci', 'sem', 'mdc95', 'smape')


def make_angles(n=60, seed=0):
  rng = np.random.default_rng(seed)
  a = rng.uniform(2, 60, n)
  return a, np.abs(a + rng.normal(1, 4, n))


def test_intraclass_correlations_of_shrout_and_fleiss():
  found = agreement.icc(SHROUT_FLEISS)
  for name, expected in (('icc2_1', 0.2898), ('icc3_1', 0.7148), ('icc2_1_ci', (0.0188, 0.7611)),
                         ('icc3_1_ci', (0.3425, 0.9459))):
    assert found[name] == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize('ratings', [SHROUT_FLEISS, np.stack(make_angles(), 1),
                                     np.stack([*make_angles(9), np.full(9, 20.0)], 1)])
def test_intraclass_correlations_of_pingouin(ratings):
  case, rater = np.indices(ratings.shape)
  table = pd.DataFrame({'case': case.ravel(), 'rater': rater.ravel(), 'score': ratings.ravel()})
  expected = pingouin.intraclass_corr(table, 'case', 'rater', 'score')
  interval, = [column for column in expected.columns if column.startswith('CI95')]
  found = agreement.icc(ratings)
  for row, name in ((1, 'icc2_1'), (2, 'icc3_1')):
    assert found[name] == pytest.approx(expected['ICC'].iloc[row])
    assert found[f'{name}_ci'] == pytest.approx(
        expected[interval].iloc[row], abs=0.006)  # printed to 2 decimals


def test_a_bias_lowers_the_absolute_agreement_alone():
  a, b = make_angles()
  plain, biased, swapped = (agreement.agree(*pair) for pair in ((a, b), (a, b + 10), (b, a)))
  assert (biased.icc3_1, biased.sem) == pytest.approx((plain.icc3_1, plain.sem))
  assert biased.icc2_1 < plain.icc2_1 - 0.1
  assert biased.bias == pytest.approx(plain.bias + 10)
  assert (swapped.icc2_1, swapped.icc3_1) == pytest.approx((plain.icc2_1, plain.icc3_1))


def test_bland_altman_by_hand():
  found = agreement.agree(A, B)  # differences 2, 1, 5, -2
  assert (found.pairs, found.left_out, found.num_within) == (4, 0, 4)
  assert (found.mad, found.bias) == (2.5, 1.5)
  assert (found.mad_sd, found.sd) == pytest.approx((math.sqrt(3), math.sqrt(25 / 3)))
  assert found.limits == pytest.approx((-4.15793, 7.15793), abs=1e-5)
  assert found.bias_ci == pytest.approx((-3.09347, 6.09347), abs=1e-5)
  assert found.lower_limit_ci == pytest.approx((-12.82605, 4.51019), abs=2e-5)
  assert found.upper_limit_ci == pytest.approx((-1.51019, 15.82605), abs=2e-5)
  assert (found.sem, found.mdc95) == pytest.approx((2.04124, 5.65793), abs=1e-5)
  assert found.smape == pytest.approx(100 / 4 * (2 / 22 + 1 / 41 + 5 / 65 + 2 / 78))


def test_the_share_within_a_limit_includes_it_in_decimals():
  found = [agreement.agree([7.3, 10, 10], [12.3, 16, 10], limit=limit).num_within
           for limit in (0, 4.9, 5, 6)]
  assert found == [1, 1, 2, 3]


def test_correlation_and_bias_as_scipy_has_them():
  a, b = make_angles()
  found = agreement.agree(a, b, confidence=0.9)
  half = stats.norm.ppf(0.95) / math.sqrt(len(a) - 3)
  assert found.r == pytest.approx(np.corrcoef(a, b)[0, 1])
  assert found.r_ci == pytest.approx([math.tanh(math.atanh(found.r) + z) for z in (-half, half)])
  assert found.r2 == pytest.approx(stats.linregress(a, b).rvalue**2)
  assert found.bias_ci == pytest.approx(stats.ttest_1samp(b - a, 0).confidence_interval(0.9))
  spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
  assert found.sem == pytest.approx(spread * math.sqrt(1 - found.icc3_1))
  assert found.mdc95 == pytest.approx((found.limits[1] - found.limits[0]) / 2)


def test_pairs_without_an_angle_are_left_out_and_counted():
  found = agreement.agree([None, *A, 5.0, 1.0], [3.0, *B, float('nan'), float('inf')])
  assert found == dataclasses.replace(agreement.agree(A, B), left_out=3)


def test_smape_of_the_angles_of_a_case():
  reference, other = [[10, 20, 10], [0, 0, 0], [30, 0, 0]], [[10, 25, 5], [0, 0, 0], [0, 0, 0]]
  assert agreement.smape(reference, other) == Smape(
      pytest.approx(100 * (10 / 80 + 1) / 2), 2, {})
  missing = agreement.smape([*reference, [1, None, 2]], [*other, [1, 1, 1]])
  assert missing.smape_cases == 2
  assert agreement.smape([[0, 0]], [[0, 0]]).undefined == {'smape': 'all angles are 0'}


def test_bands_by_hand():
  reference = [5, 9.9, 10, 24, 25, 39, 40, -50]
  other = [5, 12.0, 10, 25, 25, 20, 60, 45]
  found = agreement.rate_bands(reference, other)
  assert found.confusion == ((1, 1, 0, 0), (0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 2))
  assert found.accuracy == 5 / 8
  assert found.each['mild'] == Decision(1, 1, 2, 4, 1 / 2, 4 / 6)
  assert found.at_least['moderate'] == Decision(3, 1, 1, 3, 3 / 4, 3 / 4, from_deg=25.0)
  assert list(found.at_least) == ['mild', 'moderate', 'severe']
  # Three cases are one band off; the rows hold 2 cases each, the columns 1, 3, 2 and 2.
  rows, columns = np.array([2, 2, 2, 2]), np.array([1, 3, 2, 2])
  chance = sum(abs(i - j) * rows[i] * columns[j] / 8
               for i, j in itertools.product(range(4), repeat=2))
  assert found.kappa == pytest.approx(1 - 3 / chance)


def test_rates_without_a_case_are_none():
  found = agreement.rate_bands([12, 13], [12, 30])
  assert found.each['none'].sensitivity is None
  assert found.each['mild'] == Decision(1, 1, 0, 0, 0.5, None)
  assert found.at_least['severe'].specificity == 1.0
  assert agreement.rate_bands([12], [13]).kappa is None


@pytest.mark.parametrize('limits, names', [
    ((10, 20, 30), ('none', 'mild', 'moderate', 'severe')), ((20,), ('below 20°', '20° and more')),
    ((15, 25), ('below 15°', '15 to 25°', '25° and more'))])
def test_bands_lie_between_their_limits(limits, names):
  found = agreement.rate_bands([12, 50], [12, 50], limits=limits)
  assert found.names == names and found.limits == (*limits, None) and found.kappa == 1.0
  assert np.trace(found.confusion) == 2


@pytest.mark.parametrize('limits', [(25, 10), (0, 10), (10, 10 + 1e-9), ()])
def test_bands_that_do_not_rise_are_refused(limits):
  with pytest.raises(ValueError, match='bands must be rising positive degrees such as 10,25,40'):
    agreement.agree(A, B, bands=limits)


@pytest.mark.parametrize('reference, other, undefined, defined', [
    ([], [], {'mad', 'limits', 'r', 'icc2_1', 'smape'}, {}),
    ([None, 1], [2, math.nan], {'mad', 'bias', 'icc3_1'}, {'pairs': 0, 'left_out': 2}),
    ([10], [12], {'mad_sd', 'limits', 'r', 'icc2_1', 'sem'}, {'mad': 2.0, 'within': 1.0}),
    ([10, 20], [12, 25], {'r', 'r2', 'r_ci'}, {'mad': 3.5}),
    ([10, 20, 30], [12, 25, 31], {'r_ci'}, {}),
    ([10, 10, 10], [10, 10, 10], {'r', 'icc2_1', 'icc3_1'}, {'sd': 0.0, 'limits': (0.0, 0.0)}),
    ([10, 10, 10], [12, 12, 12], {'r', 'icc2_1_ci', 'icc3_1'}, {'icc2_1': 0.0, 'bias': 2.0}),
    ([10, 10, 10, 10], [1, 2, 3, 4], {'r', 'r_ci', 'r2'}, {'icc3_1': 0.0}),
    ([1, 2], [2, 1], {'r', 'icc2_1', 'icc2_1_ci'}, {'icc3_1': -1.0}),
    ([1, 2, 3], [3, 2, 1], {'r_ci', 'icc2_1_ci'}, {'r': -1.0}),
    ([0, 0, 0, 0], [0, 0, 0, 0], {'smape', 'r', 'icc2_1'}, {'mad': 0.0}),
    ([0.1, 0.2, 0.3, 0.7], [0.1, 0.2, 0.3, 0.7], set(),
     {'r': 1.0, 'r_ci': (1.0, 1.0), 'icc2_1': 1.0, 'icc2_1_ci': (1.0, 1.0), 'mdc95': 0.0}),
    ([0.1, 0.2, 0.3, 0.7], [1.1, 1.2, 1.3, 1.7], set(), {'icc3_1': 1.0, 'icc3_1_ci': (1.0, 1.0)}),
])
def test_too_few_or_constant_angles_have_a_reason(reference, other, undefined, defined):
  found = agreement.agree(reference, other)
  json.dumps(found.to_json(), allow_nan=False)
  assert undefined <= set(found.undefined)
  for name in OPTIONAL:
    assert (getattr(found, name) is None) == (len(found.undefined.get(name, '')) > 8), name
  for name, value in defined.items():
    assert getattr(found, name) == pytest.approx(value, abs=1e-12), name


def test_every_small_table_is_safe():
  with np.errstate(all='raise'):
    for reference in itertools.product((0.0, 10.0, 55.0), repeat=3):
      for other in ((0.0, 0.0, 0.0), (10.0, 0.0, 55.0), (55.0, 10.0, 10.0)):
        found = agreement.agree(reference, other)
        json.dumps(found.to_json(), allow_nan=False)
        for name in ('icc2_1', 'icc3_1', 'r'):
          value, interval = getattr(found, name), getattr(found, f'{name}_ci')
          if value is not None and interval is not None:
            low, high = interval
            assert low - 1e-9 <= value <= high + 1e-9 and high <= 1 + 1e-12
