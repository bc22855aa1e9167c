"""Several processes that train together, one per machine or per GPU."""
import contextlib
import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Iterator

from absl import logging

from spinejax import interrupts, runs

_HEARTBEAT_SECONDS = 30  # a process that is silent for so long counts as ended
_LINGER_SECONDS = 5  # process 0 waits so long after an error, so that the others report theirs
_WAIT_SECONDS = 7 * 24 * 3600  # finished processes wait so long for process 0 to test


@contextlib.contextmanager
def joined_processes(coordinator: str | None = None, num_processes: int | None = None,
                     process_id: int | None = None) -> Iterator[None]:
  """Joins this process to the others of the same command. If one process fails, all exit.

  A failing process exits at once with status 1. The others wait for it, notice and exit as well;
  each prints why. A process that is done waits for the others. Without `coordinator`, HOST:PORT of
  process 0, the arguments are detected on Slurm, Open MPI, Cloud TPU and GKE.

  Raises:
    ValueError: no known cluster and an argument is missing, or process 0 cannot be reached.
  """
  import jax

  faulthandler.disable()  # JAX aborts a process that lost process 0; its stack does not help
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id,
                               heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
  except (ValueError, RuntimeError) as error:
    raise ValueError(
        f'the processes could not be joined ({runs.first_line(error)}); outside of Slurm, Open '
        'MPI, Cloud TPU and GKE give --coordinator=HOST:PORT, --num_processes and --process_id.'
    ) from error
  from orbax.checkpoint import multihost

  name = f'process {jax.process_index()} of {jax.process_count()}'
  linger = 0.0 if jax.process_index() else _LINGER_SECONDS
  try:
    yield
    multihost.sync_global_processes('done', timeout=_WAIT_SECONDS,
                                    processes=set(range(jax.process_count())))
  except interrupts.Interrupted:
    raise
  except KeyboardInterrupt:
    _exit(f'{name} was interrupted.', interrupts.EXIT_STATUS)
  except (ValueError, OSError) as error:
    logging.debug('traceback of the error below', exc_info=True)
    _exit(f'error: {error}', 1, linger)
  except jax.errors.JaxRuntimeError as error:
    logging.debug('traceback of the error below', exc_info=True)
    _exit(f'error: {name} stopped because another process ended or a device failed '
          f'({runs.first_line(error)}); run the same command on all of them to resume.', 1)
  except Exception:  # an error of ours: a regular exit would wait for the others
    _exit(f'{traceback.format_exc()}error: {name} failed.', 1, linger)


def _exit(message: str, status: int, linger: float = 0.0) -> None:
  """Ends the process without waiting for the others, as a regular exit would."""
  sys.stdout.flush()
  print(message, file=sys.stderr, flush=True)
  time.sleep(linger)
  os._exit(status)
