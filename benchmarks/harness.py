"""Rows of the benchmark: starts the sides, compares their results, and times them in turns."""
import contextlib
import dataclasses
import math
import os
import pathlib
import platform as system_information
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import systems
from benchmarks import worker
from benchmarks.facts import append_row, load_and_date, processor_name
from spinejax.version import __version__

Row = dict[str, Any]

# Largest relative difference from PyTorch: of the logits (as norms), and of the loss and the norm
# of the gradient of the first step. Compared at full precision, without TF32.
TOLERANCE = {'float32': 1e-3, 'bfloat16': 0.1}
_PROBE_SIZE = {'cpu': 2048, 'gpu': 8192}  # rows of the matrices whose product gives the peak
_TURN_SECONDS = 0.2  # the calls of a turn take at least this long together,
_MAX_CALLS = 50      # unless they are more than this
_WARM_SECONDS = 0.5  # a call that takes longer needs no untimed call before it
_BUILT = ('compile_seconds', 'peak_bytes', 'form', 'forms')  # facts of a build that a row keeps


@dataclasses.dataclass(frozen=True)
class Machine:
  """What all rows share.

  Attributes:
    platform: 'cpu' or 'gpu'.
    torch_python: interpreter of the PyTorch side; None: spinejax alone.
    note: why PyTorch is missing, if it was asked for.
    peaks: floating-point operations per second of a matrix product, of the faster side, by dtype.
    facts: entries of every row: device, versions, threads, cores.
  """
  platform: str
  torch_python: str | None
  note: str
  peaks: dict[str, float]
  facts: dict[str, Any]


def look_around(torch_python: str | None, probe_size: int | None = None) -> Machine:
  """Finds device, versions and peak of this machine.

  Args:
    torch_python: interpreter of the PyTorch side; None: spinejax alone. If it has no PyTorch, the
      result has None too, and a note.
    probe_size: rows of the matrices whose product gives the peak.
  """
  found, rates, note = {}, {}, ''
  with worker.started('spinejax') as ask:
    ours = found['spinejax'] = ask('describe')
    size = probe_size or _PROBE_SIZE[ours['platform']]
    for dtype in dtypes(ours['platform']):
      rates[dtype] = [ask('probe', dtype=dtype, n=size)]
  if torch_python is not None:
    try:
      with worker.started('torch', torch_python) as ask:
        found['torch'] = ask('describe', platform=ours['platform'])
        for dtype in rates:
          rates[dtype].append(ask('probe', dtype=dtype, n=size, platform=ours['platform']))
    except worker.WorkerError as error:
      note, torch_python = f'spinejax alone: {error}', None
  peaks = {dtype: max(rate['flops_per_second'] for rate in both) for dtype, both in rates.items()}
  versions = {'spinejax': __version__, 'python': system_information.python_version(),
              'jax': ours['version']}
  if 'torch' in found:
    versions['torch'] = found['torch']['version']
  facts = {'device': processor_name() if ours['platform'] == 'cpu' else ours['device'],
           'cores': os.cpu_count(), 'versions': versions,
           'threads': {side: facts['threads'] for side, facts in found.items()}}
  return Machine(ours['platform'], torch_python, note, peaks, facts)


def dtypes(platform: str) -> tuple[str, ...]:
  """Dtypes to measure. On CPU bfloat16 is slower than float32, so it is left out."""
  return ('float32',) if platform == 'cpu' else ('float32', 'bfloat16')


def measure_system(machine: Machine, name: str, phases: Sequence[str], size: str, *, repeats: int,
                   compiled: bool, plain: bool = False) -> Iterator[Row]:
  """Measures a system: one row per dtype and phase, each dtype in processes of its own.

  Args:
    machine: of `look_around`.
    name, phases, size: as in `systems`.
    repeats: turns of each side.
    compiled: try torch.compile beside contiguous and channels-last arrays.
    plain: measure plain Flax as well.

  Yields:
    Rows of JSON values. All have `system`, `title`, `phase`, `dtype`, `size`, `shape`, `status`
    ('ok', or 'failed' with a `reason`), `load` (average over a minute), `date` and the facts of the
    machine. Rows with status 'ok' also have
      `tolerance` and `errors`: relative differences, such as {'logits of torch': 1e-6};
      `parameters`, `flops` of a call, `peak_flops_per_second`;
      `ratios`: our time relative to that of each other side, median over turns;
      `sides`: for each side wall_median, wall_min and cpu_median (seconds per call), calls (per
        turn), compile_seconds, peak_bytes, flops_per_second and share_of_peak, and for 'torch' its
        `form` and all `forms`. peak_bytes is the memory of the process beyond its libraries, on
        GPUs that of the program.
  """
  shape = systems.SYSTEMS[name].shapes[size]
  for dtype in dtypes(machine.platform):
    with tempfile.TemporaryDirectory(prefix='spinejax-bench-') as folder, _sides(
        machine.torch_python, plain) as sides:
      paths = _Paths(pathlib.Path(folder))
      write_inputs(paths.inputs, name, size)
      for phase in phases:
        row: Row = {'system': name, 'title': systems.SYSTEMS[name].title, 'phase': phase,
                    'dtype': dtype, 'size': size, 'shape': list(shape)}
        try:
          built, errors = _build(machine, sides, paths, name, size, phase, dtype, compiled)
          row |= {'tolerance': TOLERANCE[dtype], 'errors': errors,
                  'parameters': built['spinejax']['parameters']}
          _require_equal(errors, TOLERANCE[dtype])
          work = built['spinejax']['multiply_adds'] * 2 * shape[0]
          row['flops'] = work * (3 if phase == 'train' else 1)
          row |= time_programs({side: (ask, '') for side, ask in sides.items()}, repeats)
          for side, ask in sides.items():
            facts = row['sides'][side]
            facts |= {key: value for key, value in built[side].items() if key in _BUILT}
            if machine.platform == 'cpu':
              facts |= ask('memory')
            elif side == 'torch':
              facts |= ask('device_memory')
            facts['flops_per_second'] = row['flops'] / facts['wall_median']
            facts['share_of_peak'] = facts['flops_per_second'] / machine.peaks[dtype]
          row |= {'peak_flops_per_second': machine.peaks[dtype], 'status': 'ok'}
        except worker.WorkerError as error:
          row |= {'status': 'failed', 'reason': str(error)}
        yield dated(row, machine)


def measure_piece(machine: Machine, name: str, size: str, *, repeats: int) -> Row:
  """The row of a piece of `systems.PIECES`, as in `measure_system`.

  The sides are its programs, with `items_per_second` instead of the numbers for networks.
  """
  row: Row = {'system': name, 'title': systems.PIECES[name], 'phase': None, 'dtype': 'float32',
              'size': size, 'shape': None}
  with tempfile.TemporaryDirectory(prefix='spinejax-bench-') as folder, _sides(None) as sides:
    ask = sides['spinejax']
    try:
      built = ask('build_piece', piece=name, size=size, folder=folder)
      if built['distance'] is not None:
        row['errors'] = {'result': built['distance']}
        _require_equal(row['errors'], built['tolerance'])
      row |= time_programs({side: (ask, side) for side in built['names']}, repeats)
      for facts in row['sides'].values():
        facts['items_per_second'] = built['items'] / facts['wall_median']
      row['status'] = 'ok'
    except worker.WorkerError as error:
      row |= {'status': 'failed', 'reason': str(error)}
  return dated(row, machine)


def write_inputs(path: pathlib.Path, name: str, size: str) -> None:
  """Writes an image float32 [N, *S, C] and a label int32 [N, *S], from a fixed seed."""
  system, rng = systems.SYSTEMS[name], np.random.default_rng(0)
  shape, classes = system.shapes[size], max(system.model.get('num_classes', 2), 2)
  image = np.float32(system.deviation) * rng.standard_normal(shape, np.float32)
  np.savez(path, image=image, label=rng.integers(0, classes, shape[:-1]).astype(np.int32))


class _Paths:
  """Files that the sides share."""

  def __init__(self, folder: pathlib.Path):
    self.inputs, self.weights = folder / 'inputs.npz', folder / 'weights.npz'
    self.logits = {side: folder / f'{side}.npy' for side in ('spinejax', 'torch', 'plain')}


@contextlib.contextmanager
def _sides(torch_python: str | None, plain: bool = False) -> Iterator[dict[str, worker.Ask]]:
  """Starts the processes of spinejax, of PyTorch if it has an interpreter, and of plain Flax."""
  with contextlib.ExitStack() as stack:
    sides = {'spinejax': stack.enter_context(worker.started('spinejax'))}
    if torch_python is not None:
      sides['torch'] = stack.enter_context(worker.started('torch', torch_python))
    if plain:
      sides['plain'] = stack.enter_context(worker.started('plain'))
    yield sides


def _build(machine: Machine, sides: Mapping[str, worker.Ask], paths: _Paths, name: str, size: str,
           phase: str, dtype: str, compiled: bool) -> tuple[dict[str, dict], dict[str, float]]:
  """Builds a phase on all sides; returns their replies and their differences from ours."""
  request = dict(system=name, size=size, phase=phase, dtype=dtype, inputs=str(paths.inputs))
  built, weights = {}, None
  if 'torch' in sides:
    weights = str(paths.weights)
    if not paths.weights.exists():
      sides['torch']('write_weights', system=name, size=size, inputs=str(paths.inputs),
                     path=weights)
    forms = ['contiguous', 'channels_last', *(['compiled'] if compiled else [])]
    built['torch'] = sides['torch']('build', **request, weights=weights, forms=forms,
                                    platform=machine.platform, outputs=str(paths.logits['torch']))
  for side in sides:
    if side != 'torch':
      built[side] = sides[side]('build', **request, weights=weights,
                                outputs=str(paths.logits[side]))
  errors = {}
  for side in built:
    if side == 'spinejax':
      continue
    if phase == 'forward':
      ours, theirs = (np.load(paths.logits[key]) for key in ('spinejax', side))
      errors[f'logits of {side}'] = relative_error(ours, theirs)
      continue
    for what in ('loss', 'grad_norm'):
      errors[f'{what} of {side}'] = relative_error(built['spinejax'][what], built[side][what])
  return built, errors


def relative_error(value: Any, reference: Any) -> float:
  """Norm of value - reference over that of reference; infinite if shapes differ or for NaN."""
  value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
  if value.shape != reference.shape or not np.isfinite(value).all():
    return math.inf
  error = float(np.linalg.norm(value - reference)) / max(float(np.linalg.norm(reference)), 1e-30)
  return error if math.isfinite(error) else math.inf


def _require_equal(errors: Mapping[str, float], tolerance: float) -> None:
  for what, error in errors.items():
    if not error <= tolerance:
      raise worker.WorkerError(
          f'not timed, because the sides do not compute the same: spinejax differs by {error:.2g} '
          f'from the {what}, relative to it; at most {tolerance:g} is allowed.')


def time_programs(programs: Mapping[str, tuple[worker.Ask, str]], repeats: int) -> Row:
  """Times programs in turns A B A B.

  Args:
    programs: for each side its `ask` and the name of the program; the first is ours.
    repeats: turns of each.

  Returns:
    `repeats`, `sides` and `ratios` of a row, see `measure_system`.
  """
  plans: dict[str, dict[str, Any]] = {}
  samples: dict[str, list[dict[str, float]]] = {side: [] for side in programs}
  for side, (ask, name) in programs.items():
    seconds = ask('run', name=name, calls=1, warm=1)['wall']
    calls = min(max(math.ceil(_TURN_SECONDS / max(seconds, 1e-9)), 1), _MAX_CALLS)
    plans[side] = dict(name=name, calls=calls, warm=int(seconds < _WARM_SECONDS))
  for _ in range(repeats):
    for side, (ask, _) in programs.items():
      samples[side].append(ask('run', **plans[side]))
  wall = {side: [sample['wall'] for sample in samples[side]] for side in programs}
  cpu = {side: [sample['cpu'] for sample in samples[side]] for side in programs}
  ours, *others = programs
  return {
      'repeats': repeats,
      'sides': {side: {'wall_median': statistics.median(wall[side]), 'wall_min': min(wall[side]),
                       'cpu_median': statistics.median(cpu[side]), 'calls': plans[side]['calls']}
                for side in programs},
      'ratios': {side: statistics.median(a / b for a, b in zip(wall[ours], wall[side], strict=True))
                 for side in others}}


def record(row: Row, name: str, output: pathlib.Path | None) -> None:
  """Prints the reason of a failed row to stderr, and appends the row to a file if there is one."""
  if row['status'] != 'ok':
    print(f'{name}: {row["reason"]}', file=sys.stderr)
  if output is not None:
    append_row(output, row)


def dated(row: Row, machine: Machine) -> Row:
  """The row with load, date and the facts of the machine."""
  return {**row, **load_and_date(), **machine.facts}
