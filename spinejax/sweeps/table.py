"""The table of a sweep: means and standard deviations over seeds."""
import collections
import csv
import dataclasses
import io
import math
import numbers
import os
import pathlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spinejax import runs
from spinejax.sweeps import choice as choice_lib
from spinejax.sweeps import launch
from spinejax.sweeps.choice import Choice
from spinejax.sweeps.members import SEED, Member, is_finished, label, without

COLUMNS = {  # of the printed table: title and decimals by metric
    'per_image.dice.mean_foreground': ('Dice', 3),
    'per_image.iou.mean_foreground': ('IoU', 3),
    'pooled.dice.mean_foreground': ('pooled Dice', 3),
    'laminae.mean.missed.all': ('missed', 1),
    'laminae.mean.false.all': ('false', 1),
    'angles.agreement.mad': ('angle MAD', 1),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A member and its results."""
  name: str
  overrides: dict[str, Any]
  workdir: str
  finished: bool
  error: str                        # last line of its error, '' if finished
  metrics: dict[str, float | None]  # of test_metrics.json by dotted name, without single cases


@dataclasses.dataclass(frozen=True)
class Spread:
  """Mean and standard deviation (n - 1, None for one value) over `count` seeds."""
  mean: float | None
  sd: float | None
  count: int


@dataclasses.dataclass(frozen=True)
class Group:
  """Members that differ in their seed only."""
  overrides: dict[str, Any]   # without the seed
  seeds: list[Any]            # of the finished members
  members: int
  metrics: dict[str, Spread]  # over the finished members where the metric is defined


@dataclasses.dataclass(frozen=True)
class Results:
  """All members of a sweep and their groups, the content of results.json."""
  groups: tuple[Group, ...]  # of a choice: with the chosen value
  members: tuple[Row, ...]
  choices: tuple[Choice, ...] = ()


def collect(members: Sequence[Member], failed: Mapping[str, str] | None = None,
            choices: Sequence[Choice] = ()) -> Results:
  """Reads the results of all members; `failed` are known errors by name of the member."""
  rows = [_read_row(member, (failed or {}).get(member.name, '')) for member in members]
  rejected = choice_lib.rejected(choices)
  groups = collections.defaultdict(list)
  for row in rows:
    if row.name not in rejected:
      groups[tuple(without(row.overrides, SEED).items())].append(row)
  return Results(tuple(_group(dict(key), rows) for key, rows in groups.items()), tuple(rows),
                 tuple(choices))


def _read_row(member: Member, error: str) -> Row:
  metrics: dict[str, float | None] = {}
  try:
    if not error and is_finished(member):
      stored = runs.read_json(member.workdir / 'test_metrics.json')
      metrics = {name: value if value is None else float(value)
                 for name, value in runs.flatten(stored)
                 if not re.search(r'(^|\.)(cases|sd|[^.]*_sd)(\.|$)', name)
                 and (value is None or isinstance(value, numbers.Real) and math.isfinite(value))}
    elif not error:
      error = f'not finished; {launch.last_error(member.log)}'
  except ValueError as fault:
    error = ' '.join(str(fault).split())
  return Row(member.name, member.overrides, str(member.workdir), not error, error, metrics)


def _group(overrides: dict[str, Any], rows: Sequence[Row]) -> Group:
  finished = [row for row in rows if row.finished]
  metrics = {}
  for name in dict.fromkeys(name for row in finished for name in row.metrics):
    values = [value for row in finished if (value := row.metrics.get(name)) is not None]
    metrics[name] = Spread(statistics.fmean(values) if values else None,
                           statistics.stdev(values) if len(values) > 1 else None, len(values))
  return Group(overrides, [row.overrides.get(SEED) for row in finished], len(rows), metrics)


def write_results(results: Results, output: str | os.PathLike) -> None:
  """Writes results.json, results.csv (one row a group) and members.csv into a folder."""
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_json(folder / 'results.json', dataclasses.asdict(results))
  keys, metrics = _columns(results.groups)
  _write_csv(folder / 'results.csv',
             [*keys, 'seeds', *(name + end for name in metrics for end in ('', '_sd'))],
             [{**group.overrides, 'seeds': len(group.seeds),
               **{name: spread.mean for name, spread in group.metrics.items()},
               **{f'{name}_sd': spread.sd for name, spread in group.metrics.items()}}
              for group in results.groups])
  keys, metrics = _columns(results.members)
  _write_csv(folder / 'members.csv', ['name', *keys, 'error', *metrics],
             [{'name': row.name, **row.overrides, 'error': row.error, **row.metrics}
              for row in results.members])


def _columns(rows: Sequence[Row] | Sequence[Group]) -> tuple[list[str], list[str]]:
  """Names of all overrides and of all metrics."""
  return (list(dict.fromkeys(name for row in rows for name in row.overrides)),
          list(dict.fromkeys(name for row in rows for name in row.metrics)))


def _write_csv(path: pathlib.Path, header: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, header)
  writer.writeheader()
  writer.writerows(rows)
  runs.write_text(path, text.getvalue())


def print_results(results: Results, output: str | os.PathLike, console: Console) -> None:
  """Prints the choices and a table of the groups that have results."""
  _print_choices([choice for choice in results.choices
                  if any(trial.state != 'unfinished' for trial in choice.trials)], console)
  finished = [group for group in results.groups if group.seeds]
  if not finished:
    console.print('No value is chosen.' if results.choices else 'No member is finished.')
    return
  keys, _ = _columns(results.groups)
  shown = {name: column for name, column in COLUMNS.items() if any(
      name in group.metrics and group.metrics[name].mean is not None for group in finished)}
  table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  for key in keys:
    table.add_column(key, no_wrap=True)
  for title in ('seeds', *(title for title, _ in shown.values())):
    table.add_column(title, justify='right', no_wrap=True)
  for group in finished:
    done = len(group.seeds)
    table.add_row(*(Text(str(group.overrides.get(key, ''))) for key in keys),
                  str(done) if done == group.members else f'{done} of {group.members}',
                  *(_cell(group.metrics.get(name), digits) for name, (_, digits) in shown.items()))
  console.print(table)
  console.print(Text('Means of the foreground classes; mean ± standard deviation over seeds. All '
                     f'metrics are in {pathlib.Path(output) / "results.csv"}.', style='dim'),
                soft_wrap=True)
  for choice in results.choices:
    if choice.is_extreme:
      console.print(Text(f'{label(choice.group)}: the chosen {choice.field} {choice.value} is at '
                         'an end of the values of --choose; a better one may lie beyond.'),
                    soft_wrap=True)


def _print_choices(choices: Sequence[Choice], console: Console) -> None:
  """Prints the validation score of every value, a row for each choice."""
  if not choices:
    return
  table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  table.add_column(f'validation of {choices[0].field}', no_wrap=True)
  for title in (*(str(trial.value) for trial in choices[0].trials), 'chosen'):
    table.add_column(title, justify='right', no_wrap=True)
  for choice in choices:
    table.add_row(label(choice.group),
                  *(trial.state if trial.score is None else f'{trial.score:.4f}'
                    for trial in choice.trials),
                  'none yet' if choice.value is None else str(choice.value))
  console.print(table)
  console.print(Text('Best validation score of the first seed: mean Dice of the foreground, or '
                     'negative loss.', style='dim'), soft_wrap=True)


def _cell(metric: Spread | None, digits: int) -> str:
  if metric is None or metric.mean is None:
    return '–'
  text = f'{metric.mean:.{digits}f}'
  return text if metric.sd is None else f'{text} ± {metric.sd:.{digits}f}'
