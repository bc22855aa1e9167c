"""Stopping a run by Ctrl-C or SIGTERM after the current step, with its state saved."""
import contextlib
import os
import signal
from collections.abc import Iterator

EXIT_STATUS = 130  # of a run that was stopped and has saved its state


class Interrupted(Exception):
  """A run was asked to stop and has saved its state; the message says where."""


class StopRequest:
  """Whether a signal asked this run to stop. Several processes agree on the step."""

  def __init__(self, several_processes: bool):
    self._several, self.received = several_processes, False

  def reached(self, step: int) -> bool:
    """Whether to stop after `step`; of several processes each must ask at every step."""
    if not self._several:
      return self.received
    from jax.experimental import multihost_utils
    return multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def stop_request(num_processes: int = 1) -> Iterator[StopRequest]:
  """Records the first Ctrl-C or SIGTERM instead of raising; a second one raises KeyboardInterrupt.

  With several processes JAX passes a SIGTERM on to all of them, and a Ctrl-C is sent on as one. JAX
  would ignore a SIGTERM after training, so its handler is removed at the end. Outside the main
  thread, as in a notebook's worker, signals are left as they are.
  """
  several = num_processes > 1
  request = StopRequest(several)

  def handle(number, frame):
    del number, frame
    if request.received:
      raise KeyboardInterrupt
    request.received = True
    if several:
      os.kill(os.getpid(), signal.SIGTERM)

  previous = {}
  with contextlib.suppress(ValueError):  # raised outside the main thread
    for number in (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM):
      previous[number] = signal.signal(number, handle)
  try:
    yield request
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    if several:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
