"""Names of levels: whole spines, missing levels, other numbers of vertebrae, and their shares."""
import numpy as np
import pytest

from spinejax.measurement import curves, naming

Y = np.concatenate([[0.0], np.cumsum(np.linspace(0.72, 1.28, 16))])  # T1 to L5
LUMBAR = np.arange(17) >= 12


def named(keep, is_lumbar=LUMBAR, y=Y):
  return naming.name_levels(np.asarray(y)[keep], None if is_lumbar is None else is_lumbar[keep])


def without(*gone):
  return np.setdiff1d(np.arange(17), gone)


def test_a_whole_spine_has_all_its_names():
  for is_lumbar in (LUMBAR, None):
    found = named(without(), is_lumbar)
    assert found.names == list(curves.LEVELS) and found.confidence == 'high' and not found.notes
    assert min(found.probability) > 0.85


@pytest.mark.parametrize('gone', [(4,), (4, 5), (15,), (0, 1), (16,)])
def test_missing_levels_leave_the_others_their_names(gone):
  keep = without(*gone)
  found = named(keep)
  right = [curves.LEVELS[i] for i in keep]
  assert [name for name in found.names if not name.startswith('level')] == [
      name for name, shown in zip(right, found.names) if not shown.startswith('level')]
  assert sum(name == one for name, one in zip(found.names, right)) >= 11


def test_a_level_that_is_missing_at_the_border_may_be_of_either_side():
  assert named(without(11)).names[10:12] == ['T11', 'L1']  # all the others are there
  found = named(without(11, 16))  # T12 and L5, or T1 and L1
  assert found.confidence == 'none' and found.names[10] == 'level 11'
  assert max(found.probability) < naming.NAMED
  assert found.notes == ['15 of 15 levels have numbers from the top, because their names are '
                         'uncertain']


def test_six_lumps_are_named_and_thirteen_processes_are_doubtful():
  more = np.append(Y, Y[-1] + 1.3)
  six = naming.name_levels(more, np.arange(18) >= 12)
  assert six.names[11:] == ['T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'L6']
  thirteen = naming.name_levels(more, np.arange(18) >= 13)
  assert thirteen.confidence == 'low' and thirteen.names[0] == 'level 1'
  assert thirteen.names[13:] == ['L1', 'L2', 'L3', 'L4', 'L5']


def test_without_a_border_there_are_numbers():
  for is_lumbar in (np.zeros(17, bool), np.ones(17, bool)):
    found = named(without(), is_lumbar)
    assert found.names == [f'level {i + 1}' for i in range(17)]
    assert found.confidence == 'none' and 'none or all' in found.notes[0]
  assert named(np.array([0, 1]), None).confidence == 'none'


def test_the_probability_is_the_share_of_right_names():
  """Spines of 17 levels whose spacing varies by 15 %, of which up to three levels are missing."""
  rng, sure, right = np.random.default_rng(0), [], []
  for _ in range(300):
    y = np.cumsum(np.append(0, np.linspace(0.72, 1.28, 16) * rng.normal(1, 0.1, 16)))
    keep = without(*rng.choice(17, rng.integers(0, 4), replace=False))
    found = named(keep, y=y)
    for i, name, probability in zip(keep, found.names, found.probability):
      if not name.startswith('level'):
        sure.append(probability)
        right.append(name == curves.LEVELS[i])
  assert len(right) > 2000
  assert np.mean(right) > np.mean(sure) - 0.03  # the phantoms have no other anatomies
