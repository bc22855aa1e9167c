"""Checkpoints of a run with Orbax: the last and the best, written atomically.

Each step holds four items, so that inference restores only what it needs:
  variables   {params, batch_stats} that inference uses (the moving average where there is one)
  training    {step, skipped, opt_state} and, with a moving average, the raw {params, batch_stats}
  data, config   dataset.json and config.json of the run
"""
import contextlib
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from spinejax.steps import TrainState

Manager = ocp.CheckpointManager
_SCORE = 'score'
_SPARE_BYTES = 2 ** 20  # for metadata


def create_manager(workdir: str, *, alone: bool = False) -> Manager:
  """Opens `workdir/checkpoints`, keeping the last checkpoint and the best one by score.

  Of several processes all open it, save and restore together; with `alone` one does, to restore
  from a folder that is there.
  """
  policies = ocp.checkpoint_managers
  logging.getLogger('absl').addFilter(_is_worth_reading)
  own = {'multiprocessing_options': ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}),
         'create': False} if alone and jax.process_count() > 1 else {}
  options = ocp.CheckpointManagerOptions(
      best_fn=lambda metrics: metrics[_SCORE], best_mode='max',
      preservation_policy=policies.AnyPreservationPolicy([
          policies.LatestN(1),
          policies.BestN(get_metric_fn=lambda metrics: metrics[_SCORE], n=1,
                         keep_checkpoints_without_metrics=False)]),
      enable_async_checkpointing=False, **own)
  arrays, json = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
  return Manager(_folder(workdir), options=options, item_handlers={
      'variables': arrays(), 'training': arrays(), 'data': json(), 'config': json()})


def save(manager: Manager, state: TrainState, *, config: Mapping[str, Any],
         dataset: Mapping[str, Any], score: float | None) -> None:
  """Saves `state` at its step; `score` None marks a checkpoint that cannot be the best.

  Raises OSError with one sentence when the disk is full or not writable; the checkpoints written
  before stay valid.
  """
  step = int(state.step)
  items = {'variables': state.variables, 'training': _training_item(state)}
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
  free = shutil.disk_usage(manager.directory).free
  if free < needed + _SPARE_BYTES:  # before Orbax starts: its threads report a full disk at length
    cause = f'{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free'
    raise OSError(_not_saved(manager, step, cause))
  try:
    manager.save(
        step, force=True, metrics=None if score is None else {_SCORE: score},
        args=ocp.args.Composite(
            **{name: ocp.args.StandardSave(item) for name, item in items.items()},
            data=ocp.args.JsonSave(dict(dataset)),
            config=ocp.args.JsonSave(dict(config))))
    manager.wait_until_finished()
  except Exception as error:  # Orbax and TensorStore raise many kinds; the cause is in the text
    raise OSError(_not_saved(manager, step, _first_line(error))) from error


def restore_state(manager: Manager, template: TrainState) -> TrainState:
  """Restores the last checkpoint into the shapes, dtypes and shardings of `template`."""
  step = manager.latest_step()
  items = {'variables': template.variables, 'training': _training_item(template)}
  restored = _restore(manager, step, items)
  variables, training = restored['variables'], restored['training']
  raw = training.pop('raw', variables)
  return TrainState(params=raw['params'], batch_stats=raw['batch_stats'],
                    ema=None if template.ema is None else variables, **training)


def restore_variables(workdir: str, template: Mapping[str, Any], *, which: str = 'best'
                      ) -> tuple[dict[str, Any], int]:
  """Restores {params, batch_stats} for inference from the 'best' or 'last' checkpoint.

  The best has the highest validation score; without validation cases it is the last.

  Returns:
    The variables and the step they were saved at.
  """
  if not _folder(workdir).is_dir():
    raise FileNotFoundError(f'{workdir} has no checkpoint; train first with python -m '
                            f'spinejax.main --config=... --workdir={workdir}.')
  with contextlib.closing(create_manager(workdir, alone=True)) as manager:
    step = manager.best_step() if which == 'best' else None
    step = manager.latest_step() if step is None else step
    if step is None:
      raise FileNotFoundError(f'{workdir} has no complete checkpoint; train first.')
    return _restore(manager, step, {'variables': template})['variables'], step


def _folder(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def _training_item(state: TrainState) -> dict[str, Any]:
  item = {'step': state.step, 'skipped': state.skipped, 'opt_state': state.opt_state}
  if state.ema is not None:
    item['raw'] = {'params': state.params, 'batch_stats': state.batch_stats}
  return item


def _restore(manager: Manager, step: int, templates: Mapping[str, Any]) -> dict[str, Any]:
  """Restores items of one step after comparing every array's path, shape and dtype."""
  where = pathlib.Path(manager.directory) / str(step)
  try:
    saved = manager.item_metadata(step)
    faults = [fault for name, template in templates.items()
              for fault in _differences(saved[name], template, name)]
  except Exception as error:
    raise ValueError(_damaged(where, error)) from error
  if faults:
    shown = faults[:20] + [f'... and {len(faults) - 20} more'] * (len(faults) > 20)
    raise ValueError(f'the checkpoint {where} does not fit this model; differing arrays:\n  '
                     + '\n  '.join(shown))
  try:
    restored = manager.restore(step, args=ocp.args.Composite(
        **{name: ocp.args.StandardRestore(template) for name, template in templates.items()}))
  except Exception as error:
    raise ValueError(_damaged(where, error)) from error
  return {name: restored[name] for name in templates}


def _damaged(where: pathlib.Path, error: Exception) -> str:
  return (f'the checkpoint {where} is damaged or incomplete ({_first_line(error)}); delete that '
          'folder to fall back to an earlier checkpoint.')


def _differences(saved: Any, template: Any, item: str) -> Iterator[str]:
  """One line per array that is missing, unexpected, or of another shape or dtype."""
  if saved is None:
    yield f'{item}: nothing was saved'
    return
  have, want = _arrays(saved), _arrays(template)
  for path in sorted(have.keys() | want.keys()):
    if path not in have:
      yield f'{item}/{path}: missing in the checkpoint, the model has {_describe(want[path])}'
    elif path not in want:
      yield f'{item}/{path}: {_describe(have[path])} in the checkpoint, the model has none'
    elif have[path] != want[path]:
      yield (f'{item}/{path}: {_describe(have[path])} in the checkpoint, '
             f'{_describe(want[path])} in the model')


def _arrays(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
  tree = getattr(tree, 'tree', tree)
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(_key(entry) for entry in path): (tuple(leaf.shape), str(np.dtype(leaf.dtype)))
          for path, leaf in leaves}


def _key(entry: Any) -> str:
  for attribute in ('key', 'name', 'idx'):
    if hasattr(entry, attribute):
      return str(getattr(entry, attribute))
  return str(entry)


def _describe(array: tuple[tuple[int, ...], str]) -> str:
  shape, dtype = array
  return f'{dtype}[{",".join(map(str, shape))}]'


def _not_saved(manager: Manager, step: int, cause: str) -> str:
  return (f'the checkpoint of step {step} could not be written to {manager.directory} ({cause}); '
          'earlier checkpoints are intact: make room and run the same command to resume.')


def _first_line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]


def _is_worth_reading(record: logging.LogRecord) -> bool:
  """Keeps Orbax's log off the terminal: what goes wrong there comes as an exception too."""
  return 'orbax' not in record.pathname
