"""The training loop and its periods."""
import contextlib
import functools
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
from rich.console import Console

from spinejax import checkpoints
from spinejax.commands import cli
from spinejax import evaluate
from spinejax.inference import predictor as inference
from spinejax import logs
from spinejax import optimizers
from spinejax import runs
from spinejax import steps
from spinejax.inference import styles
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.losses import create_loss, needs_cells
from spinejax.metrics import segmentation
from spinejax.models import create_model
from spinejax.models import pretrained


class Run(NamedTuple):
  """All that a config and its data fix before the first step.

  Attributes:
    info: what dataset.json holds.
    num_steps: the last step.
    state: the state at step 0, on the devices of the mesh.
    batch_at: `batch_at(step)`, the training batch of one step, on the devices.
    names_at: `names_at(step)`, the names of its cases.
    train_step: `train_step(state, batch) -> (state, metrics)`, compiled; the state is donated.
    validate: `validate(state) -> metrics`, empty without validation cases.
    learning_rate: `learning_rate(step)`.
    summary: a line for the terminal.
  """
  info: dict[str, Any]
  num_steps: int
  state: steps.TrainState
  batch_at: Callable[[int], steps.Batch]
  names_at: Callable[[int], list[str]]
  train_step: Callable[[steps.TrainState, steps.Batch], tuple]
  validate: Callable[[steps.TrainState], dict[str, float]]
  learning_rate: Callable[[int], Any]
  summary: str


def train_and_evaluate(config: ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains (or resumes), tests the best checkpoint, writes the report; returns the test metrics.

  Of several processes all train, and the first one tests; the others return nothing.
  """
  with _locked(config, workdir):
    _train(config, workdir)
    return {} if jax.process_index() else evaluate.evaluate(config, workdir)


def train(config: ConfigDict, workdir: str) -> steps.TrainState:
  """Trains to the last step of the config, resuming what `workdir` holds; returns the state.

  Order: open and lock the run folder, set damaged checkpoints aside, load data and model, import
  `config.init_from` into a fresh run, claim the folder, restore, then step; a fault before the
  claim leaves no run behind, so the corrected command is welcome. Every `eval_every` steps and at
  the end the validation cases are scored and a checkpoint is written; Ctrl-C and SIGTERM write one
  too. Step k is a pure function of (config, data, k): N steps equal N/2 steps, a restore and N/2
  steps, to the bit. With `init_from` the number of steps may be 0: the imported network is saved as
  it is, to be tested.

  Several processes share each batch and hold the same state; all write the checkpoints, the first
  one all else. A SIGTERM to any of them stops all after the same step.

  Raises:
    ValueError: a fault in config or data, too many non-finite steps in a row, another process
      training in the folder, or no checkpoint in it that is whole.
    OSError: the run folder cannot be written.
    cli.Interrupted: stopped by a signal, after saving.
  """
  with _locked(config, workdir):
    return _train(config, workdir)


@contextlib.contextmanager
def _locked(config: ConfigDict, workdir: str) -> Iterator[None]:
  """Opens the run folder; the first process holds it."""
  runs.open_folder(workdir, config)
  with runs.locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
    yield


def _train(config: ConfigDict, workdir: str) -> steps.TrainState:
  """`train` in a folder that is open."""
  started, first = time.perf_counter(), jax.process_index() == 0
  console = Console(quiet=not first)
  for sentence in checkpoints.set_aside_damaged(workdir) if first else ():
    print(sentence, file=sys.stderr)
  run = create_run(config, console)
  _require_agreement(config, run.info)
  with contextlib.closing(checkpoints.create_manager(workdir)) as manager:
    resuming = manager.latest_step() is not None
    state = run.state if resuming else _import_weights(config, run.state)
    if first:
      runs.claim(workdir, 'config', config)
      runs.claim(workdir, 'dataset', run.info)
      runs.record_start(workdir, num_parameters=optax.tree.size(state.params))
    console.print(run.summary, highlight=False, soft_wrap=True)
    if resuming:
      state = checkpoints.restore_state(manager, state)
      console.print(f'Resuming after step {int(state.step)}.', highlight=False)
    save = functools.partial(
        checkpoints.save, manager, config=runs.plain(config), dataset=runs.plain(run.info))
    if int(state.step) >= run.num_steps:
      console.print(f'The run is at its last step, {run.num_steps}: nothing left to train.')
      if not resuming:
        save(state, score=None)
      return state
    log = logs.MetricsLog(workdir, int(state.step), writes=first)
    record = functools.partial(runs.add_durations, workdir) if first else lambda seconds: None
    record({'start': time.perf_counter() - started})
    with contextlib.closing(log), _stop_requested() as stop_requested:
      state = _loop(config, run, state, log, save, stop_requested, console, record)
    durations = runs.read_manifest(workdir)['durations'] if first else {}
    console.print('Seconds of ' + ', '.join(f'{phase} {seconds:.1f}' for phase, seconds
                                            in durations.items()) + '.', highlight=False)
    return state


def create_run(config: ConfigDict, console: Console) -> Run:
  """Loads the data and builds model, optimizer and compiled steps of a config."""
  loss = create_loss(config.loss)
  model = create_model(config.model)
  styles.uses_style_transfer(config)
  inference.angle_options(config)
  if config.evaluation.best not in ('dice', 'loss'):
    raise ValueError("config.evaluation.best must be 'dice' or 'loss', "
                     f'not {config.evaluation.best!r}.')
  cases = datasets.load_dataset(config.data)
  with logs.progress_of('loading', len(cases['train']), console) as progress:
    feed = batches.create_feed(
        cases['train'], config, cells=needs_cells(config.loss), progress=progress.advance,
        process_index=jax.process_index(), process_count=jax.process_count())
  info = {**datasets.describe(cases), 'mean': feed.mean, 'std': feed.std}
  normalize = functools.partial(augment.normalize, mean=feed.mean, std=feed.std)
  num_steps = config.num_steps or config.num_epochs * feed.steps_per_epoch
  if num_steps <= 0 and not config.init_from:
    raise ValueError('config.num_steps or config.num_epochs must be above 0.')

  tx = optimizers.create_optimizer(config.optimizer, num_steps)
  shared = config.data.patch_size if config.data_parallel == 'mesh' else ()
  image_shape = (*config.data.patch_size, config.data.channels)
  devices = steps.training_devices(model, (config.batch_size, *image_shape))
  mesh = steps.create_mesh(config.batch_size, shared, devices)
  init_key, train_key = jax.random.split(jax.random.key(config.seed))
  state = steps.create_train_state(
      init_key, model, tx, (1, *image_shape), ema=config.ema_decay > 0)
  state = steps.place(state, steps.replicated(mesh))
  train_step = steps.parallelize_train_step(functools.partial(
      steps.train_step, model=model, loss_fn=loss, tx=tx, ema_decay=config.ema_decay,
      augment_fn=functools.partial(_augment, config=config, normalize=normalize)),
      mesh, config.data_parallel)
  validate = _create_validation(config, cases['validation'], model, loss, normalize)
  summary = (
      f'{config.model.name}, {optax.tree.size(state.params):,} parameters; '
      f'{len(cases["train"])} training, {len(cases["validation"])} validation, '
      f'{len(cases["test"])} test cases; {num_steps} steps of {config.batch_size} '
      f'({num_steps / feed.steps_per_epoch:.4g} epochs) on {mesh.size} of '
      f'{jax.device_count()} {jax.default_backend()} devices')
  batch_at = lambda step: steps.join(feed.batch_at(step), mesh)
  return Run(info, num_steps, state, batch_at, feed.names_at,
             lambda state, batch: train_step(state, batch, train_key), validate,
             optimizers.create_schedule(config.optimizer, num_steps), summary)


def _require_agreement(config: ConfigDict, info: dict[str, Any]) -> None:
  """Raises ValueError where processes have other configs or data than each other."""
  if jax.process_count() == 1:
    return
  text = json.dumps([runs.plain(config), runs.plain(info)], sort_keys=True)
  digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  if np.any(multihost_utils.process_allgather(digest) != digest):
    raise ValueError('the processes have different configs or data; start the same command, with '
                     'the same files, as each of them.')


def _import_weights(config: ConfigDict, state: steps.TrainState) -> steps.TrainState:
  """A state at step 0 with the weights of `config.init_from`, or as it is without."""
  if not config.init_from:
    return state
  weights = pretrained.load_state_dict(config.init_from)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  imported = pretrained.initialize(variables, weights, tuple(config.init_parts))
  imported = jax.tree.map(lambda new, old: steps.place(new, old.sharding), imported, variables)
  average = None if state.ema is None else jax.tree.map(jnp.copy, imported)
  return state.replace(**imported, ema=average)


def _loop(config: ConfigDict, run: Run, state: steps.TrainState, log: logs.MetricsLog,
          save: Callable, stop_requested: Callable[[int], bool], console: Console,
          record: Callable[[dict[str, float]], None]) -> steps.TrainState:
  """Steps from `state.step` to the last one, logging, validating and saving on the way.

  After each save `record(seconds by phase)` gets what each took since the last.
  """
  start, first_step = int(state.step), 0.0
  window, window_start = [], time.perf_counter()
  since = window_start
  with logs.progress_of('training', run.num_steps, console, start) as progress:
    progress.note('the first step is compiled ...')
    for step in range(start + 1, run.num_steps + 1):
      state, metrics = run.train_step(state, run.batch_at(step - 1))
      window.append(metrics)
      progress.advance()
      if step == start + 1:
        jax.block_until_ready(metrics)
        first_step = time.perf_counter() - since
      last, stop = step == run.num_steps, stop_requested(step)
      evaluating = step % config.eval_every == 0 or last
      if step % config.log_every == 0 or evaluating or stop:
        values = _mean_of(window)
        images = len(window) * config.batch_size
        values |= {'learning_rate': float(run.learning_rate(step - 1)),
                   'images_per_second': images / (time.perf_counter() - window_start)}
        log.write(step, 'train', values)
        progress.note(f'step {step}/{run.num_steps}  loss {values["loss"]:.4f}  '
                      f'{values["images_per_second"]:.1f} images/s')
        if values['skipped'] >= config.max_skipped_steps > 0:
          raise ValueError(
              f'loss or gradient was not finite in {values["skipped"]:.0f} steps in a row up to '
              f'step {step} (cases {", ".join(run.names_at(step - 1))}); look at these images or '
              'lower config.optimizer.learning_rate. The last checkpoint is from before.')
        window, window_start = [], time.perf_counter()
      if evaluating or stop:
        score, trained = None, time.perf_counter()
        if evaluating:
          validation = run.validate(state)
          score = _score(validation, config.evaluation.best) if validation else float(step)
          if validation:
            log.write(step, 'validation', validation)
            dice = validation['dice/mean_foreground']
            progress.note(f'step {step}/{run.num_steps}  validation Dice '
                          + ('undefined' if dice is None else f'{dice:.3f} (mean of foreground)'))
        validated = time.perf_counter()
        save(state, score=score)
        window_start = time.perf_counter()
        record({'first step': first_step, 'training': trained - since - first_step,
                'validation': validated - trained, 'checkpoints': window_start - validated})
        since, first_step = window_start, 0.0
      if stop and not last:
        raise cli.Interrupted(f'Stopped after step {step}; the state is saved, the same command '
                              'resumes.')
  return state


def _augment(key: jax.Array, batch: dict[str, jax.Array], *, config: ConfigDict,
             normalize: Callable) -> dict[str, jax.Array]:
  batch = augment.augment(key, batch, config.augment, tuple(config.data.patch_size))
  return {**batch, 'image': normalize(batch['image'])}


def _create_validation(config: ConfigDict, cases: datasets.Source, model, loss: Callable,
                       normalize: Callable) -> Callable[[steps.TrainState], dict[str, float]]:
  """`validate(state)`: loss and per-image metrics at the network's size, the batch padded."""
  if not len(cases):
    return lambda state: {}
  size = -(-config.eval_batch_size // jax.process_count()) * jax.process_count()
  mesh = steps.create_mesh(size, config.data.image_size)
  prepared = [batches.prepare_case(cases[i], config.data, cells=needs_cells(config.loss))
              for i in range(len(cases))]
  num_classes = config.model.num_classes
  eval_step = steps.parallelize_eval_step(functools.partial(
      steps.eval_step, model=model, loss_fn=loss, normalize_fn=normalize,
      num_classes=num_classes, mesh=mesh), mesh)
  classes = tuple(config.data.classes)

  def validate(state):
    losses, counts = [], []
    variables = steps.place(state.variables, steps.replicated(mesh))
    for start in range(0, len(prepared), size):
      chunk = prepared[start:start + size]
      padded = chunk + chunk[:1] * (size - len(chunk))
      batch = {name: np.stack([case[name] for case in padded]) for name in padded[0]}
      batch['label'] = batch['label'].astype(np.int32)
      batch['valid'] = np.array([1] * len(chunk) + [0] * (size - len(chunk)), np.float32)
      outputs = jax.device_get(eval_step(variables, steps.place(batch, steps.batched(mesh))))
      losses.extend(outputs['loss'][:len(chunk)])
      counts.extend(outputs['counts'][:len(chunk)])
    counts = np.asarray(counts, np.int64)
    table = segmentation.summarize(counts, counts[:, :, [0, 2]].sum((1, 2)), classes)['per_image']
    return {'loss': float(np.mean(losses)),
            **{f'{metric}/{name}': value for metric in ('dice', 'iou')
               for name, value in table[metric].items()}}

  return validate


def _score(validation: dict[str, float], best: str) -> float | None:
  """What the best checkpoint has most of: mean Dice of the bones, or less loss."""
  return -validation['loss'] if best == 'loss' else validation['dice/mean_foreground']


def _mean_of(window: list[dict[str, jax.Array]]) -> dict[str, float]:
  """Means over the finite steps of a window; `skipped` is that of its last step."""
  window = jax.device_get(window)
  values = {name: np.array([metrics[name] for metrics in window], np.float64)
            for name in window[0]}
  skipped = values.pop('skipped')
  finite = np.isfinite(values['loss']) & np.isfinite(values['grad_norm'])
  means = {name: float(np.mean(value[finite])) if finite.any() else float('nan')
           for name, value in values.items()}
  return {**means, 'skipped': float(skipped[-1])}


@contextlib.contextmanager
def _stop_requested() -> Iterator[Callable[[int], bool]]:
  """Turns the first Ctrl-C or SIGTERM into a request that the loop answers; a second one acts.

  Several processes agree on the step: JAX hears SIGTERM, and a Ctrl-C is passed on as one. Its
  handler would only note a SIGTERM that comes after training, so it is taken away then.
  """
  several = jax.process_count() > 1
  received: list[int] = []

  def request(number, frame):
    del frame
    if received:
      raise KeyboardInterrupt
    received.append(number)
    if several:
      os.kill(os.getpid(), signal.SIGTERM)

  signals = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
  try:
    previous = {number: signal.signal(number, request) for number in signals}
  except ValueError:  # not in the main thread (a notebook's worker): signals stay as they are
    previous = {}
  try:
    yield multihost_utils.reached_preemption_sync_point if several else lambda _: bool(received)
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    if several:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
