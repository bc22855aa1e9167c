"""Training, validation and test sets that share no patient."""
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

SPLITS = ('train', 'validation', 'test')

Split = dict[str, list[int]]  # indices of the cases of each set, in order


def _count(amount: float, total: int, field: str) -> int:
  """A number of patients, given as a whole number or as a fraction of the total below 1."""
  if 0 < amount < 1:
    return max(1, round(amount * total))
  if amount < 0 or amount != int(amount):
    raise ValueError(f'{field} must be a number of patients or a fraction below 1, not {amount}.')
  return int(amount)


def _check_disjoint(split: Split, patients: Sequence[str], where: str) -> Split:
  """Returns the split. Raises ValueError if a patient is in two sets."""
  seen: dict[str, str] = {}
  for name in SPLITS:
    for index in split[name]:
      other = seen.setdefault(patients[index], name)
      if other != name:
        raise ValueError(f'{where}: patient {patients[index]} is in {other} and in {name}; '
                         'a patient belongs to one set.')
  return split


def read_split(path: str | os.PathLike, names: Sequence[str], patients: Sequence[str]) -> Split:
  """Reads a JSON file {"train": [ids], "validation": [ids], "test": [ids]}.

  An id is one of the `patients`, which stands for all of its cases, or else one of the `names` of
  the cases. A missing set is empty. Cases in no set are not used.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file has another form, an id is unknown, or a patient is in two sets.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: there is no such split file.')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    ids = {name: [str(i) for i in content.pop(name, [])] for name in SPLITS}
    if content:
      raise TypeError
  except (ValueError, TypeError, AttributeError, OSError, RecursionError):
    raise ValueError(f'{path}: expected JSON of the form {{"train": [ids], "validation": [ids], '
                     '"test": [ids]}.') from None
  cases = {name: [index] for index, name in enumerate(names)}
  for patient in set(patients):
    cases[patient] = [index for index, other in enumerate(patients) if other == patient]
  unknown = [i for name in SPLITS for i in ids[name] if i not in cases]
  if unknown:
    rest = f' (and {len(unknown) - 5} more)' if len(unknown) > 5 else ''
    raise ValueError(f'{path}: no patient or case is called '
                     f'{", ".join(i[:80] for i in unknown[:5])}{rest}.')
  split = {name: sorted({index for i in ids[name] for index in cases[i]}) for name in SPLITS}
  return _check_disjoint(split, patients, str(path))


def split_patients(patients: Sequence[str], num_train: float, num_validation: float,
                   num_test: float, seed: int) -> Split:
  """Draws the sets by the patient of every case.

  The numbers are patients, or fractions of all below 1, which give at least one patient.
  num_train = 0 takes all that are left. The order of the patients depends on the seed and their ids
  only, so it is the same on every machine. The test set is drawn first, then validation, then
  training, so the size of a set never changes the sets before it.

  Raises:
    ValueError: there are fewer patients than asked for.
  """
  order = sorted(set(patients), key=lambda p: hashlib.sha256(f'{seed}/{p}'.encode()).digest())
  test = _count(num_test, len(order), 'num_test')
  validation = _count(num_validation, len(order), 'num_validation')
  train = _count(num_train, len(order), 'num_train')
  if test + validation + max(train, 1) > len(order):
    asked = f'{train or "at least 1"} for training, {validation} for validation and {test} for test'
    raise ValueError(f'there are too few patients, {len(order)}, for {asked}; set num_train=0 (all '
                     'that are left) and num_validation and num_test to 0, fractions or smaller '
                     'numbers.')
  rest = order[test + validation:]
  chosen = dict(train=set(rest[:train or None]), validation=set(order[test:test + validation]),
                test=set(order[:test]))
  return {name: [i for i, patient in enumerate(patients) if patient in chosen[name]]
          for name in SPLITS}


def make_split(names: Sequence[str], patients: Sequence[str], own: Sequence[str] = (), *,
               split_file: str = '', num_train: float = 0, num_validation: float = 0,
               num_test: float = 0, seed: int = 0) -> Split:
  """The sets of a dataset by the name, the patient and the own set ('' for none) of every case.

  `split_file` has precedence, see `read_split`. Then come the sets of the dataset itself; num_train
  and num_test are ignored, and num_validation patients are drawn from training if there is no
  validation set. Otherwise the sets are drawn, see `split_patients`.

  Raises:
    FileNotFoundError, ValueError: see `read_split` and `split_patients`; a patient is in two sets.
  """
  if split_file:
    return read_split(split_file, names, patients)
  if not any(own):
    return split_patients(patients, num_train, num_validation, num_test, seed)
  split = {name: [i for i, other in enumerate(own) if other == name] for name in SPLITS}
  _check_disjoint(split, patients, 'the sets of the dataset')
  if num_validation and not split['validation']:
    train = split['train']
    drawn = split_patients([patients[i] for i in train], 0, num_validation, 0, seed)
    split.update({name: [train[i] for i in drawn[name]] for name in ('train', 'validation')})
  return split
