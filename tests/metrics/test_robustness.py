"""Means, slopes and differences over strengths, by hand."""
import pytest

from spinejax.metrics import robustness
from spinejax.metrics.results import StressScore, stress_scores_from_json


def score(dice, error=None, status='ok'):
  return StressScore(dice, dice, 0.5, error, status)


def test_means_and_slopes_of_each_case_are_compared():
  first = [{'a': score(0.9, 2.0), 'b': score(0.8, 1.0), 'c': score(0.7, None, 'fail')},
           {'a': score(0.8, 4.0), 'b': score(0.8, 3.0), 'c': score(0.7, 6.0, 'partial')},
           {'a': score(0.4, 8.0), 'b': score(0.2, 5.0), 'c': score(0.1, 6.0)}]
  other = [{name: score(0.5, 1.0) for name in 'abc'} for _ in range(3)]
  found = robustness.compare_levels(
      [{'first': a, 'other': b} for a, b in zip(first, other)], (0.0, 1.0, 3.0), (0.0, 0.1, 0.2))
  levels = found.levels['first']
  assert levels[0].metrics['dice'].mean == pytest.approx(0.8)
  assert levels[0].metrics['dice'].low < 0.8 < levels[0].metrics['dice'].high
  assert (levels[0].failed, levels[1].flagged, levels[0].metrics['error_deg'].cases) == (1, 1, 2)
  assert found.levels['other'][0].metrics['dice'].low is None  # all cases are equal
  dice, error = (found.against['other'][metric] for metric in ('dice', 'error_deg'))
  # Slopes over (0, 1, 3), centered at 4/3 with a sum of squares of 14/3.
  slopes = [(-4 * at[0] - at[1] + 5 * at[2]) / 14
            for at in ((0.9, 0.8, 0.4), (0.8, 0.8, 0.2), (0.7, 0.7, 0.1))]
  assert dice.slope.difference == pytest.approx(sum(slopes) / 3)
  assert dice.mean.difference == pytest.approx((2.1 + 1.8 + 1.5) / 9 - 0.5)
  assert dice.mean.low < dice.mean.difference < dice.mean.high
  assert error.mean.cases == 2 and error.mean.difference == pytest.approx((14 / 3 + 3) / 2 - 1)


def test_one_strength_has_no_slope_and_one_case_no_interval():
  found = robustness.compare_levels(
      [{'x': {'a': score(0.9)}, 'y': {'a': score(0.5)}}], (2.0,), (0.0,))
  difference = found.against['y']['dice']
  assert difference.mean.difference == pytest.approx(0.4) and difference.mean.low is None
  assert difference.slope.difference is None and difference.slope.cases == 0
  assert found.levels['x'][0].metrics['error_deg'].mean is None


@pytest.mark.parametrize('content', [[1], {'a': 1}, {'a': {'dice': 0.5}}, {'a': {'dice': 'high'}}])
def test_other_content_is_no_score(content):
  with pytest.raises(ValueError, match='expected'):
    stress_scores_from_json(content)
