"""A long-lived process of one side, spoken to by JSON lines over its stdin and stdout."""
import contextlib
import ctypes
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
          'from benchmarks import worker; worker.serve({side!r})')
_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')
_STATUS = pathlib.Path('/proc/self/status')
_PATIENCE_SECONDS = 1800
# For every side, as in launch/local.sh.
_LARGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}

Ask = Callable[..., dict[str, Any]]
Ops = Mapping[str, Callable[..., tuple[dict[str, Any], dict[str, 'Program'] | None]]]


class WorkerError(ValueError):
  """A side could not do what it was asked; the message is a sentence."""


class Program(NamedTuple):
  """What is timed: `call` starts it once, `wait` returns when all calls are done."""
  call: Callable[[], Any]
  wait: Callable[[], Any] = lambda: None


@contextlib.contextmanager
def started(side: str, python: str = sys.executable) -> Iterator[Ask]:
  """Starts a process of 'spinejax', 'torch' or 'plain'; yields `ask(op, **request) -> reply`.

  `ask` raises WorkerError where the operation fails or the process has ended. A process that does
  not answer within half an hour is ended.

  Args:
    side: the module `<side>_side` serves.
    python: its interpreter, which needs what the side imports and nothing else.
  """
  with tempfile.TemporaryFile('w+') as log:
    try:
      process: Any = subprocess.Popen(
          [python, '-c', _START.format(root=_ROOT, side=side)], text=True, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE, stderr=log, env={**_LARGE_PAGES, **os.environ})
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
  """Answers requests until stdin ends; whatever libraries print goes to stderr."""
  channel = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  try:
    answer = create_answer(load_ops(side))
  except ImportError as error:
    reply = {'error': f'{sys.executable} cannot import what the side of {side} needs ({error}).'}
    answer = lambda request: reply
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), file=channel, flush=True)


def load_ops(side: str) -> Ops:
  """What a side can do, its libraries configured."""
  if side == 'torch':
    from benchmarks import torch_side
    return torch_side.OPS
  if side == 'plain':
    from benchmarks import plain_side
    plain_side.configure()
    return plain_side.OPS
  from benchmarks import spinejax_side
  spinejax_side.configure()
  from benchmarks import curves
  from benchmarks import pieces
  return {**spinejax_side.OPS, **pieces.OPS, **curves.OPS}


def create_answer(ops: Ops) -> Callable[[dict[str, Any]], dict[str, Any]]:
  """`answer(request) -> reply`, which keeps the programs of the last request that built any.

  A request is {"op": one of `ops`, "run" or "memory", ...}, a reply what that returns or {"error":
  a sentence}. Operations return their reply and programs by name, or None; "run" then times one.
  """
  programs: dict[str, Program] = {}
  before = memory()

  def answer(request):
    nonlocal programs
    op, rest = request['op'], {key: request[key] for key in request if key != 'op'}
    try:
      if op == 'run':
        return run(programs[rest.pop('name')], **rest)
      if op == 'memory':
        return {'peak_bytes': max(memory() - before, 0)}
      reply, built = ops[op](**rest)
    except Exception as error:  # anything may go wrong in a benchmark; the next row is tried
      lines = (str(error).strip() or type(error).__name__).splitlines()
      return {'error': ' '.join(line.strip()[:300] for line in lines[:2])}
    if built is not None:
      programs = built
      _forget_peak()
    return reply

  return answer


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
  """Gives back what building took, and starts to look for the peak anew."""
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text('5')
