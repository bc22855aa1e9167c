"""What every row of a results file holds: device, versions, date and load."""
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

PACKAGES = ('jax', 'flax', 'numpy', 'scipy')


def machine_facts() -> dict[str, Any]:
  """Device, cores, versions, date and load (average of a minute; None where unknown)."""
  from spinejax.version import __version__

  versions = {'spinejax': __version__, 'python': platform.python_version(),
              **{name: importlib.metadata.version(name) for name in PACKAGES}}
  return {'device': processor_name(), 'cores': os.cpu_count(), 'versions': versions,
          **load_and_date()}


def load_and_date() -> dict[str, Any]:
  """Load (average of a minute; None where unknown) and date of now."""
  return {'load': os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
          'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}


def processor_name() -> str:
  """Name of the processor."""
  info = pathlib.Path('/proc/cpuinfo')
  names = [line.partition(':')[2].strip() for line in info.read_text().splitlines()
           if line.startswith('model name')] if info.exists() else []
  return names[0] if names else platform.processor() or platform.system()


def append_row(path: pathlib.Path, row: dict[str, Any]) -> None:
  """Appends a row to a JSON Lines file."""
  with path.open('a') as file:
    file.write(json.dumps(row) + '\n')
