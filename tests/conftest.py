"""Strict settings for every test: two CPU devices, no silent promotion, one compile cache."""
import atexit
import gc
from importlib import metadata
import os
import pathlib
import shutil
import signal
import tempfile

if not os.environ.get('SPINEJAX_TEST_OPTIMIZED'):
  os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  # Halves the time of compiling; later versions end the process at a flag they do not know.
  if metadata.version('jaxlib').startswith('0.10.'):
    os.environ.setdefault('XLA_FLAGS', '--xla_cpu_parallel_codegen_split_count=1 '
                          '--xla_cpu_use_fusion_emitters=false')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')
if 'PYTEST_XDIST_WORKER' not in os.environ:  # workers and commands under test inherit it
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='spinejax-tests-')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)

import jax
import pytest

gc.set_threshold(200_000, 50, 50)  # tracing makes many objects; fewer collections save a tenth
# Processes that a shell starts in the background ignore Ctrl-C, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
  """Folder of reference outputs and real images beside the checkout; tests skip without it."""
  beside = pathlib.Path(__file__).parents[2] / 'shared'
  folder = pathlib.Path(os.environ.get('SPINEJAX_SHARED', beside))
  if not folder.is_dir():
    pytest.skip('the folder of reference data beside the checkout is absent')
  return folder
