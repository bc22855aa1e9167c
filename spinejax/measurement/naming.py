"""Names of levels, each with the probability that it is right.

A spine has T1 to T12 and L1 to L5 in most people; some have a vertebra more or less. Levels may be
missing between others, above the first and below the last. All these are hypotheses; the
probability of a name is that of the hypotheses in which the level has it. The probabilities of
the hypotheses are assumptions, stated below.
"""
import collections
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spinejax.measurement.pair import GROWTH

NAMED = 0.8  # probability from which a level has its name
# Numbers of thoracic and lumbar vertebrae.
_ANATOMIES = {(12, 5): 0.91, (12, 6): 0.03, (12, 4): 0.02, (11, 5): 0.015, (13, 5): 0.015,
              (11, 6): 0.005, (13, 4): 0.005}
_BORDER_MOVED = 0.03  # the last level that looks thoracic is lumbar, or the other way round
_END_SEEN = 0.7  # the first or the last level is seen; each one missing is half as probable
_ONE_TOO_MANY = 0.005  # a level more than there are vertebrae, as by a false one
_SPACING_SD = 0.17  # of the distance of neighbors, in expected ones
_MISSED = 0.05  # a level is missing
_MOST_STEPS = 4  # between two levels that were found


class Named(NamedTuple):
  """Names of n levels, top to bottom."""
  names: list[str]  # T1..L5 where they are sure enough, else 'level 1', from the top
  probability: list[float]  # of the most probable name
  confidence: str  # 'high' if all levels have names, 'low' if some, else 'none'
  notes: list[str]


def name_levels(y: np.ndarray, is_lumbar: np.ndarray | None = None) -> Named:
  """Names of levels at y [n], in any unit, from top to bottom.

  `is_lumbar` [n] tells which look lumbar; the last level above the first lumbar one is T12 unless
  something is missing there. None where all levels look alike, as laminae do; then only their
  number tells the names.
  """
  steps, sure = _count_steps(y)
  places = np.concatenate([[0], np.cumsum(steps)]).astype(int)  # with the missing ones
  border = None
  if is_lumbar is not None and 0 < is_lumbar.sum() < len(y):
    border = int(is_lumbar.argmax()) or None
  if is_lumbar is not None and border is None:
    return Named([f'level {i + 1}' for i in range(len(y))], [0.0] * len(y), 'none', [
        'the levels have no names, because none or all of them look lumbar'])
  votes: list[dict[str, float]] = [collections.defaultdict(float) for _ in y]
  total = 0.0
  for weight, thoracic, first in _hypotheses(places, border):
    total += weight
    for vote, place in zip(votes, places):
      vote[_name(first + place, thoracic)] += weight
  names, probability = [], []
  for i, vote in enumerate(votes):
    name = max(vote, key=lambda key: vote[key])
    between = sure if border is None else sure[min(i, border - 1):max(i, border)]
    chance = round(float(vote[name] / total * np.prod(between)), 3)
    names.append(name if chance >= NAMED else f'level {i + 1}')
    probability.append(chance)
  named = sum(chance >= NAMED for chance in probability)
  confidence = 'high' if named == len(y) else 'low' if named else 'none'
  notes = [] if confidence == 'high' else [
      f'{len(y) - named} of {len(y)} levels have numbers from the top, because their names are '
      'uncertain']
  return Named(names, probability, confidence, notes)


def _count_steps(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Most probable number [n - 1] of levels from each level to the next, and its probability.

  The spacing grows linearly from T1 to L5. The 40th percentile is taken as that of neighbors.
  """
  gaps, at = np.diff(y), (y[1:] + y[:-1]) / 2
  if not len(gaps):
    return gaps, gaps
  ratio = gaps / np.interp(at, y[[0, -1]], GROWTH)
  ratio = ratio / max(np.quantile(ratio, 0.4), 1e-9)
  steps = np.arange(1, _MOST_STEPS + 1)
  sd = _SPACING_SD * np.sqrt(steps)
  log = -((ratio[:, None] - steps) / sd)**2 / 2 - np.log(sd) + (steps - 1) * np.log(_MISSED)
  share = np.exp(log - log.max(1, keepdims=True))
  return steps[share.argmax(1)], share.max(1) / share.sum(1)


def _hypotheses(places: np.ndarray, border: int | None) -> Iterator[tuple[float, int, int]]:
  """(weight, number of thoracic vertebrae, number of the first level, 0 for T1)."""
  number = places[-1] + 1
  for (thoracic, lumbar), prior in _ANATOMIES.items():
    if border is None:
      for first in range(thoracic):
        yield prior * _end(first) * _end(thoracic + lumbar - first - number), thoracic, first
      continue
    missing = places[border] - places[border - 1] - 1
    for moved, above in itertools.product((-1, 0, 1), range(missing + 1)):
      # `above` of the missing levels at the border are thoracic.
      first = thoracic - (places[border - 1] + 1 + above - moved)
      weight = prior * (_BORDER_MOVED if moved else 1 - 2 * _BORDER_MOVED) / (missing + 1)
      yield weight * _end(first) * _end(thoracic + lumbar - first - number), thoracic, first


def _end(missing: int) -> float:
  """Probability that a number of levels is missing at an end."""
  if missing < 0:
    return _ONE_TOO_MANY**-missing
  return _END_SEEN if missing == 0 else (1 - _END_SEEN) * 0.5**missing


def _name(place: int, thoracic: int) -> str:
  """The name of a vertebra by its place, 0 for T1."""
  return f'T{place + 1}' if place < thoracic else f'L{place - thoracic + 1}'
