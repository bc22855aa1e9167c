"""Checkpoints of a run with Orbax: the last two and the best, written atomically.

Each step holds four items, so that inference restores only what it needs:
  variables   {params, batch_stats} that inference uses (the moving average where there is one)
  training    {step, skipped, opt_state} and, with a moving average, the raw {params, batch_stats}
  data, config   dataset.json and config.json of the run
and digests.json, the SHA-256 of every file, by which a flipped bit is found.
"""
import contextlib
import hashlib
import json
import logging
import math
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
_SPARE_BYTES = 2 ** 20  # for metadata


def create_manager(workdir: str) -> Manager:
  """Opens `workdir/checkpoints`, keeping the last two checkpoints and the best one by score.

  Of several processes all open it, save and restore together. What killed saves left is removed.

  Raises:
    OSError: the folder cannot be opened.
  """
  policies = ocp.checkpoint_managers
  _silence_orbax()
  options = ocp.CheckpointManagerOptions(
      best_fn=lambda metrics: metrics[_SCORE], best_mode='max',
      preservation_policy=policies.AnyPreservationPolicy([
          policies.LatestN(2),
          policies.BestN(get_metric_fn=lambda metrics: metrics[_SCORE], n=1,
                         keep_checkpoints_without_metrics=False)]),
      cleanup_tmp_directories=True, enable_async_checkpointing=False)
  arrays, values = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
  folder = _folder(workdir)
  if folder.exists() and not folder.is_dir():
    raise OSError(f'the checkpoints in {folder} cannot be opened (it is a file).')
  try:
    return Manager(folder, options=options, item_handlers={
        'variables': arrays(), 'training': arrays(), 'data': values(), 'config': values()})
  except Exception as error:  # of many kinds, where the scores in it are damaged
    raise OSError(f'the checkpoints in {folder} cannot be opened ({_first_line(error)}).'
                  ) from error


def set_aside_damaged(workdir: str) -> list[str]:
  """Renames checkpoints whose files are not what was saved to STEP.damaged; for one process.

  Training goes on from the last one that is whole. A checkpoint without digests passes: it is of a
  process that was killed between the save, which is atomic, and its digests.

  Returns:
    One sentence per checkpoint that was set aside.

  Raises:
    ValueError: none is whole; nothing is renamed then.
  """
  folder = _folder(workdir)
  steps = _steps(folder)
  damages = {step: damage for step in steps if (damage := _find_damage(folder / str(step)))}
  if damages and len(damages) == len(steps):
    raise ValueError(f'no checkpoint in {folder} is whole (that of step {steps[-1]}: '
                     f'{damages[steps[-1]]}); choose another --workdir to start again.')
  for step in damages:
    aside = folder / f'{step}.damaged'
    shutil.rmtree(aside, ignore_errors=True)
    (folder / str(step)).rename(aside)
  return [f'The checkpoint of step {step} is damaged ({damage}) and was set aside as '
          f'{folder / str(step)}.damaged.' for step, damage in damages.items()]


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
    if jax.process_index() == 0:
      where = pathlib.Path(manager.directory) / str(step)
      runs.write_json(where / _DIGESTS, _digest_files(where))
  except Exception as error:  # Orbax and TensorStore raise many kinds; the cause is in the text
    raise OSError(_not_saved(manager, step, _first_line(error))) from error


def restore_state(manager: Manager, template: TrainState) -> TrainState:
  """Restores the last checkpoint into the shapes, dtypes and shardings of `template`."""
  where = pathlib.Path(manager.directory) / str(manager.latest_step())
  items = {'variables': template.variables, 'training': _training_item(template)}
  restored = _restore(where, items)
  variables, training = restored['variables'], restored['training']
  raw = training.pop('raw', variables)
  return TrainState(params=raw['params'], batch_stats=raw['batch_stats'],
                    ema=None if template.ema is None else variables, **training)


def restore_variables(workdir: str, template: Mapping[str, Any], *, which: str = 'best'
                      ) -> tuple[dict[str, Any], int]:
  """Restores {params, batch_stats} for inference from the 'best' or 'last' checkpoint.

  The best has the highest validation score; without validation cases it is the last. Where it is
  damaged the next one takes its place, and a line on the terminal says so.

  Returns:
    The variables and the step they were saved at.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it does not fit the template, or none is whole.
  """
  folder = _folder(workdir)
  if not folder.is_dir():
    raise FileNotFoundError(f'{workdir} has no checkpoint; train first with python -m '
                            f'spinejax.main --config=... --workdir={workdir}.')
  steps = _steps(folder)
  if which == 'best':
    steps = sorted(steps, key=lambda step: (_score_of(folder / str(step)), step))
  if not steps:
    raise FileNotFoundError(f'{workdir} has no complete checkpoint; train first.')
  faults = []
  for step in reversed(steps):
    where = folder / str(step)
    try:
      damage = _find_damage(where, ('variables', 'metrics'))
      if damage:
        raise _Damaged(f'the checkpoint {where} is damaged or incomplete ({damage}).')
      variables = _restore(where, {'variables': template}, alone=True)['variables']
    except _Damaged as error:
      faults.append(error)
      continue
    if faults:
      print(f'{faults[0]} That of step {step} is taken instead.', file=sys.stderr)
    return variables, step
  raise faults[0]


class _Damaged(ValueError):
  """A checkpoint that cannot be read; another one may be whole."""


def _folder(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def _training_item(state: TrainState) -> dict[str, Any]:
  item = {'step': state.step, 'skipped': state.skipped, 'opt_state': state.opt_state}
  if state.ema is not None:
    item['raw'] = {'params': state.params, 'batch_stats': state.batch_stats}
  return item


def _steps(folder: pathlib.Path) -> list[int]:
  """The steps that were saved completely, ascending."""
  return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _score_of(where: pathlib.Path) -> float:
  """The score of a checkpoint; the least of all where it has none."""
  try:
    return float(json.loads((where / 'metrics' / 'metrics').read_bytes())[_SCORE])
  except (OSError, ValueError, TypeError, LookupError):
    return -math.inf


def _digest_files(where: pathlib.Path, items: Sequence[str] = ()) -> dict[str, str]:
  """SHA-256 of every file of a step, or of some items, by its path in the folder of the step."""
  digests = {}
  for path in sorted(where.rglob('*')):
    name = path.relative_to(where)
    if path.is_file() and path.name != _DIGESTS and (not items or name.parts[0] in items):
      with path.open('rb') as file:
        digests[name.as_posix()] = hashlib.file_digest(file, 'sha256').hexdigest()
  return digests


def _find_damage(where: pathlib.Path, items: Sequence[str] = ()) -> str:
  """What is wrong with the files of a step, or of some items; '' if nothing."""
  path = where / _DIGESTS
  if not path.exists():
    return ''
  try:
    saved = {name: digest for name, digest in dict(runs.read_json(path)).items()
             if not items or name.split('/')[0] in items}
    found = _digest_files(where, items)
  except (OSError, ValueError, TypeError) as error:
    return _first_line(error).rstrip('.')
  different = sorted(name for name in saved.keys() | found.keys()
                     if saved.get(name) != found.get(name))
  if not different:
    return ''
  return f'{different[0]} ' + ('is missing' if different[0] not in found else
                               'is not what was saved')


def _restore(where: pathlib.Path, templates: Mapping[str, Any], *, alone: bool = False
             ) -> dict[str, Any]:
  """Restores items of one step after comparing every array's path, shape and dtype.

  Of several processes all restore together, or one does `alone`.
  """
  _silence_orbax()
  options = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
      ) if alone and jax.process_count() > 1 else ocp.options.MultiprocessingOptions()
  reader = lambda: contextlib.closing(ocp.Checkpointer(
      ocp.StandardCheckpointHandler(multiprocessing_options=options),
      multiprocessing_options=options))
  try:
    faults: list[str] = []
    for name, template in templates.items():
      with reader() as checkpointer:
        saved = checkpointer.metadata(where / name).item_metadata
      faults += _differences(saved, template, name)
  except Exception as error:
    raise _Damaged(_damaged(where, error)) from error
  if faults:
    shown = faults[:20] + [f'... and {len(faults) - 20} more'] * (len(faults) > 20)
    raise ValueError(f'the checkpoint {where} does not fit this model; differing arrays:\n  '
                     + '\n  '.join(shown))
  restored = {}
  try:
    for name, template in templates.items():
      with reader() as checkpointer:
        restored[name] = checkpointer.restore(
            where / name, args=ocp.args.StandardRestore(template))
  except Exception as error:
    raise _Damaged(_damaged(where, error)) from error
  return restored


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


def _silence_orbax() -> None:
  logging.getLogger('absl').addFilter(_is_worth_reading)


def _is_worth_reading(record: logging.LogRecord) -> bool:
  """Keeps Orbax's log off the terminal: what goes wrong there comes as an exception too."""
  return 'orbax' not in record.pathname
