"""Trains every member of a config's sweep(), and collects their results in one table.

  python launch/sweep.py --config=configs/seam.py --output=runs/sweep

sweep() yields dicts of overrides, such as {'variant': 'ours', 'seed': 1}; each is a member with a
run folder of its own, runs/sweep/ours_seed=1, and a log beside it. Overrides for all members are
given as to spinejax.main, --config.num_steps=10; --only=variant=ours takes some of the members.

  --print     prints the commands and runs nothing
  --jobs=4    runs four at a time, with a share of the cores and of $CUDA_VISIBLE_DEVICES each
  --slurm     submits the rest as a Slurm array of launch/slurm.sh; --jobs limits those that run at
              a time, --sbatch="--partition=gpu --time=8:00:00" goes to sbatch
  --collect   makes the table alone, of what there is

The same command goes on where it was stopped, by Ctrl-C or otherwise: finished members are skipped,
half-done ones resume. A failed member does not stop the rest; it is listed with its last line of
error, and the exit status is 1. The table groups by all overrides but the seed: the mean over seeds
and the standard deviation (n - 1). OUTPUT/results.csv and OUTPUT/results.json hold every metric of
test_metrics.json, OUTPUT/members.csv those of each member.
"""
import collections
import csv
import io
import math
import numbers
import os
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spinejax import config as config_lib
from spinejax import interrupts
from spinejax.commands import cli
from spinejax import runs

SLURM = pathlib.Path(__file__).resolve().parents[2] / 'launch' / 'slurm.sh'
SEED = 'seed'
COLUMNS = {  # of the table on the terminal, where some member has them: name, decimals
    'per_image.dice.mean_foreground': ('Dice', 3),
    'per_image.iou.mean_foreground': ('IoU', 3),
    'pooled.dice.mean_foreground': ('pooled Dice', 3),
    'laminae.mean.missed.all': ('missed', 1),
    'laminae.mean.false.all': ('false', 1),
    'angles.agreement.mad': ('angle MAD', 1),
}

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file with a sweep(), such as configs/seam.py.', lock_config=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder of the sweep: a run folder for each member, and the table.',
    required=True)
_PRINT = flags.DEFINE_bool('print', False, 'Print the commands and run nothing.')
_SLURM = flags.DEFINE_bool('slurm', False, 'Submit a Slurm array instead of running here.')
_COLLECT = flags.DEFINE_bool('collect', False, 'Run nothing and collect the results there are.')
_JOBS = flags.DEFINE_integer(
    'jobs', None, 'Members that run at a time: 1 here, and as many as Slurm likes there.',
    lower_bound=1)
_ONLY = flags.DEFINE_multi_string(
    'only', [], 'Take the members with KEY=VALUE; may be repeated, for other values of a key or '
    'for further keys.')
_SBATCH = flags.DEFINE_string('sbatch', '', 'Options for sbatch, with --slurm.')


class Member(NamedTuple):
  """One run of the sweep.

  Attributes:
    name: of its folder.
    overrides: what sweep() yielded.
    config: the whole config.
    arguments: of spinejax.main.
    workdir: its run folder.
  """
  name: str
  overrides: dict[str, Any]
  config: ConfigDict
  arguments: list[str]
  workdir: pathlib.Path

  @property
  def command(self) -> list[str]:
    return [sys.executable, '-m', 'spinejax.main', *self.arguments]

  @property
  def log(self) -> pathlib.Path:
    return self.workdir.with_name(f'{self.name}.log')


def create_members(config: str, output: str | os.PathLike, extra: Mapping[str, Any] = {}
                   ) -> list[Member]:
  """The members of a sweep, in the order of sweep().

  Args:
    config: 'configs/seam.py', or 'configs/seam.py:variant' where sweep() names none.
    output: folder of the run folders.
    extra: dotted overrides for all members.

  Raises:
    ValueError: no sweep(), or one that does not fit the config.
  """
  file, _, given = config.partition(':')
  sweep = runpy.run_path(file).get('sweep')
  if sweep is None:
    raise ValueError(f'{file} has no sweep(); see configs/seam.py for one.')
  members = {}
  for overrides in sweep():
    fields = dict(overrides)
    if given and 'variant' in fields:
      raise ValueError(f'the sweep() of {file} names the variants; give --config={file} alone.')
    if twice := sorted(set(fields) & set(extra)):
      raise ValueError(f'--config.{twice[0]} is what sweep() changes; leave it out, or take some '
                       f'of the members with --only={twice[0]}=VALUE.')
    variant = fields.pop('variant', given)
    which = f'{file}:{variant}' if variant else file
    member_config = config_lib.load_config(which)
    try:
      member_config.update_from_flattened_dict({**fields, **extra})
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(f'{which} does not take what sweep() gives it, {fields}: '
                       f'{_last_line(str(error))}') from error
    name, workdir = _name(overrides), pathlib.Path(output) / _name(overrides)
    if name in members:
      raise ValueError(f'sweep() yields {name} twice.')
    members[name] = Member(
        name, dict(overrides), member_config,
        [f'--config={which}', *(f'--config.{key}={value}' for key, value in
                                {**fields, **extra}.items()), f'--workdir={workdir}'], workdir)
  return list(members.values())


def _name(overrides: Mapping[str, Any]) -> str:
  """'ours_seed=1' of {'variant': 'ours', 'seed': 1}; a name that needs no quotes anywhere."""
  parts = [str(value) if key == 'variant' else f'{key}={value}'
           for key, value in overrides.items()]
  return '_'.join(re.sub(r'[^\w.=+-]+', '-', part).strip('-') for part in parts) or 'default'


def select(members: Sequence[Member], only: Sequence[str]) -> list[Member]:
  """The members with one of the values that `only` has for each of its keys.

  Raises ValueError naming what exists where a key or a value does not.
  """
  wanted = collections.defaultdict(set)
  for condition in only:
    key, equals, value = condition.partition('=')
    there = dict.fromkeys(str(member.overrides[key]) for member in members
                          if key in member.overrides)
    if not equals or value not in there:
      keys = dict.fromkeys(key for member in members for key in member.overrides)
      raise ValueError(f'--only={condition} fits no member; '
                       + (f'{key} is {", ".join(there)}.' if there else
                          f'KEY=VALUE is needed, with a key of {", ".join(keys)}.'))
    wanted[key].add(value)
  return [member for member in members if all(
      str(member.overrides.get(key)) in values for key, values in wanted.items())]


def is_finished(member: Member) -> bool:
  """Whether the member has been trained and tested; ValueError if its folder is another run's."""
  done = ('config.json', 'test_metrics.json', 'report/index.html')
  if not all((member.workdir / name).is_file() for name in done):
    return False
  runs.check(str(member.workdir), 'config', member.config)
  return True


def run_locally(members: Sequence[Member], jobs: int, console: Console) -> dict[str, str]:
  """Runs members, `jobs` at a time; returns the last line of error of each that failed, by name.

  Ctrl-C, SIGTERM and SIGHUP ask the running ones to save and stop, and wait for them; a second one
  kills them. Signals that this process was started to ignore (nohup) stay ignored.

  Raises:
    ValueError: fewer GPUs in $CUDA_VISIBLE_DEVICES than jobs.
    interrupts.Interrupted: stopped by a signal.
  """
  shares, waiting = _shares(jobs), collections.deque(members)
  running, failed, received = {}, {}, []
  previous = {number: signal.signal(number, lambda *_: received.append(True))
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) != signal.SIG_IGN}
  answered = 0
  try:
    while waiting and not received or running:
      while waiting and shares and not received:
        member, share = waiting.popleft(), shares.pop(0)
        console.print(f'{member.name}: started, {len(members) - len(waiting)} of {len(members)}',
                      highlight=False, soft_wrap=True)
        running[_start(member, share)] = member, share, time.monotonic(), _size(member.log)
      if len(received) > answered:
        answered = len(received)
        for process in running:
          process.send_signal(signal.SIGTERM if answered == 1 else signal.SIGKILL)
      for process in [process for process in running if process.poll() is not None]:
        member, share, start, before = running.pop(process)
        shares.append(share)
        minutes = f'{(time.monotonic() - start) / 60:.1f} min'
        if process.returncode == 0:
          console.print(f'{member.name}: done, {minutes}', highlight=False, soft_wrap=True)
        elif not received:
          failed[member.name] = _last_error(member.log, before, process.returncode)
          console.print(f'{member.name}: failed, {minutes}: {failed[member.name]}',
                        highlight=False, soft_wrap=True, markup=False)
      time.sleep(0.1)
  finally:
    for process in running:
      process.kill()
    for number, handler in previous.items():
      signal.signal(number, handler)
  if received:
    raise interrupts.Interrupted('The sweep is stopped; the same command resumes it.')
  return failed


def _start(member: Member, share: tuple[set[int], dict[str, str]]) -> subprocess.Popen:
  """Starts a member out of reach of the terminal's Ctrl-C, its output at the end of its log."""
  cores, variables = share
  member.log.parent.mkdir(parents=True, exist_ok=True)
  with member.log.open('a') as log:
    return subprocess.Popen(
        member.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, **variables}, process_group=0,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None)


def _shares(jobs: int) -> list[tuple[set[int], dict[str, str]]]:
  """Cores and environment of each of the jobs that run at a time; no cores: all of them."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  devices = list(filter(None, os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')))
  if 0 < len(devices) < jobs:
    raise ValueError(f'--jobs={jobs} is more than the {len(devices)} GPUs of '
                     'CUDA_VISIBLE_DEVICES; each job needs one of its own.')
  return [(set(cores[i::jobs]) if 1 < jobs <= len(cores) else set(),
           {'CUDA_VISIBLE_DEVICES': ','.join(devices[i::jobs])} if devices else {})
          for i in range(jobs)]


def _last_error(log: pathlib.Path, start: int, status: int | None) -> str:
  """The last 'error: ...' that a log has after its first `start` bytes, or its last line."""
  text = log.read_bytes()[start:].decode(errors='replace') if log.is_file() else ''
  error = re.search(r'^error: (?!.*^error: ).*', text, re.MULTILINE | re.DOTALL)
  line = ' '.join(error.group().split()) if error else _last_line(text)
  if status is not None and status < 0:
    return f'killed by {signal.Signals(-status).name}' + (f' after: {line}' if line else '')
  return line or (f'exit status {status}' if status is not None else 'not started yet')


def _last_line(text: str) -> str:
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return lines[-1] if lines else ''


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.is_file() else 0


def array_script(members: Sequence[Member]) -> str:
  """A Slurm array: the options of launch/slurm.sh, then one call of it for each index."""
  options = [line for line in SLURM.read_text().splitlines() if line.startswith('#SBATCH')]
  calls = [f'  {index}) exec {shlex.join([str(SLURM), *member.arguments])}'
           f' >> {shlex.quote(str(member.log.resolve()))} 2>&1 ;;'
           for index, member in enumerate(members)]
  return '\n'.join(['#!/usr/bin/env bash', *options, 'case $SLURM_ARRAY_TASK_ID in', *calls, 'esac',
                    ''])


def submit(members: Sequence[Member], output: str, jobs: int | None, options: Sequence[str]
           ) -> None:
  """Submits a Slurm array of the members.

  Raises:
    ValueError: no sbatch here, or it refused.
  """
  if shutil.which('sbatch') is None:
    raise ValueError('sbatch was not found; --slurm is for the login node of a Slurm cluster.')
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  script = folder / 'array.sh'
  script.write_text(array_script(members))
  array = f'--array=0-{len(members) - 1}' + (f'%{jobs}' if jobs else '')
  command = ['sbatch', array, f'--output={folder / "slurm-%A_%a.log"}', *options, str(script)]
  print(shlex.join(command), flush=True)
  if status := subprocess.run(command, check=False).returncode:
    raise ValueError(f'sbatch ended with status {status}; see above.')


def collect(members: Sequence[Member], failed: Mapping[str, str] = {}) -> dict[str, Any]:
  """What results.json holds: the members with their metrics, and the groups that differ by seed.

  Args:
    members: all of them; those without results are listed with their last line of error.
    failed: such lines by name, where they are known.

  Returns:
    `members`: name, overrides, workdir, finished, error, metrics {dotted name: number or None} as
    in test_metrics.json, those of its cases left out; `groups`: overrides without the seed, seeds
    of the finished members, members, metrics {dotted name: {mean, sd, count}} over the seeds where
    each is defined, sd with n - 1, None for one seed.
  """
  rows = []
  for member in members:
    metrics, error = {}, failed.get(member.name, '')
    try:
      if not error and is_finished(member):
        metrics = dict(_numbers(runs.read_json(member.workdir / 'test_metrics.json')))
      elif not error:
        error = f'not finished; {_last_error(member.log, 0, None)}'
    except ValueError as fault:
      error = ' '.join(str(fault).split())
    rows.append({'name': member.name, 'overrides': member.overrides,
                 'workdir': str(member.workdir), 'finished': not error, 'error': error,
                 'metrics': metrics})
  groups = collections.defaultdict(list)
  for row in rows:
    key = {name: value for name, value in row['overrides'].items() if name != SEED}
    groups[tuple(key.items())].append(row)
  return {'groups': [_group(dict(key), rows) for key, rows in groups.items()], 'members': rows}


def _group(overrides: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  finished = [row for row in rows if row['finished']]
  metrics = {}
  for name in dict.fromkeys(name for row in finished for name in row['metrics']):
    values = [row['metrics'].get(name) for row in finished]
    values = [value for value in values if value is not None]
    metrics[name] = {'mean': statistics.fmean(values) if values else None,
                     'sd': statistics.stdev(values) if len(values) > 1 else None,
                     'count': len(values)}
  return {'overrides': overrides, 'seeds': [row['overrides'].get(SEED) for row in finished],
          'members': len(rows), 'metrics': metrics}


def _numbers(value: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, float | None]]:
  """(dotted name, number or None) of nested dicts, without cases and spreads over cases."""
  for key, item in value.items():
    if key in ('cases', 'sd') or key.endswith('_sd'):
      continue
    if isinstance(item, Mapping):
      yield from _numbers(item, f'{prefix}{key}.')
    elif item is None or isinstance(item, numbers.Real) and math.isfinite(item):
      yield f'{prefix}{key}', item


def write_table(results: Mapping[str, Any], output: str | os.PathLike, console: Console) -> None:
  """Writes results.json, results.csv and members.csv, and prints the groups with results."""
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_json(folder / 'results.json', results)
  keys, metrics = _columns(results['groups'])
  _write_csv(folder / 'results.csv',
             [*keys, 'seeds', *(name + end for name in metrics for end in ('', '_sd'))],
             ([*(group['overrides'].get(key) for key in keys), len(group['seeds']),
               *(group['metrics'].get(name, {}).get(kind) for name in metrics
                 for kind in ('mean', 'sd'))] for group in results['groups']))
  every, metrics = _columns(results['members'])
  _write_csv(folder / 'members.csv', ['name', *every, 'error', *metrics],
             ([row['name'], *(row['overrides'].get(key) for key in every), row['error'],
               *(row['metrics'].get(name) for name in metrics)] for row in results['members']))

  finished = [group for group in results['groups'] if group['seeds']]
  if not finished:
    console.print('No member is finished.')
    return
  shown = {name: column for name, column in COLUMNS.items() if any(
      group['metrics'].get(name, {}).get('mean') is not None for group in finished)}
  table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  for key in keys:
    table.add_column(key, no_wrap=True)
  for title in ('seeds', *(title for title, _ in shown.values())):
    table.add_column(title, justify='right', no_wrap=True)
  for group in finished:
    done, total = len(group['seeds']), group['members']
    table.add_row(*(Text(str(group['overrides'].get(key, ''))) for key in keys),
                  str(done) if done == total else f'{done} of {total}',
                  *(_cell(group['metrics'].get(name), digits)
                    for name, (_, digits) in shown.items()))
  console.print(table)
  console.print(Text('Mean of foreground, mean ± standard deviation over seeds. '
                     f'{folder / "results.csv"} has every metric.', style='dim'), soft_wrap=True)


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
  """Every override and every metric that some row has."""
  return tuple(list(dict.fromkeys(name for row in rows for name in row[part]))
               for part in ('overrides', 'metrics'))


def _cell(metric: Mapping[str, Any] | None, digits: int) -> str:
  if metric is None or metric['mean'] is None:
    return '–'
  text = f'{metric["mean"]:.{digits}f}'
  return text if metric['sd'] is None else f'{text} ± {metric["sd"]:.{digits}f}'


def _write_csv(path: pathlib.Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
  text = io.StringIO(newline='')
  csv.writer(text).writerows([header, *rows])
  path.write_text(text.getvalue(), newline='')


def main(argv) -> int:
  del argv
  if _CONFIG.value is None:
    raise ValueError('--config=FILE is needed, such as --config=configs/seam.py.')
  if _PRINT.value + _SLURM.value + _COLLECT.value > 1:
    raise ValueError('give one of --print, --slurm and --collect.')
  flag = flags.FLAGS['config']
  extra = config_flags.get_override_values(flag)
  everyone = create_members(config_flags.get_config_filename(flag), _OUTPUT.value, extra)
  members = select(everyone, _ONLY.value)
  if _PRINT.value:
    print('\n'.join(shlex.join(member.command) for member in members))
    return 0
  console = Console()
  failed, rest = {}, []
  for member in members:
    try:
      if not is_finished(member):
        rest.append(member)
    except ValueError as fault:
      failed[member.name] = ' '.join(str(fault).split())
  if _SLURM.value and rest:
    submit(rest, _OUTPUT.value, _JOBS.value, shlex.split(_SBATCH.value))
    return 0
  if not _COLLECT.value and rest:
    failed |= run_locally(rest, _JOBS.value or 1, console)
  results = collect(everyone, failed)
  write_table(results, _OUTPUT.value, console)
  selected = {member.name for member in members}
  errors = {row['name']: row['error'] for row in results['members']
            if row['error'] and row['name'] in selected}
  for name, error in errors.items():
    print(f'{name}: {error}', file=sys.stderr)
  if errors:
    print(f'error: {len(errors)} of {len(members)} members are without results; see above and '
          f'their logs, {_OUTPUT.value}/NAME.log.', file=sys.stderr)
  return bool(errors)


if __name__ == '__main__':
  cli.run(main)
