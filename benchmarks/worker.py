"""A process of one side, which answers requests as JSON lines over stdin and stdout."""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import programs as programs_lib
from benchmarks.programs import Ops, Program

_ROOT = str(pathlib.Path(__file__).resolve().parents[1])
# The root of the repository comes last, so that another interpreter keeps its own packages.
_START = ('import sys; sys.path.append({root!r}); '
          'from benchmarks import worker; worker.serve({side!r})')
_TIMEOUT_SECONDS = 1800  # of one request
_LARGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}  # for all sides, as launch/local.sh

Ask = Callable[..., dict[str, Any]]


class WorkerError(ValueError):
  """A side could not answer a request; the message is a sentence."""


@contextlib.contextmanager
def started(side: str, python: str = sys.executable) -> Iterator[Ask]:
  """Starts a process of a side and yields `ask(op, **request) -> reply`.

  `ask` raises WorkerError if the operation fails, if the process has ended, or if it does not
  answer within half an hour; it is then ended.

  Args:
    side: 'spinejax', 'torch' or 'plain', for the module `<side>_side`.
    python: interpreter of the process, which needs only the imports of that module.
  """
  with tempfile.TemporaryFile('w+') as log:
    try:
      process: Any = subprocess.Popen(
          [python, '-c', _START.format(root=_ROOT, side=side)], text=True, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE, stderr=log, env={**_LARGE_PAGES, **os.environ})
    except OSError as error:
      raise WorkerError(f'{python} cannot be started ({error.strerror}).') from None

    def ask(op: str, **request: Any) -> dict[str, Any]:
      timeout = threading.Timer(_TIMEOUT_SECONDS, process.kill)
      timeout.start()
      try:
        print(json.dumps({'op': op, **request}), file=process.stdin, flush=True)
        line = process.stdout.readline()
      except BrokenPipeError:
        line = ''
      finally:
        timeout.cancel()
      if not line:
        log.seek(0)
        last = (log.read().strip().splitlines() or ['it printed nothing'])[-1]
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
  """Answers requests until stdin ends. Other output of the process goes to stderr."""
  channel = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  try:
    answer = create_answer(load_ops(side))
  except ImportError as error:
    reply = {'error': f'{sys.executable} cannot import what the side of {side} needs ({error}).'}
    def answer(request):
      return reply
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), file=channel, flush=True)


def load_ops(side: str) -> Ops:
  """The operations of a side, after its libraries are configured."""
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
  """Returns `answer(request) -> reply`, which keeps the programs that were built last.

  A request is {"op": one of `ops`, "run" or "memory", ...}. "run" times a program by its `name`. A
  reply is what the operation returns, or {"error": a sentence}.
  """
  programs: dict[str, Program] = {}
  before = programs_lib.peak_memory()

  def answer(request: dict[str, Any]) -> dict[str, Any]:
    nonlocal programs
    op, rest = request['op'], {key: request[key] for key in request if key != 'op'}
    try:
      if op == 'run':
        return programs_lib.run(programs[rest.pop('name')], **rest)
      if op == 'memory':
        return {'peak_bytes': max(programs_lib.peak_memory() - before, 0)}
      reply, built = ops[op](**rest)
    except Exception as error:  # any error fails this row only
      lines = (str(error).strip() or type(error).__name__).splitlines()
      return {'error': ' '.join(line.strip()[:300] for line in lines[:2])}
    if built is not None:
      programs = built
      programs_lib.reset_peak_memory()
    return reply

  return answer
