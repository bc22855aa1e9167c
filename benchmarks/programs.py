"""What is timed: programs, their time and the memory of their process. Needs no library."""
import contextlib
import ctypes
import dataclasses
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')
_STATUS = pathlib.Path('/proc/self/status')


def _wait_for_nothing() -> None:
  pass


@dataclasses.dataclass(frozen=True)
class Program:
  """Something to time.

  Attributes:
    call: starts it once.
    wait: returns when all calls have finished.
  """
  call: Callable[[], Any]
  wait: Callable[[], Any] = _wait_for_nothing


# Operations of a side by name. Each returns its reply and, if it builds programs, these by name.
Ops = Mapping[str, Callable[..., tuple[dict[str, Any], dict[str, Program] | None]]]


def run(program: Program, calls: int, warm: int = 0) -> dict[str, float]:
  """Seconds of wall time and of CPU time of all threads, per call, after `warm` untimed calls."""
  for _ in range(warm):
    program.call()
  program.wait()
  cpu, wall = time.process_time(), time.perf_counter()
  for _ in range(calls):
    program.call()
  program.wait()
  return {'wall': (time.perf_counter() - wall) / calls, 'cpu': (time.process_time() - cpu) / calls}


def peak_memory() -> int:
  """Peak memory of this process in bytes, on Linux since `reset_peak_memory`."""
  if _STATUS.exists():
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith('VmHWM')]
    return 1024 * int(lines[0].split()[1])
  unit = 1 if sys.platform == 'darwin' else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak_memory() -> None:
  """Returns unused memory to the system and resets the peak; does nothing where it cannot."""
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text('5')
