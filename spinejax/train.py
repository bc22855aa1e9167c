"""The training loop and its periods."""
import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from rich.console import Console

from spinejax import checkpoints
from spinejax import cli
from spinejax import evaluate
from spinejax import logs
from spinejax import optimizers
from spinejax import runs
from spinejax import steps
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.losses import create_loss, needs_cells
from spinejax.metrics import segmentation
from spinejax.models import create_model


def train_and_evaluate(config: ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains (or resumes), tests the best checkpoint, writes the report; returns the test metrics."""
  train(config, workdir)
  return evaluate.evaluate(config, workdir)


def train(config: ConfigDict, workdir: str) -> steps.TrainState:
  """Trains to the last step of the config, resuming what `workdir` holds; returns the state.

  Order: claim the run folder, load the data, restore, then step. Every `eval_every` steps, at the
  end and on Ctrl-C or SIGTERM the validation cases are scored and a checkpoint is written. Step k
  is a pure function of (config, data, k): N steps equal N/2 steps, a restore and N/2 steps, to the
  bit.

  Raises:
    ValueError: a fault in config or data, or too many non-finite steps in a row.
    OSError: the run folder cannot be written.
    cli.Interrupted: stopped by a signal, after saving.
  """
  console = Console()
  runs.claim(workdir, 'config', config)
  run = create_run(config, console)
  runs.claim(workdir, 'dataset', run.info)
  runs.record_start(workdir)
  state = run.state
  with contextlib.closing(checkpoints.create_manager(workdir)) as manager:
    if manager.latest_step() is not None:
      state = checkpoints.restore_state(manager, state)
      console.print(f'Resuming {workdir} after step {int(state.step)}.', highlight=False)
    if int(state.step) >= run.num_steps:
      console.print(f'{workdir} is trained to its last step, {run.num_steps}.', highlight=False)
      return state
    save = functools.partial(
        checkpoints.save, manager, config=runs.plain(config), dataset=runs.plain(run.info))
    log = logs.MetricsLog(workdir, int(state.step))
    with contextlib.closing(log), _stop_requested() as stop_requested:
      return _loop(config, run, state, log, save, stop_requested, console)
