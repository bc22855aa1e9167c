"""The extremes rule by hand."""
import pytest

from spinejax.measurement.curves import extremes


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
  assert extremes(tilts, min_deg) == expected
  assert extremes([-t for t in tilts], min_deg) == expected
