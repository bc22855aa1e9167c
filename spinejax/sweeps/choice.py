"""The choice of a field's value by validation, such as the best of three learning rates.

In each group, members that differ in the seed only, the first seed is trained with every value. The
value with the best validation score is chosen, and the other seeds are trained with it.
"""
import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from spinejax import logs
from spinejax.sweeps.members import SEED, Member, is_finished, without


@dataclasses.dataclass(frozen=True)
class Trial:
  """The first seed of a group with one value."""
  name: str            # of the member
  value: Any
  state: str           # 'finished', 'diverged' (stopped by non-finite steps) or 'unfinished'
  score: float | None  # validation Dice or negative loss of the best checkpoint, if finished


@dataclasses.dataclass(frozen=True)
class Choice:
  """The values that a group has tried."""
  field: str
  group: dict[str, Any]      # overrides without the field and the seed
  trials: tuple[Trial, ...]
  value: Any                 # the chosen one; None while a trial is unfinished, or if all diverged
  is_extreme: bool           # the chosen number is the smallest or the largest of several
  members: tuple[str, ...]   # with the chosen value, one for each seed

  @property
  def is_hopeless(self) -> bool:
    return all(trial.state == 'diverged' for trial in self.trials)


def check(members: Sequence[Member], field: str) -> None:
  """Raises ValueError unless validation scores can choose the values of `field`."""
  if field == SEED:
    raise ValueError('--choose takes no seed: the first seed of a group chooses for the others.')
  for member in members:
    data, best = member.config.data, member.config.evaluation.best
    if not (data.num_validation or data.split_file or data.directory):
      raise ValueError(f'--choose needs validation cases, and {member.name} has none; give '
                       '--config.data.num_validation=N.')
    if field.startswith('evaluation.') or best == 'loss' and field.startswith('loss.'):
      raise ValueError(f'--choose={field}: the validation scores of its values measure different '
                       "things" + (', a loss; give --config.evaluation.best=dice.'
                                   if field.startswith('loss.') else '.'))


def decide(members: Sequence[Member], field: str) -> tuple[Choice, ...]:
  """The choice of every group, from members with every value and seed.

  Raises ValueError for a finished member without a validation score.
  """
  groups = collections.defaultdict(list)
  for member in members:
    groups[tuple(without(member.overrides, field, SEED).items())].append(member)
  return tuple(_decide(dict(group), field, members) for group, members in groups.items())


def select_due(members: Sequence[Member], choices: Sequence[Choice]) -> list[Member]:
  """The members to run as far as is known: trials that did not diverge, and chosen ones."""
  names = {name for choice in choices for name in (
      *choice.members, *(trial.name for trial in choice.trials if trial.state != 'diverged'))}
  return [member for member in members if member.name in names or not choices]


def rejected(choices: Sequence[Choice]) -> set[str]:
  """Names of the trials whose value is not, or not yet, chosen."""
  return {trial.name for choice in choices for trial in choice.trials} - {
      name for choice in choices for name in choice.members}


def _decide(group: dict[str, Any], field: str, members: Sequence[Member]) -> Choice:
  first = members[0].overrides.get(SEED)
  trials = tuple(_read_trial(member, member.overrides[field]) for member in members
                 if member.overrides.get(SEED) == first)
  scores = {trial.value: trial.score for trial in trials if trial.score is not None}
  if not scores or any(trial.state == 'unfinished' for trial in trials):
    return Choice(field, group, trials, None, False, ())
  value = max(scores, key=lambda value: scores[value])
  values = [trial.value for trial in trials]
  return Choice(field, group, trials, value,
                type(value) in (int, float) and len(values) > 1
                and value in (min(values), max(values)),
                tuple(member.name for member in members if member.overrides[field] == value))


def _read_trial(member: Member, value: Any) -> Trial:
  """The trial, its score from metrics.jsonl: the best checkpoint is that of the best validation."""
  rows = logs.read_metrics(str(member.workdir))
  try:
    finished = is_finished(member)
  except ValueError:  # a run of another config, which the table names
    return Trial(member.name, value, 'unfinished', None)
  if not finished:
    limit = member.config.max_skipped_steps
    diverged = any((row.get('skipped') or 0) >= limit > 0 for row in rows)
    return Trial(member.name, value, 'diverged' if diverged else 'unfinished', None)
  name, sign = (('loss', -1) if member.config.evaluation.best == 'loss'
                else ('dice/mean_foreground', 1))
  scores = [sign * row[name] for row in rows
            if row['phase'] == 'validation' and row.get(name) is not None]
  if not scores:
    raise ValueError(f'{member.name} has no validation score; --choose needs validation cases.')
  return Trial(member.name, value, 'finished', max(scores))
