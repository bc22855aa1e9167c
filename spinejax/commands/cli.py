"""What every command shares: flags, user errors in one sentence, devices and the compile cache."""
import contextlib
import difflib
import faulthandler
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app
from absl import flags
from absl import logging
from ml_collections import ConfigDict

INTERRUPTED = 130  # exit status of a run stopped by Ctrl-C or SIGTERM, its state saved
_HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as ended
_LINGER_SECONDS = 5  # of process 0 after a fault of its own, for the others to find it too
_WAIT_SECONDS = 7 * 24 * 3600  # of processes that are done, for the first one to test
_VIRTUAL_DEVICES_FLAG = 'xla_force_host_platform_device_count'
# On a starved machine one virtual device may wait long for another; XLA gives up after 40 s.
# The analysis spares two thirds of the copies of a training step on CPU, those of the optimizer.
_XLA_FLAGS = {'--xla_cpu_collective_call_terminate_timeout_seconds': '600',
              '--xla_cpu_copy_insertion_use_region_analysis': 'true'}
_LAST_JAXLIB = (0, 12)  # known to take these flags; an unknown one ends the process
_made_devices: list[int] = []  # the numbers of virtual devices that `configure_jax` made


class Interrupted(Exception):
  """A run was asked to stop and has saved its state; the message says where."""


def run(main: Callable[[Sequence[str]], int | None], positionals: Sequence[str] = ()) -> None:
  """Runs `main(argv)` under absl; an error a user can cause prints one line and exits with 1.

  `--verbosity=1` prints the traceback too. Flag errors exit with 2, an interrupted run with 130.

  Args:
    main: gets [program, *positionals]; flags are parsed.
    positionals: names of the arguments without a flag, as errors print them; all are required.
  """

  def guarded(argv):
    try:
      if len(argv) - 1 > len(positionals):
        raise ValueError(f'unexpected argument {argv[len(positionals) + 1]!r}; every option is a '
                         'flag, see --help.')
      if len(argv) - 1 < len(positionals):
        raise ValueError(f'expected {" ".join(positionals)}, got {" ".join(argv[1:]) or "nothing"};'
                         ' see --help.')
      return main(argv)
    except Interrupted as stop:
      print(stop, file=sys.stderr)
      return INTERRUPTED
    except KeyboardInterrupt:
      print('interrupted before anything needed saving.', file=sys.stderr)
      return INTERRUPTED
    except (ValueError, OSError) as error:
      logging.debug('traceback of the error below', exc_info=True)
      print(f'error: {error}', file=sys.stderr)
      return 1

  app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; whatever is wrong with them or with the config is one line and exit status 2."""
  app.define_help_flags()
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  try:
    _check_config_flags(argv)
    return flags.FLAGS(argv)
  except (flags.Error, ValueError, FileNotFoundError, RecursionError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


def _check_config_flags(argv: Sequence[str]) -> None:
  """Raises ValueError naming what exists when --config or a --config.field is unknown."""
  values = {}
  for arg, following in zip(argv[1:], [*argv[2:], '']):
    if arg.startswith('-'):
      name, assigned, value = arg.lstrip('-').partition('=')
      values[name] = value if assigned else following
  overrides = [name for name in values if name.startswith('config.')]
  if 'config' in values:
    config = load_config(values['config'])
    for name in overrides:
      _check_field(config, name)
  elif overrides:
    raise ValueError(f'--{overrides[0]} needs --config=FILE too.')


def _check_field(config: ConfigDict, name: str) -> None:
  group = config
  *parents, leaf = name.split('.')[1:]
  for depth, key in enumerate([*parents, leaf]):
    known = list(group) if isinstance(group, ConfigDict) else []
    if key not in known:
      where = '.'.join(['config', *parents[:depth]])
      near = difflib.get_close_matches(key, known, 1)
      hint = f' (did you mean {near[0]}?)' if near else ''
      raise ValueError(f'--{name}: {where} has no field {key!r}{hint}; '
                       f'it has {", ".join(sorted(known)) or "none"}.')
    group = group[key]


def numbers(flag: str, values: Sequence[str], kind: type = float) -> tuple:
  """The values of a list flag as numbers; ValueError naming the flag otherwise."""
  try:
    return tuple(map(kind, values))
  except ValueError:
    raise ValueError(f'--{flag} takes {"whole " * (kind is int)}numbers separated by commas, not '
                     f'{",".join(values)}.') from None


def check_choice(flag: str, values: Sequence[str], known: Sequence[str]) -> None:
  """Raises ValueError naming what is known unless all values of a list flag are, and there is one.
  """
  unknown = [value for value in values if value not in known]
  if unknown or not values:
    raise ValueError(f'--{flag} takes {", ".join(known)}, not '
                     f'{unknown[0] if unknown else "nothing"!r}.')


def check_file(flag: str, path: str | None) -> pathlib.Path | None:
  """The path of a file to write, if there is one; ValueError or OSError where it cannot be."""
  if not path:
    return None
  file = pathlib.Path(path)
  if file.is_dir() or not file.parent.is_dir():
    raise ValueError(f'--{flag} must be a file in a folder that exists, not {file}.')
  if not os.access(file if file.exists() else file.parent, os.W_OK):
    raise PermissionError(f'{file} cannot be written to; choose another --{flag}.')
  return file


def load_config(path_and_variant: str) -> ConfigDict:
  """Loads 'configs/seam.py' or 'configs/seam.py:variant'; errors name what exists instead."""
  path, _, variant = path_and_variant.partition(':')
  file = pathlib.Path(path)
  if not file.is_file():
    known = sorted(map(str, pathlib.Path('configs').glob('*.py')))
    raise FileNotFoundError(f'there is no config file {path}; the ones here are: '
                            f'{", ".join(known) or "none"}.')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'{path} is not a Python config file.')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    get_config, variants = module.get_config, module.VARIANTS
  except (SyntaxError, AttributeError) as error:
    raise ValueError(f'{path} is not a config: it needs get_config(variant) and VARIANTS '
                     f'({error}).') from error
  if variant and variant not in variants:
    raise ValueError(f'{path} has no variant {variant!r}; it has {", ".join(variants)}.')
  return get_config(variant) if variant else get_config()


def configure_jax() -> None:
  """Settles devices and the compile cache; call before JAX is first used.

  On a machine without an accelerator every core becomes one virtual device, so the batch can be
  split over the cores, unless the user set the number of devices. Compiled programs are kept in
  `$JAX_COMPILATION_CACHE_DIR` (default `~/.cache/spinejax/xla`), so the next start is fast.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  xla_flags = os.environ.get('XLA_FLAGS', '')
  version = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
  if version <= _LAST_JAXLIB:
    ours = [f'{flag}={value}' for flag, value in _XLA_FLAGS.items() if flag not in xla_flags]
    os.environ['XLA_FLAGS'] = ' '.join([xla_flags, *ours]).strip()
  import jax  # late, so that --help and config errors need no JAX

  if _VIRTUAL_DEVICES_FLAG not in xla_flags and 'JAX_NUM_CPU_DEVICES' not in os.environ:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    jax.config.update('jax_num_cpu_devices', cores or 1)
    _made_devices.append(cores or 1)
  options: Any = jax.config
  if not options.jax_compilation_cache_dir:
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache'))
    jax.config.update('jax_compilation_cache_dir', str(cache / 'spinejax' / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def chose_devices() -> bool:
  """Whether the number of virtual devices of a CPU is our choice, made in `configure_jax`."""
  return bool(_made_devices)


@contextlib.contextmanager
def joined(coordinator: str | None = None, num_processes: int | None = None,
           process_id: int | None = None) -> Iterator[None]:
  """Makes this process one of several that work together; what one cannot survive ends all.

  Whatever goes wrong in one process ends it at once with status 1, so that the others, which wait
  for its part, end as well; all say why. A process that is done waits for the others.

  Args:
    coordinator: HOST:PORT of process 0; None finds Slurm, Open MPI, Cloud TPU or GKE.
    num_processes, process_id: their number and the place of this one, from 0; None likewise.

  Raises:
    ValueError: no such cluster and not all of the arguments, or process 0 is out of reach.
  """
  import jax

  faulthandler.disable()  # JAX aborts a process that lost process 0; its stack would be no help
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id,
                               heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
  except (ValueError, RuntimeError) as error:
    raise ValueError(
        f'the processes could not be joined ({_first_line(error)}); outside of Slurm, Open MPI, '
        'Cloud TPU and GKE give --coordinator=HOST:PORT, --num_processes and --process_id.'
    ) from error
  from orbax.checkpoint import multihost

  name = f'process {jax.process_index()} of {jax.process_count()}'
  linger = 0.0 if jax.process_index() else _LINGER_SECONDS
  try:
    yield
    multihost.sync_global_processes('done', timeout=_WAIT_SECONDS,
                                    processes=set(range(jax.process_count())))
  except Interrupted:
    raise
  except KeyboardInterrupt:
    _end(f'{name} was interrupted.', INTERRUPTED)
  except (ValueError, OSError) as error:
    logging.debug('traceback of the error below', exc_info=True)
    _end(f'error: {error}', 1, linger)
  except jax.errors.JaxRuntimeError as error:
    logging.debug('traceback of the error below', exc_info=True)
    _end(f'error: {name} stopped because another one ended or a device failed '
         f'({_first_line(error)}); the same command on all of them resumes.', 1)
  except Exception:  # a fault of ours; as a regular exit it would wait for the others
    _end(f'{traceback.format_exc()}error: {name} failed.', 1, linger)


def _end(last_words: str, status: int, linger: float = 0.0) -> None:
  """Ends the process without waiting for the others, as a regular exit would."""
  print(last_words, file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  time.sleep(linger)
  os._exit(status)


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
