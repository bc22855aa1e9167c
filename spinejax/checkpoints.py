"""Checkpoints of a run with Orbax: the last two and the best one, written atomically.

Each checkpoint has four items, so that inference restores only what it needs:
  variables      {params, batch_stats} for inference (the moving average if the run keeps one)
  training       {step, skipped, opt_state}; with a moving average also the raw variables
  data, config   dataset.json and config.json of the run
digests.json holds the SHA-256 of every file and reveals damaged files.
"""
import contextlib
import hashlib
import json
import logging
import math
import operator
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp

from spinejax import runs
from spinejax.steps import TrainState

Manager: TypeAlias = ocp.CheckpointManager
_SCORE = 'score'
_DIGESTS = 'digests.json'
_SPARE_BYTES = 2 ** 20  # free space to leave for the metadata of a checkpoint
_MAX_DIFFERENCES = 20  # arrays named in an error


def create_manager(workdir: str) -> Manager:
  """Opens `workdir/checkpoints` and removes leftovers of killed saves.

  With several processes all must open it, save and restore together. Raises OSError where the
  folder cannot be opened.
  """
  _silence_orbax()
  policies, get_score = ocp.checkpoint_managers, operator.itemgetter(_SCORE)
  options = ocp.CheckpointManagerOptions(
      best_fn=get_score, best_mode='max', preservation_policy=policies.AnyPreservationPolicy([
          policies.LatestN(2), policies.BestN(get_metric_fn=get_score, n=1,
                                              keep_checkpoints_without_metrics=False)]),
      cleanup_tmp_directories=True, enable_async_checkpointing=False)
  arrays, values = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
  folder = _folder(workdir)
  if folder.exists() and not folder.is_dir():
    raise OSError(f'the checkpoints in {folder} cannot be opened (it is a file).')
  try:
    return Manager(folder, options=options, item_handlers={
        'variables': arrays(), 'training': arrays(), 'data': values(), 'config': values()})
  except Exception as error:  # Orbax raises many kinds for damaged scores
    raise OSError(f'the checkpoints in {folder} cannot be opened ({runs.first_line(error)}).'
                  ) from error


def set_aside_damaged(workdir: str) -> list[str]:
  """Renames each damaged checkpoint to STEP.damaged; returns one sentence for each.

  Only one process may call this. Raises ValueError, and renames none, if all are damaged.
  """
  folder = _folder(workdir)
  steps = _saved_steps(folder)
  damages = {step: damage for step in steps if (damage := _find_damage(folder / str(step)))}
  if damages and len(damages) == len(steps):
    raise ValueError(f'all checkpoints in {folder} are damaged (that of step {steps[-1]}: '
                     f'{damages[steps[-1]]}); choose another --workdir to start again.')
  for step in damages:
    aside = folder / f'{step}.damaged'
    shutil.rmtree(aside, ignore_errors=True)
    (folder / str(step)).rename(aside)
  return [f'The checkpoint of step {step} is damaged ({damage}). It was renamed to '
          f'{folder / str(step)}.damaged.' for step, damage in damages.items()]


def save(manager: Manager, state: TrainState, *, config: Mapping[str, Any],
         dataset: Mapping[str, Any], score: float | None) -> None:
  """Saves `state` at its step. A checkpoint whose `score` is None is never the best one.

  Raises OSError where the disk is full or cannot be written; earlier checkpoints stay valid.
  """
  step, items = int(state.step), _items(state)
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
  free = shutil.disk_usage(manager.directory).free
  try:
    if free < needed + _SPARE_BYTES:  # the threads of Orbax would print long errors
      raise OSError(f'{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free')
    manager.save(
        step, force=True, metrics=None if score is None else {_SCORE: score},
        args=ocp.args.Composite(
            **{name: ocp.args.StandardSave(item) for name, item in items.items()},
            data=ocp.args.JsonSave(runs.plain(dataset)),
            config=ocp.args.JsonSave(runs.plain(config))))
    manager.wait_until_finished()
    if jax.process_index() == 0:
      checkpoint = pathlib.Path(manager.directory) / str(step)
      runs.write_json(checkpoint / _DIGESTS, _digest_files(checkpoint))
  except Exception as error:  # Orbax and TensorStore raise many kinds
    raise OSError(
        f'the checkpoint of step {step} could not be written to {manager.directory} '
        f'({runs.first_line(error)}); earlier checkpoints are intact: make room and run the same '
        'command to resume.') from error


def restore_state(manager: Manager, template: TrainState) -> TrainState:
  """Restores the last checkpoint with the shapes, dtypes and shardings of `template`."""
  checkpoint = pathlib.Path(manager.directory) / str(manager.latest_step())
  variables, training = _restore(checkpoint, _items(template)).values()
  raw = training.pop('raw', variables)
  return TrainState(params=raw['params'], batch_stats=raw['batch_stats'],
                    ema=None if template.ema is None else variables, **training)


def restore_variables(workdir: str, template: Mapping[str, Any], *, which: str = 'best'
                      ) -> tuple[dict[str, Any], int]:
  """Restores {params, batch_stats} from the 'best' or 'last' checkpoint; also returns its step.

  The best checkpoint has the highest score; without scores it is the last one. If it is damaged,
  the next one is restored and a line on the terminal says so.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the checkpoint does not fit the template, or all are damaged.
  """
  folder = _folder(workdir)
  steps = _saved_steps(folder)
  if not steps:
    raise FileNotFoundError(f'{workdir} has no complete checkpoint; train first with spinejax '
                            f'train --config=... --workdir={workdir}.')
  if which == 'best':
    steps = sorted(steps, key=lambda step: (_read_score(folder / str(step)), step))
  errors = []
  for step in reversed(steps):
    checkpoint = folder / str(step)
    try:
      if damage := _find_damage(checkpoint, ('variables', 'metrics')):
        raise _DamagedError(f'the checkpoint {checkpoint} is damaged or incomplete ({damage}).')
      variables = _restore(checkpoint, {'variables': template}, alone=True)['variables']
    except _DamagedError as error:
      errors.append(error)
      continue
    if errors:
      print(f'{errors[0]} The checkpoint of step {step} is restored instead.', file=sys.stderr)
    return variables, step
  raise errors[0]


class _DamagedError(ValueError):
  """A checkpoint cannot be read; another one may be intact."""


def _folder(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
  """The arrays of a state by item of its checkpoint."""
  training = {'step': state.step, 'skipped': state.skipped, 'opt_state': state.opt_state}
  if state.ema is not None:
    training['raw'] = {'params': state.params, 'batch_stats': state.batch_stats}
  return {'variables': state.variables, 'training': training}


def _saved_steps(folder: pathlib.Path) -> list[int]:
  """Steps of the complete checkpoints, ascending."""
  return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _read_score(checkpoint: pathlib.Path) -> float:
  """The score of a checkpoint; -inf without one."""
  try:
    return float(json.loads((checkpoint / 'metrics' / 'metrics').read_bytes())[_SCORE])
  except (OSError, ValueError, TypeError, LookupError):
    return -math.inf


def _digest_files(checkpoint: pathlib.Path, items: Sequence[str] = ()) -> dict[str, str]:
  """{path: SHA-256} of every file of a checkpoint, or of some of its items."""
  digests = {}
  for path in sorted(checkpoint.rglob('*')):
    name = path.relative_to(checkpoint)
    if path.is_file() and path.name != _DIGESTS and (not items or name.parts[0] in items):
      with path.open('rb') as file:
        digests[name.as_posix()] = hashlib.file_digest(file, 'sha256').hexdigest()
  return digests


def _find_damage(checkpoint: pathlib.Path, items: Sequence[str] = ()) -> str:
  """The first fault in the files of a checkpoint, or of some of its items; '' if none.

  A checkpoint without digests counts as good: its process was killed between the save, which is
  atomic, and the digests.
  """
  path = checkpoint / _DIGESTS
  if not path.exists():
    return ''
  try:
    saved = {name: digest for name, digest in dict(runs.read_json(path)).items()
             if not items or name.split('/')[0] in items}
    found = _digest_files(checkpoint, items)
  except (OSError, ValueError, TypeError) as error:
    return runs.first_line(error).rstrip('.')
  for name in sorted(saved.keys() | found.keys()):
    if name not in found:
      return f'{name} is missing'
    if saved.get(name) != found[name]:
      return f'{name} is not what was saved'
  return ''


def _restore(checkpoint: pathlib.Path, templates: Mapping[str, Any], *, alone: bool = False
             ) -> dict[str, Any]:
  """Restores items of a checkpoint after comparing path, shape and dtype of every array.

  With several processes all restore together, or one restores `alone`.
  """
  _silence_orbax()
  options = ocp.options.MultiprocessingOptions()
  if alone and jax.process_count() > 1:
    options = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()})
  differences: list[str] = []
  restored: dict[str, Any] = {}
  try:
    with contextlib.closing(ocp.Checkpointer(
        ocp.StandardCheckpointHandler(multiprocessing_options=options),
        multiprocessing_options=options)) as reader:
      for name, template in templates.items():
        saved = reader.metadata(checkpoint / name).item_metadata
        differences += _differences(saved, template, name)
      for name, template in templates.items() if not differences else ():
        restored[name] = reader.restore(
            checkpoint / name, args=ocp.args.StandardRestore(template))
  except Exception as error:  # Orbax and TensorStore raise many kinds
    raise _DamagedError(f'the checkpoint {checkpoint} is damaged or incomplete '
                        f'({runs.first_line(error)}); delete that folder to fall back to an '
                        'earlier checkpoint.') from error
  if differences:
    more = len(differences) - _MAX_DIFFERENCES
    shown = differences[:_MAX_DIFFERENCES] + [f'... and {more} more'] * (more > 0)
    raise ValueError(f'the checkpoint {checkpoint} does not fit this model; differing arrays:\n  '
                     + '\n  '.join(shown))
  return restored


def _differences(saved: Any, template: Any, item: str) -> Iterator[str]:
  """One line for each array that is missing, unexpected, or of another shape or dtype."""
  if saved is None:
    yield f'{item}: nothing was saved'
    return
  have, want = _describe_arrays(saved), _describe_arrays(template)
  for path in sorted(have.keys() | want.keys()):
    if path not in have:
      yield f'{item}/{path}: missing in the checkpoint, the model has {want[path]}'
    elif path not in want:
      yield f'{item}/{path}: {have[path]} in the checkpoint, the model has none'
    elif have[path] != want[path]:
      yield f'{item}/{path}: {have[path]} in the checkpoint, {want[path]} in the model'


def _describe_arrays(tree: Any) -> dict[str, str]:
  """{path: 'dtype[shape]'} of the arrays in a tree or in Orbax's metadata of one."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(getattr(tree, 'tree', tree))
  return {jax.tree_util.keystr(path, simple=True, separator='/'):
          f'{np.dtype(leaf.dtype)}[{",".join(map(str, leaf.shape))}]' for path, leaf in leaves}


def _silence_orbax() -> None:
  """Removes the log of Orbax from the terminal; its failures are raised as exceptions too."""
  logging.getLogger('absl').addFilter(_is_not_from_orbax)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname
