"""Sets that share no patient."""
import pytest

from spinejax.data import splits
from tests.readers import folders

NAMES = [f'n{i}' for i in range(12)]
PATIENTS = [f'p{i // 2}' for i in range(12)]  # two cases each


def sizes(split):
  return [len(split[name]) for name in splits.SPLITS]


def assert_disjoint(split, patients=PATIENTS):
  sets = [{patients[i] for i in split[name]} for name in splits.SPLITS]
  assert sum(map(len, sets)) == len(set().union(*sets))


@pytest.mark.parametrize('counts, expected', [
    ((0, 0, 0), [12, 0, 0]), ((0, 1, 2), [6, 2, 4]), ((1, 1, 1), [2, 2, 2]),
    ((0, 0.1, 0.5), [4, 2, 6]), ((0.5, 0, 0.34), [6, 0, 4])])
def test_counts_and_fractions_are_of_patients(counts, expected):
  split = splits.make_split(NAMES, PATIENTS, **dict(zip(
      ('num_train', 'num_validation', 'num_test'), counts)))
  assert sizes(split) == expected
  assert_disjoint(split)
  assert all(split[name] == sorted(split[name]) for name in splits.SPLITS)


def test_the_draw_depends_on_the_seed_and_the_ids_alone():
  draw = lambda seed, patients=PATIENTS: splits.split_patients(patients, 0, 1, 2, seed)
  test_of = lambda split, patients=PATIENTS: {patients[i] for i in split['test']}
  assert draw(0) == draw(0)
  assert len({frozenset(test_of(draw(seed))) for seed in range(8)}) > 3
  assert test_of(draw(0)) == {'p0', 'p3'}  # the same on every machine and in every version
  backwards = PATIENTS[::-1]
  assert test_of(draw(0, backwards), backwards) == test_of(draw(0))
  larger = splits.split_patients(PATIENTS, 0, 3, 2, 0)
  assert larger['test'] == draw(0)['test']
  assert set(draw(0)['validation']) < set(larger['validation'])


@pytest.mark.parametrize('counts, words', [
    ((0, 0, 6), 'patients, 6, for at least 1 for training, 0 for validation and 6 for test'),
    ((4, 1, 2), 'patients, 6, for 4 for training, 1 for validation and 2 for test'),
    ((80, 0, 29), 'set num_train=0'), ((0, -1, 0), 'num_validation must be'),
    ((0, 0, 1.5), 'num_test must be a number of patients or a fraction below 1, not 1.5')])
def test_sizes_that_do_not_fit(counts, words):
  with pytest.raises(ValueError, match=words):
    splits.split_patients(PATIENTS, *counts, seed=0)


def test_own_sets_stay():
  own = ['train'] * 8 + ['test'] * 4
  split = splits.make_split(NAMES, PATIENTS, own, num_train=3, num_test=1)
  assert sizes(split) == [8, 0, 4]
  split = splits.make_split(NAMES, PATIENTS, own, num_validation=1)
  assert sizes(split) == [6, 2, 4] and split['test'] == [8, 9, 10, 11]
  assert_disjoint(split)
  own[7] = 'validation'
  with pytest.raises(ValueError, match='patient p3 is in train and in validation'):
    splits.make_split(NAMES, PATIENTS, own)
  own[6] = 'validation'
  assert sizes(splits.make_split(NAMES, PATIENTS, own, num_validation=2)) == [6, 2, 4]


def test_split_files(tmp_path):
  read = lambda **sets: splits.make_split(
      NAMES, PATIENTS, ['train'] * 12, split_file=folders.write_split(tmp_path / 's.json', **sets))
  split = read(train=['p0', 'n2'], test=['p5'])
  assert split == dict(train=[0, 1, 2], validation=[], test=[10, 11])  # the rest is not used
  with pytest.raises(ValueError, match='no patient or case is called x, y.'):
    read(train=['p0', 'x'], test=['y'])
  with pytest.raises(ValueError, match=r'called 0, 1, 2, 3, 4 \(and 2 more\)'):
    read(train=list(range(7)))
  with pytest.raises(ValueError, match='patient p1 is in train and in test'):
    read(train=['n2'], test=['n3'])
  for content in ('[1]', '{"train": 3}', '{"train": [], "dev": []}', '{', ''):
    (tmp_path / 's.json').write_text(content)
    with pytest.raises(ValueError, match='expected JSON of the form'):
      splits.read_split(tmp_path / 's.json', NAMES, PATIENTS)
  with pytest.raises(FileNotFoundError, match='no such split file'):
    splits.read_split(tmp_path / 'absent.json', NAMES, PATIENTS)
