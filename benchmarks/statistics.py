"""Means over seeds, and differences of systems that were trained with several seeds.

A value of a test has two sources of chance: the cases that are tested and the seed of the training.
The bootstrap resamples both. The cases are the same for both systems, so they are drawn jointly;
the seeds of the systems are unrelated, so they are drawn for each.

Three resampled seeds vary by two thirds of their variance only. The deviations from the mean over
seeds are therefore enlarged by sqrt(S / (S - 1)). In 1500 simulations with 60 cases, 3 seeds and
deviations of .01 between seeds and of .01 between differences of cases, intervals of 95 % held the
true difference in 90 %, and in 86 % without this factor; with .005 between seeds in 95 %, not 93 %.
"""
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from spinejax.metrics.comparison import CONFIDENCE, NUM_RESAMPLES, SEED
from spinejax.metrics.results import mean_sd

_CASES, _FIRST, _OTHER = range(3)  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class Spread:
  """Mean and deviation (n - 1) over seeds of the mean of a test; None is undefined."""
  mean: float | None
  sd: float | None
  seeds: tuple[float, ...]  # the mean of each


@dataclasses.dataclass(frozen=True)
class Difference:
  """Mean of one system minus that of another. Interval and p are None if they are undefined."""
  value: float
  low: float | None
  high: float | None
  p_value: float | None  # two-sided
  seeds: int  # of the system with fewer; with one seed the interval is that over cases alone


def spread(values: Sequence[Sequence[float | None]]) -> Spread:
  """The means of tests, `values` [seed][case], over the cases in which they are defined."""
  means = [mean_sd(of_seed)[0] for of_seed in values]
  mean, sd, _ = mean_sd(means)
  return Spread(mean, sd, tuple(value for value in means if value is not None))


def paired_difference(first: Sequence[Sequence[float | None]],
                      other: Sequence[Sequence[float | None]]) -> Difference | None:
  """First minus other, with a percentile interval of the bootstrap over cases and seeds.

  The p value is twice the smaller share of resamples, itself included, on one side of zero.

  Args:
    first, other: [seed][case], the same cases in the same order. Cases that are undefined in any
      of the tests are left out; None is returned where no case or no seed is left.
  """
  pair = [np.array(values, np.float64) for values in (first, other)]
  if not all(values.size for values in pair):
    return None
  defined = np.isfinite(np.concatenate(pair)).all(0)
  if not defined.any():
    return None
  a, b = (values[:, defined] for values in pair)
  resampled = _resampled_means(a, _FIRST) - _resampled_means(b, _OTHER)
  tail = (1 - CONFIDENCE) / 2
  low, high = np.quantile(resampled, (tail, 1 - tail))
  smaller = min((resampled <= 0).sum(), (resampled >= 0).sum())
  return Difference(float(a.mean() - b.mean()), float(low), float(high),
                    min(1.0, 2 * (int(smaller) + 1) / (NUM_RESAMPLES + 1)), min(len(a), len(b)))


def seed_difference(first: Sequence[float], other: Sequence[float]) -> Difference | None:
  """First minus other of a figure without cases, one value per seed, by the test of Welch.

  Interval and p value need two seeds of each and values that are not all the same.
  """
  if not len(first) or not len(other):
    return None
  value, seeds = float(np.mean(first) - np.mean(other)), min(len(first), len(other))
  if seeds < 2 or np.ptp(first) + np.ptp(other) == 0:
    return Difference(value, None, None, None, seeds)
  test = stats.ttest_ind(first, other, equal_var=False)
  interval = test.confidence_interval(CONFIDENCE)
  return Difference(value, float(interval.low), float(interval.high), float(test.pvalue), seeds)


def _resampled_means(values: np.ndarray, stream: int) -> np.ndarray:
  """Means [NUM_RESAMPLES] of values [S, N] over drawn seeds and drawn cases."""
  num_seeds, num_cases = values.shape
  mean = values.mean(0)
  factor = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 1.0
  seeds, cases = _draws(num_seeds, stream), _draws(num_cases, _CASES)
  return ((cases @ (mean + factor * (values - mean)).T) * seeds).sum(1)


@functools.lru_cache(maxsize=16)
def _draws(count: int, stream: int) -> np.ndarray:
  """Share of each of `count` items in each resample, [NUM_RESAMPLES, count]."""
  rng = np.random.default_rng((SEED, stream))
  return rng.multinomial(count, np.full(count, 1 / count), NUM_RESAMPLES) / count
