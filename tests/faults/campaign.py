"""Disturbs runs at random and compares each with an undisturbed one, bit by bit.

  python -m tests.faults.campaign --tries=20 --seed=0

Every try trains a tiny network in a process of its own, disturbs it, starts the same command again
until it is done, and compares the arrays of the last checkpoint, the steps kept, the rows of
metrics.jsonl and test_metrics.json with those of the undisturbed run. Kinds of disturbance:

  kill        SIGKILL at any moment, up to three times in one run
  save        SIGKILL while a checkpoint is written
  preempt     SIGTERM at any moment of training: exit status 130
  flip        a bit of a file of the last checkpoint is flipped
  truncate    a file of the last checkpoint is cut, or gone
  every       all checkpoints are damaged: one sentence, exit status 1
  full        the disk is full at some moment: one sentence, exit status 1 (needs to mount a tmpfs)
  together    the same command is started twice at once: one of them refuses
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from tests import tiny

KINDS = ('kill', 'save', 'preempt', 'flip', 'truncate', 'every', 'full', 'together')


class Failure(Exception):
  """A run did not end as the undisturbed one."""


def write_config(path: pathlib.Path, **overrides) -> pathlib.Path:
  """Writes a config file of `tiny_config` with dotted overrides."""
  path.write_text('from tests import tiny\n\nVARIANTS = {}\n\n\ndef get_config():\n'
                  f'  return tiny.tiny_config(**{overrides}).lock()\n')
  return path


def start(config: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
  environment = {
      **os.environ, 'PYTHONPATH': str(tiny.ROOT), 'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': '1', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'JAX_COMPILATION_CACHE_DIR': str(config.parent / 'xla')}
  return subprocess.Popen(
      [sys.executable, '-m', 'spinejax.main', f'--config={config}', f'--workdir={workdir}'],
      cwd=tiny.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
  """Exit status and what was said on stderr."""
  _, errors = process.communicate(timeout=300)
  return process.returncode, errors.strip()


def expect(process: subprocess.Popen, status: int, words: str = '', lines: int | None = None
           ) -> str:
  """Raises Failure unless the process ends with a status and says something in a line."""
  found, errors = finish(process)
  said = errors.splitlines()
  if found != status or words not in errors or 'Traceback' in errors or (
      lines is not None and len(said) != lines):
    raise Failure(f'status {found} instead of {status}, {len(said)} lines: {errors[-2000:]}')
  return errors


def arrays_of(step: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of a checkpoint by path."""
  import jax
  import orbax.checkpoint as ocp

  arrays = {}
  for item in ('variables', 'training'):
    tree = ocp.StandardCheckpointer().restore(step / item)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      arrays[f'{item}{jax.tree_util.keystr(path)}'] = np.asarray(leaf)
  return arrays


def steps_of(workdir: pathlib.Path) -> list[int]:
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir()
                if path.name.isdigit())


def outcome(workdir: pathlib.Path) -> dict:
  """All that two runs must share."""
  test = json.loads((workdir / 'test_metrics.json').read_text())
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  step = steps_of(workdir)[-1]
  arrays = arrays_of(workdir / 'checkpoints' / str(step))
  return {
      'step': step,
      'arrays': {name: (array.shape, array.tobytes()) for name, array in arrays.items()},
      'rows': [{k: v for k, v in row.items() if k != 'images_per_second'} for row in rows],
      'test': {k: v for k, v in test.items() if k != 'seconds_per_image'}}


def compare(workdir: pathlib.Path, undisturbed: dict) -> None:
  found = outcome(workdir)
  for part in undisturbed:
    if found[part] != undisturbed[part]:
      raise Failure(f'{part} differ from those of the undisturbed run')
  left = [path.name for path in (workdir / 'checkpoints').iterdir() if 'tmp' in path.name]
  if left:
    raise Failure(f'the killed save left {left}')


def is_saving(workdir: pathlib.Path) -> bool:
  return any(workdir.glob('checkpoints/*tmp*'))


def wait_for(process: subprocess.Popen, condition) -> bool:
  while process.poll() is None:
    if condition():
      return True
    time.sleep(0.002)
  return False


def damage(path: pathlib.Path, kind: str, rng: np.random.Generator) -> None:
  """Flips a bit of a file, cuts it, or removes it."""
  content = bytearray(path.read_bytes())
  if kind == 'flip' and content:
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
  elif content and rng.random() < 0.7:
    path.write_bytes(content[:rng.integers(len(content))])
  else:
    path.unlink()


def files_of(workdir: pathlib.Path, step: int) -> list[pathlib.Path]:
  return sorted(path for path in (workdir / 'checkpoints' / str(step)).rglob('*')
                if path.is_file() and path.name != 'digests.json')


def try_once(kind: str, config: pathlib.Path, workdir: pathlib.Path, half: pathlib.Path,
             seconds: float, rng: np.random.Generator) -> str:
  """Disturbs one run until it is done; returns what happened."""
  if kind in ('kill', 'save'):
    told = []
    for _ in range(1 if kind == 'save' else rng.integers(1, 4)):
      process = start(config, workdir)
      if kind == 'save':
        number = rng.integers(1, 5)
        for i in range(number):
          wait_for(process, lambda: is_saving(workdir))
          if i < number - 1:
            wait_for(process, lambda: not is_saving(workdir))
        time.sleep(rng.uniform(0, 0.5))
      else:
        time.sleep(rng.uniform(0, seconds))
      process.kill()
      finish(process)
      told.append('in a save' if is_saving(workdir) else 'killed')
    expect(start(config, workdir), 0, lines=0)
    return ', '.join(told)
  if kind == 'preempt':
    process = start(config, workdir)
    rows = rng.integers(1, 10)
    metrics = workdir / 'metrics.jsonl'
    wait_for(process, lambda: metrics.exists() and metrics.read_bytes().count(b'\n') >= rows)
    process.send_signal(signal.SIGTERM)
    said = expect(process, 130, 'the same command resumes', lines=1)
    expect(start(config, workdir), 0, lines=0)
    return said
  if kind in ('flip', 'truncate', 'every'):
    shutil.copytree(half, workdir)
    steps = steps_of(workdir)
    for step in steps if kind == 'every' else steps[-1:]:
      path = rng.choice(files_of(workdir, step))
      damage(path, 'flip' if kind == 'flip' else 'cut', rng)
    if kind == 'every':
      said = expect(start(config, workdir), 1, 'all checkpoints in', lines=1)
      for step in steps:
        shutil.rmtree(workdir / 'checkpoints' / str(step))
        shutil.copytree(half / 'checkpoints' / str(step), workdir / 'checkpoints' / str(step))
      expect(start(config, workdir), 0, lines=0)
      return said
    said = expect(start(config, workdir), 0, f'step {steps[-1]} is damaged', lines=1)
    return f'{path.relative_to(workdir)}: {said[:60]}'
  if kind == 'full':
    workdir.mkdir()
    size = 6 << 20
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', workdir], check=True)
    try:
      process = start(config, workdir)
      time.sleep(rng.uniform(0.2, 1) * seconds)
      ballast = workdir / 'ballast'
      free = shutil.disk_usage(workdir).free
      left = int(rng.choice([0, 4096, 1 << 16, 1 << 18, 3 << 19]))
      with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(max(free - left, 0)))
      status, said = finish(process)
      if status and (status, len(said.splitlines()), said[:7]) != (1, 1, 'error: '):
        raise Failure(f'status {status}: {said[-2000:]}')
      ballast.unlink(missing_ok=True)
      expect(start(config, workdir), 0, lines=0)
      whole = workdir.with_name(workdir.name + '-copy')
      shutil.copytree(workdir, whole)
    finally:
      subprocess.run(['umount', workdir], check=True)
    workdir.rmdir()
    whole.rename(workdir)
    return f'{left} bytes left: {said or "done before"}'
  first, second = start(config, workdir), start(config, workdir)
  ends = [finish(first), finish(second)]
  refused = [said for status, said in ends if status == 1]
  if sorted(status for status, _ in ends) != [0, 1] or 'another process' not in refused[0]:
    raise Failure(f'{ends}')
  return refused[0]


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tries', type=int, default=20, help='of each kind')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kinds', default=','.join(KINDS))
  options = parser.parse_args()
  rng = np.random.default_rng(options.seed)
  failures = 0
  with tempfile.TemporaryDirectory(prefix='spinejax-faults-') as folder:
    folder = pathlib.Path(folder)
    config = write_config(
        folder / 'config.py', **{'num_steps': 8, 'data.num_test': 1, 'data.num_train': 3})
    expect(start(config, folder / 'first'), 0)  # compiles
    begin = time.monotonic()
    expect(start(config, folder / 'undisturbed'), 0)
    seconds = time.monotonic() - begin
    undisturbed = outcome(folder / 'undisturbed')
    print(f'undisturbed: {seconds:.1f} s, steps kept {steps_of(folder / "undisturbed")}')
    half = folder / 'half'
    process = start(config, half)
    wait_for(process, lambda: len(list(half.glob('checkpoints/[0-9]*/digests.json'))) >= 2)
    process.send_signal(signal.SIGTERM)
    expect(process, 130)
    for kind in options.kinds.split(','):
      bad = 0
      for number in range(options.tries):
        workdir = folder / f'{kind}-{number}'
        try:
          told = try_once(kind, config, workdir, half, seconds, rng)
          compare(workdir, undisturbed)
          print(f'{kind} {number}: {told}', flush=True)
        except (Failure, subprocess.TimeoutExpired) as failure:
          bad += 1
          print(f'{kind} {number}: FAILED, {failure}', flush=True)
        shutil.rmtree(workdir, ignore_errors=True)
      print(f'{kind}: {options.tries} tries, {bad} failed', flush=True)
      failures += bad
  return 1 if failures else 0


if __name__ == '__main__':
  sys.exit(main())
