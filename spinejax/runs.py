"""The run folder and its records.

  config.json     the complete config
  dataset.json    classes, split by case name, hash of the data, mean and standard deviation
  manifest.json   every start of the program: command, versions, devices; seconds by phase
  .lock           locked by the process that trains; .holder names that process

A folder holds one run: another config or other data is refused.
"""
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
from ml_collections import ConfigDict

from spinejax.version import __version__

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets',
            'numpy', 'scipy', 'pillow')  # versions that are recorded
_OLD_VERSION = '0.1.0'  # its configs have other fields


def open_folder(workdir: str, config: Mapping[str, Any]) -> None:
  """Makes the run folder and checks that it can be written and holds no run of another config."""
  folder = pathlib.Path(workdir)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise OSError(f'the run folder {folder} cannot be written ({error.strerror}); '
                  'choose another --workdir.') from error
  if (folder / 'config.json').exists():
    check(workdir, 'config', config)


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
  """Locks the run folder for this process. The lock ends with the process, however it ends.

  Raises ValueError where another process holds the lock. A folder on a file system without locks is
  not locked.
  """
  lock, holder = filelock.FileLock(f'{workdir}/.lock'), pathlib.Path(workdir) / '.holder'
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    name = holder.read_text() if holder.exists() else 'unknown'
    raise ValueError(f'another process ({name}) is training in {workdir}; wait for it, or choose '
                     'another --workdir.') from None
  except (OSError, NotImplementedError):  # the file system has no locks
    pass
  try:
    write_text(holder, f'{os.getpid()} on {socket.gethostname()}')
    yield
  finally:
    lock.release()


def claim(workdir: str, name: str, content: Mapping[str, Any]) -> None:
  """Writes `name`.json ('config' or 'dataset'); if it exists, checks that it has this content."""
  path = pathlib.Path(workdir) / f'{name}.json'
  if path.exists():
    check(workdir, name, content)
  else:
    write_json(path, content)


def check(workdir: str, name: str, content: Mapping[str, Any]) -> None:
  """Raises ValueError with each differing field unless `name`.json of the run is `content`."""
  old = dict(flatten(_read_run_file(workdir, name)))
  new, absent = dict(flatten(plain(content))), 'nothing'
  different = [f'  {key}: {_shorten(old.get(key, absent))} there, '
               f'{_shorten(new.get(key, absent))} asked'
               for key in sorted(old.keys() | new.keys())
               if old.get(key, absent) != new.get(key, absent)]
  if different:
    raise ValueError(f'{workdir} holds a run with another {name}; choose another --workdir, or '
                     'restore these fields:\n' + '\n'.join(different))


def load_config(workdir: str) -> ConfigDict:
  """The config of a run.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: the file is damaged, or of an older version with other fields.
  """
  return ConfigDict(_to_tuples(_read_run_file(workdir, 'config'))).lock()


def _to_tuples(value: Any) -> Any:
  """The lists of JSON as the tuples of configs."""
  if isinstance(value, dict):
    return {key: _to_tuples(item) for key, item in value.items()}
  return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


def load_dataset_info(workdir: str) -> dict[str, Any]:
  """dataset.json of a run: classes, split, fingerprint, mean, std; raises like `load_config`."""
  return _read_run_file(workdir, 'dataset')


def _read_run_file(workdir: str, name: str) -> dict[str, Any]:
  path = pathlib.Path(workdir) / f'{name}.json'
  if not path.is_file():
    raise FileNotFoundError(f'{workdir} holds no run ({path.name} is missing); train one with '
                            f'spinejax train --config=... --workdir={workdir}.')
  content = read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f'{path} does not hold the {name} of a run.')
  evaluation = content.get('evaluation')
  is_old = isinstance(evaluation, dict) and 'style_transfer' in evaluation
  with contextlib.suppress(ValueError, LookupError, TypeError):  # a damaged manifest has no version
    is_old |= read_manifest(workdir)['starts'][0]['versions']['spinejax'] == _OLD_VERSION
  if is_old:
    raise ValueError(f'{workdir} holds a run of spinejax {_OLD_VERSION}, whose config has other '
                     f'fields than version {__version__} reads; use spinejax '
                     f'{_OLD_VERSION} for this run, or train again in another --workdir.')
  return content


def record_start(workdir: str, **facts: Any) -> dict[str, Any]:
  """Adds this start of the program, with `facts`, to manifest.json and returns the manifest."""
  import jax  # here alone: reading a run needs no JAX

  versions = {'python': platform.python_version(), 'spinejax': __version__}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed'
  manifest = read_manifest(workdir)
  manifest['starts'].append({
      'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
      'command': ' '.join([pathlib.Path(sys.executable).name, *sys.argv]),
      'devices': [f'{d.platform}:{d.id} {d.device_kind}' for d in jax.devices()],
      'host': platform.platform(), 'versions': versions, **facts})
  write_json(pathlib.Path(workdir) / 'manifest.json', manifest)
  return manifest


def add_durations(workdir: str, seconds: Mapping[str, float]) -> None:
  """Adds seconds by phase to `durations` in manifest.json, the sums over all starts of a run."""
  manifest = read_manifest(workdir)
  durations = manifest.setdefault('durations', {})
  for phase, value in seconds.items():
    durations[phase] = round(durations.get(phase, 0.0) + value, 3)
  write_json(pathlib.Path(workdir) / 'manifest.json', manifest)


def read_manifest(workdir: str) -> dict[str, Any]:
  """The manifest of a run: `starts`, empty without a manifest, and, if recorded, `durations`."""
  path = pathlib.Path(workdir) / 'manifest.json'
  manifest = read_json(path) if path.is_file() else {'starts': []}
  durations = manifest.get('durations', {}) if isinstance(manifest, dict) else None
  if not (isinstance(manifest, dict) and isinstance(manifest.get('starts'), list)
          and isinstance(durations, dict)
          and all(isinstance(value, float | int) for value in durations.values())):
    raise ValueError(f'{path} does not hold the starts of a run; delete it, it is only a record.')
  return manifest


def first_line(error: BaseException) -> str:
  """The first line of an error's message, at most 200 characters; its type without a message."""
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]


def read_json(path: str | os.PathLike) -> Any:
  """Reads a JSON file; raises ValueError with one sentence when it is damaged."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not readable as JSON ({error}).') from error


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes JSON, as `write_bytes`; raises ValueError for NaN and infinity."""
  write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + '\n')


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text in UTF-8, as `write_bytes`."""
  write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file atomically: a reader sees the old file or the new one, never half of one."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.writing')
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise OSError(f'{path} cannot be written ({error.strerror}); make room or repair the folder, '
                  'then run the same command.') from error


def plain(value: Any) -> Any:
  """Nested ConfigDicts, dicts, tuples and NumPy numbers as the types of JSON."""
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  return value.item() if hasattr(value, 'item') else value


def flatten(value: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of everything in nested dicts."""
  if isinstance(value, dict) and value:
    for key, item in value.items():
      yield from flatten(item, f'{prefix}.{key}' if prefix else key)
  else:
    yield prefix, value


def _shorten(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 80 else text[:76] + ' ...'
