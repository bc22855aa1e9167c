"""A long-lived process of one side, spoken to by JSON lines over its stdin and stdout."""
import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

_ROOT = str(pathlib.Path(__file__).resolve().parents[2])
# The folder of spinejax goes last, so that another interpreter keeps its own packages.
_START = ('import sys; sys.path.append({root!r}); '
          'from spinejax.bench import worker; worker.serve({side!r})')
_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')
_STATUS = pathlib.Path('/proc/self/status')
_PATIENCE_SECONDS = 1800  # for an answer; then the process is ended

Ask = Callable[..., dict[str, Any]]


class WorkerError(Exception):
  """A side could not do what it was asked; the message is a sentence."""


class Program(NamedTuple):
  """What is timed: `call` starts it once, `wait` returns when all calls are done."""
  call: Callable[[], Any]
  wait: Callable[[], Any] = lambda: None


@contextlib.contextmanager
def started(side: str, python: str = sys.executable, **environment: str) -> Iterator[Ask]:
  """Starts a process of 'spinejax' or 'torch'; yields `ask(op, **request) -> reply`.

  `ask` raises WorkerError where the operation fails or the process has ended.

  Args:
    side: the module `<side>_side` serves.
    python: its interpreter, which needs what the side imports and nothing else.
    **environment: variables to add.
  """
  with tempfile.TemporaryFile('w+') as log:
    try:
      process: Any = subprocess.Popen(
          [python, '-c', _START.format(root=_ROOT, side=side)], text=True, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE, stderr=log, env={**os.environ, **environment})
    except OSError as error:
      raise WorkerError(f'{python} cannot be started ({error.strerror}).') from None

    def ask(op: str, **request: Any) -> dict[str, Any]:
      patience = threading.Timer(_PATIENCE_SECONDS, process.kill)
      patience.start()
      try:
        print(json.dumps({'op': op, **request}), file=process.stdin, flush=True)
        line = process.stdout.readline()
      except BrokenPipeError:
        line = ''
      finally:
        patience.cancel()
      if not line:
        log.seek(0)
        last = (log.read().strip().splitlines() or ['it said nothing'])[-1]
        raise WorkerError(f'the process of {side} ended with status {process.wait()} in {op!r} '
                          f'({last[:200]}).')
      reply = json.loads(line)
      if 'error' in reply:
        raise WorkerError(reply['error'])
      return reply

    try:
      yield ask
    finally:
      process.terminate()
      process.wait()
      for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
          pipe.close()


def serve(side: str) -> None:
  """Answers requests until stdin ends; whatever libraries print goes to stderr.

  A request is {"op": one of the side's OPS, or "run" or "memory", ...}, a reply what it returns or
  {"error": a sentence}. An operation returns its reply and the programs that "run" then times by
  name, or None if they stay.
  """
  channel = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  programs: dict[str, Program] = {}
  try:
    ops = _load_ops(side)
  except ImportError as error:
    ops, fault = {}, f'{sys.executable} cannot import what {side} needs ({error}).'
  before = memory()
  for line in sys.stdin:
    request = json.loads(line)
    op = request.pop('op')
    try:
      if not ops:
        raise ImportError(fault)
      if op == 'run':
        reply = run(programs[request.pop('name')], **request)
      elif op == 'memory':
        reply = {'peak_bytes': max(memory() - before, 0)}
      else:
        reply, built = ops[op](**request)
        if built is not None:
          programs = built
          _forget_peak()
    except Exception as error:  # anything may go wrong in a benchmark; the next row is tried
      text = (str(error).strip() or type(error).__name__).splitlines()
      reply = {'error': text[0][:300] + (' ' + text[1].strip()[:200] if text[1:] else '')}
    print(json.dumps(reply), file=channel, flush=True)


def _load_ops(side: str) -> Mapping[str, Callable]:
  if side == 'torch':
    from spinejax.bench import torch_side
    return torch_side.OPS
  from spinejax.bench import pieces
  from spinejax.bench import spinejax_side
  return {**spinejax_side.OPS, **pieces.OPS}


def run(program: Program, calls: int, warm: int = 0) -> dict[str, float]:
  """Seconds of wall and of CPU time of all threads, a call, after `warm` uncounted calls."""
  for _ in range(warm):
    program.call()
  program.wait()
  cpu, wall = time.process_time(), time.perf_counter()
  for _ in range(calls):
    program.call()
  program.wait()
  return {'wall': (time.perf_counter() - wall) / calls, 'cpu': (time.process_time() - cpu) / calls}


def memory() -> int:
  """Most bytes that this process held at once, since `_forget_peak` where that works (Linux)."""
  if _STATUS.exists():
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith('VmHWM')]
    return 1024 * int(lines[0].split()[1])
  unit = 1 if sys.platform == 'darwin' else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
  with contextlib.suppress(OSError):
    _CLEAR_REFS.write_text('5')
