"""Training: set-up of a run, the training loop, validation and checkpoints."""
import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
from rich.console import Console

from spinejax import checkpoints, interrupts, logs, optimizers, runs, steps
from spinejax.config import check_config
from spinejax.data import augment, batches, datasets, examples
from spinejax.losses import create_loss, needs_cells
from spinejax.metrics import segmentation
from spinejax.models import create_model, pretrained


@dataclasses.dataclass(frozen=True)
class Validation:
  """Validation cases in batches, and the compiled `steps.eval_step` that scores them.

  A batch has what the loss reads and `valid` [N], which is 0 where the last batch is padded.
  """
  num_cases: int
  batches: tuple[Mapping[str, np.ndarray], ...]
  step: jax.stages.Wrapped
  mesh: jax.sharding.Mesh
  classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a config and its data fix before the first step.

  `dataset` is the content of dataset.json, `num_steps` the number of the last step, `state` the
  state at step 0, `train_step` the compiled `steps.train_step`, which takes `key` and donates the
  state. `summary` is a line for the terminal.
  """
  dataset: dict[str, Any]
  num_steps: int
  state: steps.TrainState
  feed: batches.Feed
  train_step: Callable
  key: jax.Array
  mesh: jax.sharding.Mesh
  validation: Validation | None
  learning_rate: optax.Schedule
  summary: str


def train(config: ConfigDict, workdir: str) -> steps.TrainState:
  """Trains to the last step of the config, or resumes the run in `workdir`; returns the state.

  Every `eval_every` steps and at the end the validation cases are scored and a checkpoint is
  written; Ctrl-C and SIGTERM also write one. Step k is a pure function of the config, the data and
  k, so resuming is exact. An error before the first step leaves no run in `workdir`. With
  `init_from` the number of steps may be 0, which saves the imported network as it is.

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
        checkpoints.save(manager, state, config=config, dataset=setup.dataset, score=None)
      return state


def set_up(config: ConfigDict, console: Console) -> Setup:
  """Loads the data and builds model, optimizer and compiled steps of a config."""
  data, patch = config.data, tuple(config.data.patch_size)
  model, loss_fn = create_model(config.model), create_loss(config.loss)
  cases = datasets.load_dataset(data)
  with logs.progress_of('loading', len(cases['train']), console) as progress:
    feed = batches.create_feed(
        cases['train'], config, cells=needs_cells(config.loss), progress=progress.advance,
        process_index=jax.process_index(), process_count=jax.process_count())
  num_steps = config.num_steps or config.num_epochs * feed.steps_per_epoch
  tx = optimizers.create_optimizer(config.optimizer, num_steps)
  image_shape = (*patch, data.channels)
  devices = steps.training_devices(model, (config.batch_size, *image_shape))
  mesh = steps.create_mesh(
      config.batch_size, patch if config.data_parallel == 'mesh' else (), devices)
  init_key, train_key = jax.random.split(jax.random.key(config.seed))
  state = steps.create_train_state(
      init_key, model, tx, (1, *image_shape), ema=config.ema_decay > 0)
  normalize_fn = functools.partial(augment.normalize, mean=feed.mean, std=feed.std)
  train_step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=model, loss_fn=loss_fn, tx=tx, ema_decay=config.ema_decay,
      augment_fn=functools.partial(_augment, config=config.augment, patch_size=patch,
                                   normalize_fn=normalize_fn)), mesh, config.data_parallel)
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
      validation=_prepare_validation(config, cases['validation'], model, loss_fn, normalize_fn),
      learning_rate=optimizers.create_schedule(config.optimizer, num_steps), summary=summary)


def _augment(key: jax.Array, batch: steps.Batch, *, config: ConfigDict, patch_size: tuple[int, ...],
             normalize_fn: Callable) -> dict[str, jax.Array]:
  """Augments a batch of gray levels and normalizes its images."""
  batch = augment.augment(key, dict(batch), config, patch_size)
  return {**batch, 'image': normalize_fn(batch['image'])}


def _prepare_validation(config: ConfigDict, cases: datasets.Source, model: nn.Module,
                        loss_fn: Callable, normalize_fn: Callable) -> Validation | None:
  if not len(cases):
    return None
  size = -(-config.eval_batch_size // jax.process_count()) * jax.process_count()
  mesh = steps.create_mesh(size, config.data.image_size)
  prepared = [examples.prepare_case(cases[i], config.data, cells=needs_cells(config.loss))
              for i in range(len(cases))]
  step = steps.parallelize_eval_step(functools.partial(
      steps.eval_step, model=model, loss_fn=loss_fn, normalize_fn=normalize_fn,
      num_classes=config.model.num_classes, mesh=mesh), mesh)
  padded = tuple(_padded_batch(prepared[start:start + size], size)
                 for start in range(0, len(prepared), size))
  return Validation(len(prepared), padded, step, mesh, tuple(config.data.classes))


def _padded_batch(cases: list[dict[str, np.ndarray]], size: int) -> dict[str, np.ndarray]:
  """Stacks the cases and repeats the first one up to `size`; `valid` is 0 for the repeats."""
  rows = cases + cases[:1] * (size - len(cases))
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  return {**batch, 'label': batch['label'].astype(np.int32),
          'valid': (np.arange(size) < len(cases)).astype(np.float32)}


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


class _PhaseClock:
  """Adds up the seconds of each phase of training."""

  def __init__(self):
    self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
    self._since = time.perf_counter()

  def stop(self, phase: str) -> None:
    """Adds the time since the last call to `phase`."""
    now = time.perf_counter()
    self.seconds[phase] += now - self._since
    self._since = now


def train_loop(config: ConfigDict, workdir: str, setup: Setup, state: steps.TrainState,
               manager: checkpoints.Manager, console: Console) -> steps.TrainState:
  """Trains from `state.step` to the last step; logs, validates and saves on the way."""
  is_first, first_step = jax.process_index() == 0, int(state.step) + 1
  window: list[dict[str, jax.Array]] = []
  clock = _PhaseClock()
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
        checkpoints.save(manager, state, config=config, dataset=setup.dataset, score=score)
        clock.stop('checkpoints')
        if is_first:
          runs.add_durations(workdir, clock.seconds)
        clock.seconds.clear()
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
  """Writes the means over the finite ones of the latest steps; `skipped` is that of the last step.

  Raises ValueError after too many non-finite steps in a row.
  """
  window = jax.device_get(window)
  columns = {name: np.array([metrics[name] for metrics in window], np.float64)
             for name in window[0]}
  skipped = columns.pop('skipped')[-1]
  finite = np.isfinite(columns['loss']) & np.isfinite(columns['grad_norm'])
  values = {name: float(np.mean(column[finite])) if finite.any() else math.nan
            for name, column in columns.items()}
  values |= {'skipped': float(skipped), 'learning_rate': float(setup.learning_rate(step - 1)),
             'images_per_second': len(window) * config.batch_size / seconds}
  log.write(step, 'train', values)
  progress.note(f'step {step}/{setup.num_steps}  loss {values["loss"]:.4f}  '
                f'{values["images_per_second"]:.1f} images/s')
  if skipped >= config.max_skipped_steps > 0:
    raise ValueError(
        f'loss or gradient was not finite in {skipped:.0f} steps in a row up to step '
        f'{step} (cases {", ".join(setup.feed.names_at(step - 1))}); look at these images or lower '
        'config.optimizer.learning_rate. The last checkpoint is from before.')


def _validate(config: ConfigDict, setup: Setup, step: int, state: steps.TrainState,
              log: logs.MetricsLog, progress: logs.Progress) -> float | None:
  """Scores the validation cases at the network's size; the best checkpoint has the highest score.

  The score is the mean foreground Dice or the negative loss, and the step without cases.
  """
  validation = setup.validation
  if validation is None:
    return float(step)
  variables = steps.place(state.variables, steps.replicated(validation.mesh))
  outputs = [jax.device_get(validation.step(
      variables, steps.place(batch, steps.batched(validation.mesh))))
             for batch in validation.batches]
  losses, counts = (np.concatenate([output[name] for output in outputs])[:validation.num_cases]
                    for name in ('loss', 'counts'))
  per_image, _ = segmentation.summarize(counts.astype(np.int64), validation.classes)
  loss, dice = float(np.mean(losses)), per_image['dice']['mean_foreground']
  log.write(step, 'validation', {'loss': loss, 'epoch': step / setup.feed.steps_per_epoch, **{
      f'{metric}/{name}': value for metric in ('dice', 'iou', 'accuracy')
      for name, value in per_image[metric].items()}})
  shown = 'undefined' if dice is None else f'{dice:.3f} (mean of the foreground classes)'
  progress.note(f'step {step}/{setup.num_steps}  validation Dice {shown}')
  return -loss if config.evaluation.best == 'loss' else dice


def _require_same_run(config: ConfigDict, dataset: dict[str, Any]) -> None:
  """Raises ValueError where processes have different configs or data."""
  if jax.process_count() == 1:
    return
  text = json.dumps(runs.plain([config, dataset]), sort_keys=True)
  digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  if np.any(multihost_utils.process_allgather(digest) != digest):
    raise ValueError('the processes have different configs or data; start the same command, with '
                     'the same files, as each of them.')
