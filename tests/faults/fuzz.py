"""Feeds every reader mutated files: each must be read, or refused in one sentence.

  python -m tests.faults.fuzz --inputs=10000 --seed=0

The inputs are shared among the readers. Input k of a reader is a function of (seed, k); the first
ones are made to harm it. Readers run in processes of their own that may take 10 s of CPU time for a
file, 30 s for an input, and 2 GB of memory above what they have when they start. They must raise
nothing but ValueError and OSError, open no file outside of their folder, and start no program.
"""
import argparse
import functools
import gzip
import io
import json
import os
import pathlib
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable

import numpy as np

from tests import tiny
from tests.faults.inputs import READERS, SECONDS, bombs

_BYTES = 2 << 30  # of memory that a reader may take
_START = 300  # seconds until the first input is done, imports and making bombs included
_MOST_BOMBS = 1000  # inputs from this number on are mutations only
_HEADER = 512  # bytes at the start of a file that half of the edits go to
_INTEGERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 20, (1 << 31) - 1, 1 << 31,
             (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_NUMBERS = (b'0', b'-1', b'1', b'2', b'1e400', b'nan', b'1e-300', b'2147483648', b'100000',
            b'99999999999999999999', b'', b'0.5', b'65536', b'4')
_WORDS = (
    b'\0', b'../../../etc/passwd', b'/etc/passwd', b'secret.raw', b'..', b'"', b"'", b',', b';',
    b'\t', b'\n', b'\r', b'nan', b'inf', b'-inf', b'1e400', b'-1', b'0', b'9' * 20, b'1' * 5000,
    b'[' * 3000, b'{"a":' * 3000, b'null', b'true', b'[]', b'{}', b'""', b'\xff\xfe',
    b'\xef\xbb\xbf', '🦴'.encode(), b'\\u0000', b'\\ud800', b'x' * 200000, b'LOCAL', b'LIST',
    b'%d%n%s', b'3 3 3', b'=', b':', b':=')
_MEMBERS = ('../' * 9 + 'tmp/x.npy', '/etc/x.npy', 'a\0b.npy', 'x', 'x/', 'x' * 3000)


# ------------------------------------------------------------------------------------- mutations


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
  """Makes one to four edits of a file, or of what is compressed in it."""
  if content[:2] == b'\x1f\x8b' and rng.random() < 0.6:
    return gzip.compress(_mutate_plain(gzip.decompress(content), rng), 1)
  if content[:2] == b'PK' and rng.random() < 0.7:
    return _mutate_zip(content, rng)
  return _mutate_plain(content, rng)


def _mutate_plain(content: bytes, rng: np.random.Generator) -> bytes:
  edited = bytearray(content)
  for _ in range(rng.integers(1, 5)):
    if edited:
      most = len(edited) if rng.random() < 0.5 else min(len(edited), _HEADER)
      _EDITS[rng.integers(len(_EDITS))](edited, int(rng.integers(most)), rng)
  return bytes(edited)


def _flip_bits(content, place, rng):
  for _ in range(rng.integers(1, 9)):
    content[int(rng.integers(place + 1))] ^= 1 << int(rng.integers(8))


def _truncate(content, place, rng):
  del content[place:]


def _overwrite_integer(content, place, rng):
  size = int(rng.choice([1, 2, 4, 8]))
  value = _INTEGERS[rng.integers(len(_INTEGERS))] % (1 << 8 * size)
  content[place:place + size] = value.to_bytes(size, 'little' if rng.random() < 0.5 else 'big')


def _replace_number(content, place, rng):
  """Puts another number in place of one written in digits."""
  found = list(re.finditer(rb'-?\d+(\.\d+)?', bytes(content[:4096])))
  if found:
    match = found[rng.integers(len(found))]
    content[match.start():match.end()] = _NUMBERS[rng.integers(len(_NUMBERS))]


def _insert_word(content, place, rng):
  word = _WORDS[rng.integers(len(_WORDS))]
  content[place:place + (len(word) if rng.random() < 0.5 else 0)] = word


def _insert_bytes(content, place, rng):
  content[place:place] = rng.bytes(int(rng.integers(1, 64)))


def _remove_bytes(content, place, rng):
  del content[place:place + int(rng.integers(1, 64))]


def _repeat_bytes(content, place, rng):
  content[place:place] = content[place:place + int(rng.integers(1, 256))] * int(rng.integers(1, 20))


def _move_line(content, place, rng):
  """Moves or doubles a line of text."""
  lines = bytes(content[:65536]).split(b'\n')
  first, second = rng.integers(len(lines), size=2)
  lines.insert(second, lines[first] if rng.random() < 0.5 else lines.pop(first))
  content[:65536] = b'\n'.join(lines)


_EDITS = (_flip_bits, _truncate, _overwrite_integer, _replace_number, _insert_word, _insert_bytes,
          _remove_bytes, _repeat_bytes, _move_line)


def _mutate_zip(content: bytes, rng: np.random.Generator) -> bytes:
  """Mutates, renames or leaves out members of a zip archive."""
  output = io.BytesIO()
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(
        output, 'w', zipfile.ZIP_DEFLATED) as target:
      for name in source.namelist():
        data, chance = source.read(name), rng.random()
        if chance < 0.4:
          data = _mutate_plain(data, rng)
        elif chance < 0.5:
          name = (*_MEMBERS, name.upper())[rng.integers(len(_MEMBERS) + 1)]
        elif chance < 0.55:
          continue
        target.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
  except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
    return _mutate_plain(content, rng)
  return output.getvalue()


# ------------------------------------------------------------------------------------- running


class Sandbox:
  """Records what a reader opens outside of its folder and starts, by Python's audit events."""

  def __init__(self):
    self.folder, self.active, self.seen = '', False, []
    self._allowed = (sys.prefix, sys.base_prefix, str(tiny.ROOT), '/dev/', '/proc/', '/sys/',
                     '/usr/', '/etc/localtime', '/etc/os-release',
                     str(pathlib.Path.home() / '.cache'))
    sys.addaudithook(self._hook)

  def _hook(self, event, args):
    if not self.active:
      return
    if event == 'open' and isinstance(args[0], (str, bytes, os.PathLike)):
      path = os.path.realpath(os.fsdecode(args[0])) if b'\0' not in os.fsencode(args[0]) else ''
      writes = isinstance(args[1], str) and any(mode in args[1] for mode in 'wax+')
      allowed = self.folder, *(('/dev/null',) if writes else self._allowed)
      if not path.startswith(allowed):
        self.seen.append(f'{event} {path} {args[1]}')
    elif event in ('os.system', 'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.spawn',
                   'pickle.find_class'):
      if event != 'pickle.find_class' or args[0] in ('os', 'posix', 'builtins', 'subprocess'):
        self.seen.append(f'{event} {args[:2]}')


@functools.cache
def _sandbox() -> Sandbox:
  """The sandbox of this process; an audit hook cannot be removed."""
  return Sandbox()


def fuzz(name: str, inputs: range, seed: int, folder: pathlib.Path,
         report: Callable[[int, str], None]) -> None:
  """Runs inputs of a reader in `folder`; calls report(k, fault) after each, '' without a fault."""
  folder = folder.resolve()
  reader, pristine, place = READERS[name], folder / 'pristine', folder / 'place'
  pristine.mkdir()
  targets = [path.relative_to(pristine) for path in reader.write(pristine)]
  shutil.copytree(pristine, place)
  sandbox = _sandbox()
  sandbox.folder = str(folder)
  reader.read(place)  # imports what it needs
  made = list(bombs(name)) if inputs.start < _MOST_BOMBS else []
  for number in inputs:
    rng = np.random.default_rng([seed, number, *name.encode()])
    shutil.rmtree(place)
    shutil.copytree(pristine, place)
    if number < len(made):
      file, content = made[number]
      (place / file).write_bytes(content)
    else:
      for target in rng.choice(len(targets), min(len(targets), int(rng.integers(1, 3))), False):
        path = place / targets[target]
        path.write_bytes(mutate(path.read_bytes(), rng))
    fault = ''
    sandbox.seen.clear()
    sandbox.active = True
    try:
      reader.read(place)
    except BaseException as error:  # a fault of the reader, whatever it is
      where = traceback.extract_tb(error.__traceback__)[-1]
      fault = f'{type(error).__name__}: {str(error)[:300]} at {where.filename}:{where.lineno}'
    sandbox.active = False
    if sandbox.seen:
      fault = f'{sandbox.seen[0]} {fault}'
    report(number, fault)


def _run_child(name: str, first: int, last: int, seed: int) -> None:
  """Prints a JSON line (number, fault, memory in MB) per input, under a limit of memory."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='spinejax-fuzz-'))
  lines = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def report(number, fault):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps([number, fault, peak]), file=lines, flush=True)

  try:
    (folder / 'first').mkdir()
    READERS[name].write(folder / 'first')
    READERS[name].read(folder / 'first')  # what is imported now is not counted
    size = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _BYTES, resource.RLIM_INFINITY))
    fuzz(name, range(first, last), seed, folder, report)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def run(name: str, inputs: int, seed: int) -> tuple[list[str], int]:
  """Faults of a reader, and its highest memory in MB. A process that dies is started again."""
  done, faults, highest = 0, [], 0
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '2',
                 'OPENBLAS_NUM_THREADS': '2', 'MALLOC_ARENA_MAX': '2'}
  while done < inputs:
    command = [sys.executable, '-m', 'tests.faults.fuzz', f'--child={name}', f'--first={done}',
               f'--inputs={inputs}', f'--seed={seed}']
    with tempfile.TemporaryFile('w+') as errors, subprocess.Popen(
        command, cwd=tiny.ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        env=environment) as process:
      started = False
      while True:
        ready, _, _ = select.select([process.stdout], [], [], 3 * SECONDS if started else _START)
        line = process.stdout.readline() if ready else ''
        if not line:
          break
        started = True
        number, fault, peak = json.loads(line)
        done, highest = number + 1, max(highest, peak)
        faults += [f'{name} {number}: {fault}'] * bool(fault)
      hung = process.poll() is None and not ready
      process.kill()
      process.wait()
      errors.seek(0)
      if done < inputs:
        faults.append(f'{name} {done}: ' + (
            'hung' if hung else f'ended with {process.returncode}: {errors.read()[-500:]}'))
        if not started and done == 0:
          break  # it cannot even start
        done += 1
  return faults, highest


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--inputs', type=int, default=10_000, help='of all readers together')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--readers', default=','.join(READERS))
  parser.add_argument('--child', help=argparse.SUPPRESS)
  parser.add_argument('--first', type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    _run_child(options.child, options.first, options.inputs, options.seed)
    return 0
  shares = {name: READERS[name].share for name in options.readers.split(',')}
  total = failed = 0
  for name, share in shares.items():
    begin, inputs = time.monotonic(), -int(-options.inputs * share // sum(shares.values()))
    faults, highest = run(name, inputs, options.seed)
    total, failed = total + inputs, failed + len(faults)
    print(f'{name}: {inputs} inputs, {len(faults)} faults, {highest} MB at most, '
          f'{time.monotonic() - begin:.0f} s', *faults[:20], sep='\n  ', flush=True)
  print(f'{total} inputs, {failed} faults')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
