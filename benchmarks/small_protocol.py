"""Systems of the small protocol: their runs with the chosen learning rate, and comparisons."""
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from benchmarks import papers, statistics
from benchmarks.finished_runs import FinishedRun, Values
from spinejax import config as config_lib

VARIANT = 'small'
CONVERGED = 0.005  # largest rise of the validation Dice over the last third of a converged run


@dataclasses.dataclass(frozen=True)
class Metric:
  """A figure of a test, per case or, if `by_case` is false, one figure of all cases."""
  title: str
  digits: int
  sign: int  # 1 if more is better, else -1
  negligible: float  # a smaller improvement does not count
  read: Callable[[FinishedRun], Values]
  by_case: bool = True


@dataclasses.dataclass(frozen=True)
class System:
  """A row of a table: its runs with the chosen learning rate, by seed; none if it was not run."""
  row: papers.Row
  tried: Mapping[float, FinishedRun]  # by learning rate: the run of the first seed
  runs: tuple[FinishedRun, ...]

  @property
  def learning_rate(self) -> float | None:
    return self.runs[0].learning_rate if self.runs else None


def read_case_values(name: str) -> Callable[[FinishedRun], Values]:
  return lambda run: run.values.get(name, [])


def read_angle_errors(run: FinishedRun) -> Values:
  """Absolute difference to the reference in degrees; None for a case without an angle."""
  return [None if angle is None or reference is None else abs(angle - reference)
          for angle, reference in zip(run.values.get('angle', []), run.values.get('reference', []))]


def read_auc(run: FinishedRun) -> Values:
  """Area under the ROC curve of the foreground against the background."""
  return [run.auc.get('any_foreground', next(iter(run.auc.values()), None))]


METRICS = {
    'dice': Metric('Dice', 3, 1, 0.005, read_case_values('mean_foreground')),
    'angle': Metric('angle MAD', 2, -1, 0.5, read_angle_errors),
    'auc': Metric('AUC', 4, 1, 0.002, read_auc, by_case=False),
    'missed': Metric('missed', 2, -1, 0.5, read_case_values('missed')),
    'false': Metric('false', 2, -1, 0.5, read_case_values('false')),
    'distance': Metric('total d₃D', 1, -1, 5.0, read_case_values('d3d_sum')),
}


def select(found: Sequence[FinishedRun], row: papers.Row) -> System:
  """The runs of a row under the current protocol.

  The first seed of each learning rate competes by its validation score; the runs with the best
  learning rate are those of the system.
  """
  name = f'{row.config},{VARIANT}'
  own = sorted((run for run in found if run.config == name and run.changed == row.changed
                and (run.num_steps, run.difficulty) == _protocol(name)), key=lambda run: run.seed)
  tried = {run.learning_rate: run for run in reversed(own)}
  scores = {rate: run.score for rate, run in tried.items() if run.score is not None}
  chosen = max(scores, key=lambda rate: scores[rate], default=None)
  return System(row, dict(sorted(tried.items())),
                tuple(run for run in own if run.learning_rate == chosen))


@functools.cache
def _protocol(name: str) -> tuple[int, float]:
  """Steps and difficulty of a config."""
  config = config_lib.load_config(name)
  return config.num_steps, config.data.difficulty


def spread(system: System, metric: Metric) -> statistics.Spread:
  """Mean and deviation over seeds of a metric of a system."""
  return statistics.spread([metric.read(run) for run in system.runs])


def difference(first: System, other: System, metric: Metric) -> statistics.Difference | None:
  """First minus other; None if one was not run or has no such metric.

  Raises:
    ValueError: they were tested on different cases.
  """
  if len({run.test_data for run in (*first.runs, *other.runs)}) > 1:
    raise ValueError(f'{first.row.key} and {other.row.key} were tested on different cases; train '
                     'them again under one protocol.')
  values = [[metric.read(run) for run in system.runs] for system in (first, other)]
  if metric.by_case:
    return statistics.paired_difference(*values)
  a, b = ([value for of_run in of_system for value in of_run if value is not None]
          for of_system in values)
  return statistics.seed_difference(a, b)


def rise(run: FinishedRun) -> float | None:
  """Best validation Dice in the last third of the steps minus the best one before."""
  if not run.validation:
    return None
  border = 2 / 3 * max(step for step, _ in run.validation)
  late = [dice for step, dice in run.validation if step > border]
  early = [dice for step, dice in run.validation if step <= border]
  return max(late) - max(early) if early else None
