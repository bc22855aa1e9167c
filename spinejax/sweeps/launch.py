"""Runs members of a sweep on this machine, several at a time, or as a Slurm array."""
import collections
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from spinejax import interrupts, runs
from spinejax.sweeps.members import Member

LAUNCHER = pathlib.Path(__file__).resolve().parents[2] / 'launch' / 'slurm.sh'


class Share(NamedTuple):
  """What one of several jobs may use: cores (empty: all) and environment variables."""
  cores: set[int]
  variables: dict[str, str]


class _Job(NamedTuple):
  """A running member, with its start on the monotonic clock and the former size of its log."""
  process: subprocess.Popen
  member: Member
  share: Share
  started: float
  log_size: int


def run_members(members: Sequence[Member], jobs: int, console: Console) -> dict[str, str]:
  """Runs members, `jobs` at a time; returns the last error line of each failed member by name.

  Ctrl-C, SIGTERM and SIGHUP stop the running members after they have saved, and raise
  `interrupts.Interrupted`; a second one kills them. A signal that this process was started to
  ignore (nohup) stays ignored.
  """
  def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)

  shares, waiting = split_machine(jobs), collections.deque(members)
  running: list[_Job] = []
  received: list[int] = []
  failed: dict[str, str] = {}
  previous = {number: signal.signal(number, lambda number, _: received.append(number))
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) != signal.SIG_IGN}
  passed_on = 0
  try:
    while (waiting and not received) or running:
      while waiting and shares and not received:
        running.append(_start(waiting.popleft(), shares.pop(0)))
        say(f'{running[-1].member.name}: started, {len(members) - len(waiting)} of {len(members)}')
      if len(received) > passed_on:
        passed_on = len(received)
        for job in running:
          job.process.send_signal(signal.SIGTERM if passed_on == 1 else signal.SIGKILL)
      for job in [job for job in running if job.process.poll() is not None]:
        running.remove(job)
        shares.append(job.share)
        minutes = f'{(time.monotonic() - job.started) / 60:.1f} min'
        if job.process.returncode == 0:
          say(f'{job.member.name}: done, {minutes}')
        elif not received:
          error = last_error(job.member.log, job.log_size, job.process.returncode)
          failed[job.member.name] = error
          say(f'{job.member.name}: failed, {minutes}: {error}')
      time.sleep(0.1)
  finally:
    for job in running:
      job.process.kill()
    for number, handler in previous.items():
      signal.signal(number, handler)
  if received:
    raise interrupts.Interrupted('The sweep is stopped; the same command resumes it.')
  return failed


def _start(member: Member, share: Share) -> _Job:
  """Starts a member in a process group of its own and appends its output to its log."""
  member.log.parent.mkdir(parents=True, exist_ok=True)
  size = member.log.stat().st_size if member.log.is_file() else 0
  with member.log.open('a') as log:
    process = subprocess.Popen(
        member.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, **share.variables}, process_group=0,
        preexec_fn=(lambda: os.sched_setaffinity(0, share.cores)) if share.cores else None)
  return _Job(process, member, share, time.monotonic(), size)


def split_machine(jobs: int) -> list[Share]:
  """Splits the cores of this machine and the GPUs of $CUDA_VISIBLE_DEVICES among the jobs."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  gpus = list(filter(None, os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')))
  if 0 < len(gpus) < jobs:
    raise ValueError(f'--jobs={jobs} is more than the {len(gpus)} GPUs of CUDA_VISIBLE_DEVICES; '
                     'each job needs one of its own.')
  return [Share(set(cores[i::jobs]) if 1 < jobs <= len(cores) else set(),
                {'CUDA_VISIBLE_DEVICES': ','.join(gpus[i::jobs])} if gpus else {})
          for i in range(jobs)]


def last_error(log: pathlib.Path, start: int = 0, status: int | None = None) -> str:
  """The last 'error: ...' in a log after its first `start` bytes, else its last line."""
  text = log.read_bytes()[start:].decode(errors='replace') if log.is_file() else ''
  error = re.search(r'^error: (?!.*^error: ).*', text, re.MULTILINE | re.DOTALL)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  line = ' '.join(error.group().split()) if error else ''.join(lines[-1:])
  if status is not None and status < 0:
    return f'killed by {signal.Signals(-status).name}' + (f' after: {line}' if line else '')
  return line or (f'exit status {status}' if status is not None else 'not started yet')


def submit(members: Sequence[Member], output: str, jobs: int | None, options: Sequence[str]
           ) -> None:
  """Submits a Slurm array of the members; `output`/array.sh calls launch/slurm.sh for each index.

  Raises ValueError where there is no launch folder or no sbatch, or sbatch failed.
  """
  if shutil.which('sbatch') is None:
    raise ValueError('sbatch was not found; --slurm is for the login node of a Slurm cluster.')
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  if not LAUNCHER.is_file():
    raise ValueError('--slurm needs launch/slurm.sh; run it from a clone of the repository.')
  settings = [line for line in LAUNCHER.read_text().splitlines() if line.startswith('#SBATCH')]
  calls = [f'  {index}) exec {shlex.join([str(LAUNCHER), *member.arguments])}'
           f' >> {shlex.quote(str(member.log.resolve()))} 2>&1 ;;'
           for index, member in enumerate(members)]
  runs.write_text(folder / 'array.sh', '\n'.join([
      '#!/usr/bin/env bash', *settings, 'case $SLURM_ARRAY_TASK_ID in', *calls, 'esac', '']))
  array = f'--array=0-{len(members) - 1}' + (f'%{jobs}' if jobs else '')
  command = ['sbatch', array, f'--output={folder / "slurm-%A_%a.log"}', *options,
             str(folder / 'array.sh')]
  print(shlex.join(command), flush=True)
  if status := subprocess.run(command, check=False).returncode:
    raise ValueError(f'sbatch ended with status {status}; see above.')
