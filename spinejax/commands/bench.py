"""Times networks and compares them with PyTorch; needs a clone of the repository.

The flags and this help are those of `benchmarks.__main__`.
"""
import importlib
import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]


if (_ROOT / 'benchmarks' / 'harness.py').is_file() and str(_ROOT) not in sys.path:
  sys.path.append(str(_ROOT))
try:
  _benchmarks = importlib.import_module('benchmarks.__main__')
except ModuleNotFoundError as error:
  if (error.name or '').partition('.')[0] != 'benchmarks':
    raise
  sys.exit('error: the benchmarks are part of the repository, not of the package; clone it and '
           'run spinejax bench or python -m benchmarks there.')
POSITIONALS = _benchmarks.POSITIONALS
main = _benchmarks.main
