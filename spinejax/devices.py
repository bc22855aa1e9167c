"""Devices and the compile cache of a command."""
import importlib.metadata
import os
import pathlib
from typing import Any

_XLA_FLAGS = {
    # Seconds a virtual device waits for another one; XLA's 40 s are too few on a busy machine.
    '--xla_cpu_collective_call_terminate_timeout_seconds': '600',
    # Removes two thirds of the copies of a training step on CPU.
    '--xla_cpu_copy_insertion_use_region_analysis': 'true',
}
# The last jaxlib that is known to take these flags. An unknown flag ends the process.
_LAST_JAXLIB = (0, 12)


def configure_jax() -> None:
  """Sets devices and the compile cache; call it before JAX is first used.

  On a CPU every core becomes one virtual device, unless the user set the number of devices.
  Compiled programs are kept in `$JAX_COMPILATION_CACHE_DIR` (default `~/.cache/spinejax/xla`).
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  xla_flags = os.environ.get('XLA_FLAGS', '')
  version = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
  if version <= _LAST_JAXLIB:
    added = [f'{flag}={value}' for flag, value in _XLA_FLAGS.items() if flag not in xla_flags]
    os.environ['XLA_FLAGS'] = ' '.join([xla_flags, *added]).strip()
  import jax  # late: --help and config errors need no JAX

  if not user_set_number():
    cores = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else ()
    jax.config.update('jax_num_cpu_devices', len(cores) or os.cpu_count() or 1)
  options: Any = jax.config
  if not options.jax_compilation_cache_dir:
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache'))
    jax.config.update('jax_compilation_cache_dir', str(cache / 'spinejax' / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def user_set_number() -> bool:
  """Whether the environment sets the number of virtual CPU devices."""
  return ('xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
          or 'JAX_NUM_CPU_DEVICES' in os.environ)
