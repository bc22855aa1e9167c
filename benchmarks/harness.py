"""Rows of the benchmark: both sides started, compared, timed in turns."""
import contextlib
import datetime
import json
import math
import os
import pathlib
import platform as system_information
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spinejax import __version__
from benchmarks import systems
from benchmarks import worker

Row = dict[str, Any]

# Largest distance of the logits from PyTorch's, as norms, and of the first step's loss and norm of
# the gradient, all relative; compared at full precision, without TF32.
TOLERANCE = {'float32': 1e-3, 'bfloat16': 0.1}
_PROBE_SIZE = {'cpu': 2048, 'gpu': 8192}
_TURN_SECONDS, _MOST_CALLS = 0.2, 50  # of the calls of a turn together, of a short program
_BUILT = ('compile_seconds', 'peak_bytes', 'form', 'forms')  # what a row keeps of a side
_COLD_SECONDS = 0.5  # a call this long needs no other before it


class Machine(NamedTuple):
  """What all rows share.

  Attributes:
    platform: 'cpu' or 'gpu'.
    torch_python: interpreter of the PyTorch side, or None: spinejax alone.
    note: why it is alone, if it was not asked to be.
    peaks: floating-point operations a second of a matrix product, the better side's, by dtype.
    facts: entries of every row: device, versions, threads, cores.
  """
  platform: str
  torch_python: str | None
  note: str
  peaks: dict[str, float]
  facts: dict[str, Any]


def look_around(torch_python: str | None, probe_size: int | None = None) -> Machine:
  """Device, versions and peak of this machine; without PyTorch in `torch_python` a note says so.

  Args:
    torch_python: interpreter of the PyTorch side; None: spinejax alone.
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
  facts = {'device': _processor() if ours['platform'] == 'cpu' else ours['device'],
           'cores': os.cpu_count(), 'versions': versions,
           'threads': {side: facts['threads'] for side, facts in found.items()}}
  return Machine(ours['platform'], torch_python, note, peaks, facts)


def dtypes(platform: str) -> tuple[str, ...]:
  """bfloat16 on GPUs alone: CPUs compute it more slowly than float32."""
  return ('float32',) if platform == 'cpu' else ('float32', 'bfloat16')


def measure_system(machine: Machine, name: str, phases: Sequence[str], size: str, *, repeats: int,
                   compiled: bool, plain: bool = False) -> Iterator[Row]:
  """One row a dtype and phase of a system, each dtype in processes of its own.

  Args:
    machine: of `look_around`.
    name, phases, size: as in `systems`.
    repeats: turns of each side.
    compiled: torch.compile is one of PyTorch's forms, beside contiguous and channels-last arrays.
    plain: plain Flax is a side too: `plain_side`.

  Yields:
    JSON-safe rows: `system`, `title`, `phase`, `dtype`, `size`, `shape`, `status` 'ok' or 'failed'
    with a `reason`, `tolerance`, `errors` {'logits of torch', ...: how far ours are from them, or
    loss and grad_norm, relative to theirs}, `parameters`, `flops` of a call, `ratios` {side: median
    over turns of our time to its},
    `peak_flops_per_second`, `load` (average of a minute), `date`, the facts of the machine, and
    `sides`: {'spinejax', 'torch', 'plain': {wall_median, wall_min, cpu_median (seconds a call),
    compile_seconds, peak_bytes, flops_per_second, share_of_peak; of torch `form` and `forms`}}.
    Memory is that of the process above what it takes by itself; on GPUs that of the program.
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
  """The row of a piece of `systems.PIECES`, whose `sides` are ours and, if any, its rival's.

  As in `measure_system`, with `items_per_second` instead of what networks have.
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
  """Image float32 [N,*S,C] and label int32 [N,*S], the same wherever they are drawn."""
  system, rng = systems.SYSTEMS[name], np.random.default_rng(0)
  shape, classes = system.shapes[size], max(system.model.get('num_classes', 2), 2)
  image = np.float32(system.deviation) * rng.standard_normal(shape, np.float32)
  np.savez(path, image=image, label=rng.integers(0, classes, shape[:-1]).astype(np.int32))


class _Paths:
  """Files that the two sides share."""

  def __init__(self, folder: pathlib.Path):
    self.inputs, self.weights = folder / 'inputs.npz', folder / 'weights.npz'
    self.logits = {side: folder / f'{side}.npy' for side in ('spinejax', 'torch', 'plain')}


@contextlib.contextmanager
def _sides(torch_python: str | None, plain: bool = False) -> Iterator[dict[str, worker.Ask]]:
  """The process of spinejax, with an interpreter that of PyTorch, and that of plain Flax."""
  with contextlib.ExitStack() as stack:
    sides = {'spinejax': stack.enter_context(worker.started('spinejax'))}
    if torch_python is not None:
      sides['torch'] = stack.enter_context(worker.started('torch', torch_python))
    if plain:
      sides['plain'] = stack.enter_context(worker.started('plain'))
    yield sides


def _build(machine: Machine, sides: Mapping[str, worker.Ask], paths: _Paths, name: str, size: str,
           phase: str, dtype: str, compiled: bool) -> tuple[dict[str, dict], dict[str, float]]:
  """What building a phase told of each side, and how far they are apart."""
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
  """|value - reference| / |reference| as norms of arrays; infinite where shapes differ or a value
  is not finite."""
  value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
  if value.shape != reference.shape or not np.isfinite(value).all():
    return math.inf
  error = float(np.linalg.norm(value - reference)) / max(float(np.linalg.norm(reference)), 1e-30)
  return error if math.isfinite(error) else math.inf


def _require_equal(errors: Mapping[str, float], tolerance: float) -> None:
  for what, error in errors.items():
    if not error <= tolerance:
      raise worker.WorkerError(
          f'not timed, for the sides do not compute the same: spinejax is {error:.2g} away from '
          f'the {what}, relative to it, and {tolerance:g} is allowed.')


def time_programs(programs: Mapping[str, tuple[worker.Ask, str]], repeats: int) -> Row:
  """Times programs {side: (ask, name)} in turns A B A B: `sides` and `ratios` of the first's time.
  """
  plans: dict[str, dict[str, Any]] = {}
  samples: dict[str, list[dict[str, float]]] = {side: [] for side in programs}
  for side, (ask, name) in programs.items():
    seconds = ask('run', name=name, calls=1, warm=1)['wall']
    calls = min(max(math.ceil(_TURN_SECONDS / max(seconds, 1e-9)), 1), _MOST_CALLS)
    plans[side] = dict(name=name, calls=calls, warm=int(seconds < _COLD_SECONDS))
  for _ in range(repeats):
    for side, (ask, _) in programs.items():
      samples[side].append(ask('run', **plans[side]))
  of = lambda side, clock: [sample[clock] for sample in samples[side]]
  row = {'repeats': repeats, 'sides': {
      side: {'wall_median': statistics.median(of(side, 'wall')), 'wall_min': min(of(side, 'wall')),
             'cpu_median': statistics.median(of(side, 'cpu')), 'calls': plans[side]['calls']}
      for side in programs}}
  ours, *others = programs
  row['ratios'] = {side: statistics.median(
      a / b for a, b in zip(of(ours, 'wall'), of(side, 'wall'), strict=True)) for side in others}
  return row


def record(row: Row, name: str, output: pathlib.Path | None) -> None:
  """Says why a row failed, on stderr after a name, and appends the row to a file, if there is one.
  """
  if row['status'] != 'ok':
    print(f'{name}: {row["reason"]}', file=sys.stderr)
  if output is not None:
    with output.open('a') as file:
      file.write(json.dumps(row) + '\n')


def dated(row: Row, machine: Machine) -> Row:
  load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  return {**row, 'load': load, 'date': now, **machine.facts}


def _processor() -> str:
  """The name of the processor."""
  info = pathlib.Path('/proc/cpuinfo')
  names = [line.partition(':')[2].strip() for line in info.read_text().splitlines()
           if line.startswith('model name')] if info.exists() else []
  return names[0] if names else system_information.processor() or sys.platform
