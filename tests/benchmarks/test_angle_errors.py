"""The columns of the angle benchmarks, by hand."""
import pytest

from benchmarks.angle_errors import Case, summarize
from spinejax.measurement.results import AngleResult, Curve


def case(measured, true, interval, status='ok', truncated=False, bound=0.0):
  curves = (Curve(measured, interval, None, None, None, 0.0, 2.0, 1.0, 'left', None, truncated,
                  1.0, bound),) if measured else ()
  return Case(AngleResult('uca', status, curves, measured, 'mild', interval, 1.0, bound,
                          naive_deg=measured + 2), true, true or 3.0, 10.0)


def test_the_columns_by_hand():
  row = summarize([
      case(21.0, 20.0, (15, 25)),
      case(40.0, 28.0, (30, 50)),  # wild with status ok, and not held
      case(30.0, 18.0, (20, 40), 'partial', True, 21.5),  # a false bound, not held
      case(25.0, 24.0, (20, 30), truncated=True, bound=26.0),  # 2 too high: not false
      case(0.0, 0.0, (0, 4)), case(6.0, 0.0, (2, 9)),  # straight; the swing 3 is in both
      case(0.0, 6.0, (0, 8)), case(8.0, 9.0, (5, 12)),  # mild
      Case(AngleResult('uca', 'fail'), 30.0, 30.0, 10.0)])
  assert row['mad'] == pytest.approx((1 + 12 + 12 + 1 + 0 + 6 + 6 + 1) / 8, abs=1e-3)
  assert row['bias'] == pytest.approx((1 + 12 + 12 + 1 + 0 + 6 - 6 - 1) / 8, abs=1e-3)
  assert (row['max'], row['within'], row['covered']) == (12, 0.5, 0.75)
  assert (row['fail'], row['partial'], row['ok_wild']) == (1, 1, 1)
  assert (row['false_bounds'], row['straight'], row['mild']) == ('1/2', '1/2', '1/2')
  assert summarize([Case(AngleResult('uca', 'fail'), 1.0, 1.0, 1.0)]) == {'fail': 1, 'partial': 0}
