"""Training: set-up of a run, the training loop, validation and checkpoints."""
import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
from rich.console import Console

from spinejax import checkpoints
from spinejax import interrupts
from spinejax import logs
from spinejax import optimizers
from spinejax import runs
from spinejax import steps
from spinejax import validation as validation_lib
from spinejax.config import check_config
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.losses import create_loss, needs_cells
from spinejax.models import create_model
from spinejax.models import pretrained


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a config and its data fix before the first step.

  Attributes:
    dataset: content of dataset.json.
    num_steps: number of the last step.
    state: state at step 0, on the devices of `mesh`.
    feed: training batches by step.
    train_step: compiled `steps.train_step`; the state is donated.
    key: random key of the training steps.
    mesh: devices that train.
    validation: prepared validation cases, None without cases.
    learning_rate: schedule of the optimizer.
    summary: a line for the terminal.
  """
  dataset: dict[str, Any]
  num_steps: int
  state: steps.TrainState
  feed: batches.Feed
  train_step: Any
  key: jax.Array
  mesh: jax.sharding.Mesh
  validation: validation_lib.Validation | None
  learning_rate: optax.Schedule
  summary: str


def train(config: ConfigDict, workdir: str) -> steps.TrainState:
  """Trains to the last step of the config, or resumes the run in `workdir`; returns the state.

  An error before the first step leaves no run in `workdir`, so a corrected command can use it.
  Every `eval_every` steps and at the end the validation cases are scored and a checkpoint is
  written. Ctrl-C and SIGTERM also write one. Step k is a pure function of the config, the data and
  k: N steps give bitwise the same state as N/2 steps, a restore and N/2 steps. With `init_from` the
  number of steps may be 0, which saves the imported network as it is.

  Several processes share each batch and hold the same state. All write checkpoints; the first one
  writes everything else. A SIGTERM to one of them stops all after the same step.

  Raises:
    ValueError: an error in the config or the data, too many non-finite steps in a row, another
      process that trains in `workdir`, or only damaged checkpoints.
    OSError: the run folder cannot be written.
    interrupts.Interrupted: stopped by a signal, after saving.
  """
  started, is_first = time.perf_counter(), jax.process_index() == 0
  console = Console(quiet=not is_first)
  check_config(config)
  runs.open_folder(workdir, config)
  with runs.locked(workdir) if is_first else contextlib.nullcontext():
    for sentence in checkpoints.set_aside_damaged(workdir) if is_first else ():
      print(sentence, file=sys.stderr)
    setup = set_up(config, console)
    _require_same_run(config, setup.dataset)
    with contextlib.closing(checkpoints.create_manager(workdir)) as manager:
      is_new = manager.latest_step() is None
      state = import_weights(config, setup.state) if is_new else setup.state
      if is_first:
        runs.claim(workdir, 'config', config)
        runs.claim(workdir, 'dataset', setup.dataset)
        runs.record_start(workdir, num_parameters=optax.tree.size(state.params))
      console.print(setup.summary, highlight=False, soft_wrap=True)
      if not is_new:
        state = checkpoints.restore_state(manager, state)
        console.print(f'Resuming after step {int(state.step)}.', highlight=False)
      if int(state.step) < setup.num_steps:
        if is_first:
          runs.add_durations(workdir, {'start': time.perf_counter() - started})
        return train_loop(config, workdir, setup, state, manager, console)
      console.print(f'The run is at its last step, {setup.num_steps}: nothing left to train.')
      if is_new:
        _save(manager, state, config, setup, score=None)
      return state


def set_up(config: ConfigDict, console: Console) -> Setup:
  """Loads the data and builds model, optimizer and compiled steps of a config."""
  model, loss_fn = create_model(config.model), create_loss(config.loss)
  cases = datasets.load_dataset(config.data)
  with logs.progress_of('loading', len(cases['train']), console) as progress:
    feed = batches.create_feed(
        cases['train'], config, cells=needs_cells(config.loss), progress=progress.advance,
        process_index=jax.process_index(), process_count=jax.process_count())
  num_steps = config.num_steps or config.num_epochs * feed.steps_per_epoch
  tx = optimizers.create_optimizer(config.optimizer, num_steps)
  data, patch = config.data, tuple(config.data.patch_size)
  image_shape = (*patch, data.channels)
  devices = steps.training_devices(model, (config.batch_size, *image_shape))
  mesh = steps.create_mesh(
      config.batch_size, patch if config.data_parallel == 'mesh' else (), devices)
  init_key, train_key = jax.random.split(jax.random.key(config.seed))
  state = steps.create_train_state(
      init_key, model, tx, (1, *image_shape), ema=config.ema_decay > 0)
  train_step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=model, loss_fn=loss_fn, tx=tx, ema_decay=config.ema_decay,
      augment_fn=functools.partial(_augment, config=config.augment, patch_size=patch,
                                   mean=feed.mean, std=feed.std)),
      mesh, config.data_parallel)
  summary = (
      f'{config.model.name}, {optax.tree.size(state.params):,} parameters; '
      f'{len(cases["train"])} training, {len(cases["validation"])} validation, '
      f'{len(cases["test"])} test cases; {num_steps} steps of {config.batch_size} '
      f'({num_steps / feed.steps_per_epoch:.4g} epochs) on {mesh.size} of '
      f'{jax.device_count()} {jax.default_backend()} devices')
  return Setup(
      dataset={**datasets.describe(cases), 'mean': feed.mean, 'std': feed.std},
      num_steps=num_steps, state=steps.place(state, steps.replicated(mesh)), feed=feed,
      train_step=train_step, key=train_key, mesh=mesh,
      validation=validation_lib.prepare_validation(
          config, cases['validation'], model, loss_fn,
          functools.partial(augment.normalize, mean=feed.mean, std=feed.std)),
      learning_rate=optimizers.create_schedule(config.optimizer, num_steps), summary=summary)


def _augment(key: jax.Array, batch: steps.Batch, *, config: ConfigDict, patch_size: tuple[int, ...],
             mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, jax.Array]:
  """Augments a batch of gray levels and normalizes its images."""
  batch = augment.augment(key, dict(batch), config, patch_size)
  return {**batch, 'image': augment.normalize(batch['image'], mean, std)}


def import_weights(config: ConfigDict, state: steps.TrainState) -> steps.TrainState:
  """The state at step 0 with the weights of `config.init_from`, if there are some."""
  if not config.init_from:
    return state
  weights = pretrained.load_state_dict(config.init_from)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  imported = pretrained.initialize(variables, weights, tuple(config.init_parts))
  imported = jax.tree.map(lambda new, old: steps.place(new, old.sharding), imported, variables)
  average = None if state.ema is None else jax.tree.map(jnp.copy, imported)
  return state.replace(**imported, ema=average)


class PhaseClock:
  """Adds up the seconds of each phase of training."""

  def __init__(self):
    self._since, self._seconds = time.perf_counter(), {}

  def stop(self, phase: str) -> None:
    """Adds the time since the last call to `phase`."""
    now = time.perf_counter()
    self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._since
    self._since = now

  def take(self) -> dict[str, float]:
    """Seconds by phase since the last call."""
    seconds, self._seconds = self._seconds, {}
    return seconds


def train_loop(config: ConfigDict, workdir: str, setup: Setup, state: steps.TrainState,
               manager: checkpoints.Manager, console: Console) -> steps.TrainState:
  """Trains from `state.step` to the last step; logs, validates and saves on the way."""
  is_first, first_step = jax.process_index() == 0, int(state.step) + 1
  window: list[dict[str, jax.Array]] = []
  clock = PhaseClock()
  with (contextlib.closing(logs.MetricsLog(workdir, first_step - 1, writes=is_first)) as log,
        interrupts.stop_request(jax.process_count()) as stop_request,
        logs.progress_of('training', setup.num_steps, console, first_step - 1) as progress):
    progress.note('compiling the first step ...')
    window_start = time.perf_counter()
    for step in range(first_step, setup.num_steps + 1):
      batch = steps.join(setup.feed.batch_at(step - 1), setup.mesh)
      state, metrics = setup.train_step(state, batch, setup.key)
      window.append(metrics)
      progress.advance()
      if step == first_step:
        jax.block_until_ready(metrics)
        clock.stop('first step')
      is_last, stops = step == setup.num_steps, stop_request.reached(step)
      validates = step % config.eval_every == 0 or is_last
      if step % config.log_every == 0 or validates or stops:
        _log_window(config, setup, step, window, time.perf_counter() - window_start, log, progress)
        window, window_start = [], time.perf_counter()
      if validates or stops:
        clock.stop('training')
        score = _validate(config, setup, step, state, log, progress) if validates else None
        clock.stop('validation')
        _save(manager, state, config, setup, score)
        clock.stop('checkpoints')
        if is_first:
          runs.add_durations(workdir, clock.take())
        window_start = time.perf_counter()
      if stops and not is_last:
        raise interrupts.Interrupted(f'Stopped after step {step}; the state is saved and the same '
                                     'command resumes.')
  durations = runs.read_manifest(workdir)['durations'] if is_first else {}
  console.print('Seconds of ' + ', '.join(f'{phase} {seconds:.1f}' for phase, seconds
                                          in durations.items()) + '.', highlight=False)
  return state


def _log_window(config: ConfigDict, setup: Setup, step: int, window: list[dict[str, jax.Array]],
                seconds: float, log: logs.MetricsLog, progress: logs.Progress) -> None:
  """Writes the means of the latest steps; raises ValueError after too many non-finite ones."""
  values = _mean_of_finite(window)
  values |= {'learning_rate': float(setup.learning_rate(step - 1)),
             'images_per_second': len(window) * config.batch_size / seconds}
  log.write(step, 'train', values)
  progress.note(f'step {step}/{setup.num_steps}  loss {values["loss"]:.4f}  '
                f'{values["images_per_second"]:.1f} images/s')
  if values['skipped'] >= config.max_skipped_steps > 0:
    raise ValueError(
        f'loss or gradient was not finite in {values["skipped"]:.0f} steps in a row up to step '
        f'{step} (cases {", ".join(setup.feed.names_at(step - 1))}); look at these images or lower '
        'config.optimizer.learning_rate. The last checkpoint is from before.')


def _validate(config: ConfigDict, setup: Setup, step: int, state: steps.TrainState,
              log: logs.MetricsLog, progress: logs.Progress) -> float | None:
  """Scores the validation cases; returns what the best checkpoint has most of.

  That is the mean foreground Dice or the negative loss, and the step without validation cases.
  """
  if setup.validation is None:
    return float(step)
  scores = validation_lib.validate(setup.validation, state.variables)
  log.write(step, 'validation', scores)
  loss, dice = scores['loss'], scores['dice/mean_foreground']
  shown = 'undefined' if dice is None else f'{dice:.3f} (mean of the foreground classes)'
  progress.note(f'step {step}/{setup.num_steps}  validation Dice {shown}')
  return -loss if config.evaluation.best == 'loss' and loss is not None else dice


def _save(manager: checkpoints.Manager, state: steps.TrainState, config: ConfigDict, setup: Setup,
          score: float | None) -> None:
  checkpoints.save(manager, state, config=runs.plain(config), dataset=runs.plain(setup.dataset),
                   score=score)


def _require_same_run(config: ConfigDict, dataset: dict[str, Any]) -> None:
  """Raises ValueError where processes have different configs or data."""
  if jax.process_count() == 1:
    return
  text = json.dumps([runs.plain(config), runs.plain(dataset)], sort_keys=True)
  digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  if np.any(multihost_utils.process_allgather(digest) != digest):
    raise ValueError('the processes have different configs or data; start the same command, with '
                     'the same files, as each of them.')


def _mean_of_finite(window: list[dict[str, jax.Array]]) -> dict[str, float]:
  """Means over the finite steps of a window; `skipped` is the value of its last step."""
  window = jax.device_get(window)
  values = {name: np.array([metrics[name] for metrics in window], np.float64)
            for name in window[0]}
  skipped = values.pop('skipped')
  finite = np.isfinite(values['loss']) & np.isfinite(values['grad_norm'])
  means = {name: float(np.mean(value[finite])) if finite.any() else float('nan')
           for name, value in values.items()}
  return {**means, 'skipped': float(skipped[-1])}
