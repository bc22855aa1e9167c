"""The run folder: its config, data and manifest, and the refusal to mix two runs in one.

  .lock           held by the process that trains

  config.json     the config, complete
  dataset.json    classes, split by case name, hash of the data, mean and standard deviation
  manifest.json   every start of the program: command, versions, devices
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

from ml_collections import ConfigDict

try:
  import fcntl
except ImportError:  # Windows, where nothing is locked
  fcntl = None  # type: ignore[assignment]

PACKAGES = ('spinejax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain',
            'tensorflow-datasets', 'numpy', 'scipy', 'pillow')


def open_folder(workdir: str, config: Mapping[str, Any]) -> None:
  """Makes the run folder, or checks that the run in it has this config; claims nothing yet.

  Raises:
    ValueError: the folder holds a run of another config.
    OSError: the folder cannot be written.
  """
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
  """Holds the open run folder for this process; the lock ends with the process, however it ends.

  Where the file system has no locks the folder is not locked.

  Raises:
    ValueError: another process holds it.
  """
  with open(pathlib.Path(workdir) / '.lock', 'a+') as file:
    try:
      if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise ValueError(f'another process ({file.read(200).strip() or "unknown"}) is training in '
                       f'{workdir}; wait for it, or choose another --workdir.') from None
    except OSError:
      pass
    file.truncate(0)
    file.write(f'{os.getpid()} on {socket.gethostname()}')
    file.flush()
    yield


def claim(workdir: str, name: str, content: Mapping[str, Any]) -> None:
  """Writes `name`.json into the open run folder, or checks that the one there is the same.

  Args:
    workdir: the run folder.
    name: 'config' or 'dataset'.
    content: nested dicts of plain values.

  Raises:
    ValueError: the folder holds a run of another config or of other data.
  """
  path = pathlib.Path(workdir) / f'{name}.json'
  if path.exists():
    check(workdir, name, content)
  else:
    write_json(path, content)


def check(workdir: str, name: str, content: Mapping[str, Any]) -> None:
  """Raises ValueError naming each differing field unless `name`.json in the run is `content`."""
  different = describe_difference(_read_run_file(workdir, name), content)
  if different:
    raise ValueError(f'{workdir} holds a run with another {name}; choose another --workdir, or '
                     'restore:\n' + '\n'.join(different))


def load_config(workdir: str) -> ConfigDict:
  """Reads the config of a run; a sentence when the folder holds none."""
  return ConfigDict(_tuples(_read_run_file(workdir, 'config'))).lock()


def load_dataset_info(workdir: str) -> dict[str, Any]:
  """Reads dataset.json of a run: classes, split, fingerprint, mean, std."""
  return _read_run_file(workdir, 'dataset')


def _read_run_file(workdir: str, name: str) -> Any:
  path = pathlib.Path(workdir) / f'{name}.json'
  if not path.is_file():
    raise FileNotFoundError(f'{workdir} holds no run ({path.name} is missing); train one with '
                            f'python -m spinejax.main --config=... --workdir={workdir}.')
  content = read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f'{path} does not hold the {name} of a run.')
  return content


def describe_difference(old: Any, new: Any) -> list[str]:
  """Lines 'a.b: old here, new asked' of every field that differs between two nested dicts."""
  old, new = dict(_flatten(plain(old))), dict(_flatten(plain(new)))
  absent = 'nothing'
  return [f'  {key}: {_short(old.get(key, absent))} there, {_short(new.get(key, absent))} asked'
          for key in sorted(old.keys() | new.keys())
          if old.get(key, absent) != new.get(key, absent)]


def record_start(workdir: str, **facts: Any) -> dict[str, Any]:
  """Appends this start of the program to manifest.json and returns the manifest."""
  import jax  # the only use of JAX here; reading a run needs none

  path = pathlib.Path(workdir) / 'manifest.json'
  manifest = read_manifest(workdir)
  manifest['starts'].append({
      'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
      'command': ' '.join([pathlib.Path(sys.executable).name, *sys.argv]),
      'devices': [f'{d.platform}:{d.id} {d.device_kind}' for d in jax.devices()],
      'host': platform.platform(),
      'versions': {'python': platform.python_version(), **_versions()},
      **facts,
  })
  write_json(path, manifest)
  return manifest


def add_durations(workdir: str, seconds: Mapping[str, float]) -> None:
  """Adds seconds by phase to `durations` of manifest.json, which sum over all starts of a run."""
  manifest = read_manifest(workdir)
  durations = manifest.setdefault('durations', {})
  for phase, value in seconds.items():
    durations[phase] = round(durations.get(phase, 0.0) + value, 3)
  write_json(pathlib.Path(workdir) / 'manifest.json', manifest)


def read_manifest(workdir: str) -> dict[str, Any]:
  """The manifest of a run: {'starts': [one dict per start]}, empty where there is none.

  With `durations` {phase: seconds} where a part of the run is done.
  """
  path = pathlib.Path(workdir) / 'manifest.json'
  manifest = read_json(path) if path.is_file() else {'starts': []}
  durations = manifest.get('durations', {}) if isinstance(manifest, dict) else None
  if not (isinstance(manifest, dict) and isinstance(manifest.get('starts'), list)
          and isinstance(durations, dict)
          and all(isinstance(value, float | int) for value in durations.values())):
    raise ValueError(f'{path} does not hold the starts of a run; delete it, it is a record only.')
  return manifest


def _versions() -> dict[str, str]:
  versions = {}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed as a package'
  return versions


def read_json(path: str | os.PathLike) -> Any:
  """Reads a JSON file; a sentence when it is damaged."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not readable as JSON ({error}).') from error


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes JSON atomically: a reader sees the old file or the new one, never half of one.

  Raises OSError with one sentence where it cannot be written.
  """
  write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + '\n')


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text as UTF-8, atomically like `write_bytes`."""
  write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file atomically: a reader sees the old file or the new one, never half of one.

  Raises:
    OSError: the file cannot be written; the message is one sentence.
  """
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
  """Nested ConfigDicts, dicts and tuples as JSON has them: dicts and lists."""
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  return value.item() if hasattr(value, 'item') else value


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that configs hold."""
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(item) for item in value)
  return value


def _flatten(value: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
  if isinstance(value, dict) and value:
    for key, item in value.items():
      yield from _flatten(item, f'{prefix}.{key}' if prefix else key)
  else:
    yield prefix, value


def _short(value: Any, limit: int = 80) -> str:
  text = str(value)
  return text if len(text) <= limit else text[:limit - 4] + ' ...'
