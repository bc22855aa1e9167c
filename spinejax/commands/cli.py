"""Shared by all commands: parsing of flags, user errors in one sentence, exit statuses."""
import contextlib
import functools
import os
import pathlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from spinejax import config as config_lib
from spinejax import interrupts

flags.disclaim_key_flags()  # --help lists flags that are defined here under the command


def run(main: Callable[[Sequence[str]], int | None], positionals: Sequence[str] = ()) -> None:
  """Runs `main(argv)` under absl; an error a user can cause prints one line and exits with 1.

  `--verbosity=1` also prints the traceback. Wrong flags exit with 2, an interrupted run with 130.

  Args:
    main: gets [program, *positionals]; flags are parsed.
    positionals: names of the arguments without a flag, all required.
  """

  def checked(argv):
    with user_errors():
      check_positionals(argv, positionals)
      return main(argv)

  module = sys.modules[main.__module__]
  app.run(checked, flags_parser=functools.partial(parse_flags, command=module))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
  """Prints an error that a user can cause in one line and exits with the status of `run`."""
  try:
    yield
  except interrupts.Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(interrupts.EXIT_STATUS)
  except KeyboardInterrupt:
    print('interrupted before there was anything to save.', file=sys.stderr)
    sys.exit(interrupts.EXIT_STATUS)
  except (ValueError, OSError) as error:
    logging.debug('traceback of the error below', exc_info=True)
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)


def check_positionals(argv: Sequence[str], names: Sequence[str] = ()) -> None:
  """Raises ValueError unless `argv`, [program, *positionals], has as many as there are names."""
  if len(argv) - 1 > len(names):
    raise ValueError(f'unexpected argument {argv[len(names) + 1]!r}; every option is a flag, see '
                     '--help.')
  if len(argv) - 1 < len(names):
    raise ValueError(f'expected {" ".join(names)}, got {" ".join(argv[1:]) or "nothing"}; see '
                     '--help.')


def define_config() -> None:
  """Defines --config and its overrides.

  After parsing, `flags.FLAGS.config` is the locked ConfigDict, or None without the flag, and
  `flags.FLAGS.config_name` is the value of the flag. If the command has a flag --workdir, its
  default becomes runs/CONFIG_VARIANT.
  """
  flags.DEFINE_string(
      'config', None, 'Config and variant: configs/seam.py:quick, or seam:quick from any folder. '
      '--config.FIELD=VALUE changes a field, such as --config.batch_size=2.')


def parse_flags(argv: Sequence[str], command: types.ModuleType | None = None) -> list[str]:
  """Parses flags and returns the rest; a wrong flag or config is one line and exit status 2.

  --help prints the docstring and the flags of the command, by default the module that is run.
  """
  app.define_help_flags()
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  if {'--help', '-help', '-h'} & set(argv[1:]):
    print_help(command or sys.modules['__main__'])
    sys.exit(0)
  try:
    return flags.FLAGS(_load_config_flag(list(argv)) if 'config' in flags.FLAGS else argv)
  except (flags.Error, ValueError, TypeError, FileNotFoundError, RecursionError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


def print_help(command: types.ModuleType) -> None:
  """Prints the docstring of a command and its flags."""
  name = sys.argv[0] if command.__name__ == '__main__' else command.__name__
  listed = flags.FLAGS.module_help(name).strip().partition('\n')[2]  # the first line is the module
  print(f'{(command.__doc__ or "").strip()}\n\nFlags:\n{listed}')


def _load_config_flag(argv: list[str]) -> list[str]:
  """Loads --config once, defines its fields as flags, and returns the other arguments."""
  name, rest, overrides = None, argv[:1], []
  following = iter(argv[1:])
  for argument in following:
    flag, assigned, value = argument.partition('=')
    if argument.startswith('-') and flag.lstrip('-') == 'config':
      name = value if assigned else next(following, '')
      continue
    if argument.startswith('-') and flag.lstrip('-').startswith('config.'):
      overrides.append(flag.lstrip('-').removeprefix('config.'))
    rest.append(argument)
  if name is None:
    if overrides:
      raise ValueError(f'--config.{overrides[0]} needs --config=FILE too.')
    return argv
  file = config_lib.open_config(name)
  config = file.create()
  for field in overrides:
    config_lib.check_field(config, field)
  if 'workdir' in flags.FLAGS:
    flags.FLAGS.set_default('workdir', f'runs/{file.run_name}')
  delattr(flags.FLAGS, 'config')
  flags.DEFINE_string('config_name', name, 'The value of --config.')
  config_flags.DEFINE_config_dict('config', config, lock_config=True, sys_argv=rest)
  return rest


def numbers(flag: str, values: Sequence[str], kind: type = float) -> tuple:
  """The values of a list flag as numbers; ValueError naming the flag otherwise."""
  try:
    return tuple(map(kind, values))
  except ValueError:
    raise ValueError(f'--{flag} takes {"whole " * (kind is int)}numbers separated by commas, not '
                     f'{",".join(values)}.') from None


def check_choice(flag: str, values: Sequence[str], known: Sequence[str]) -> None:
  """Raises ValueError unless a list flag has values and all of them are known."""
  unknown = [value for value in values if value not in known]
  if unknown or not values:
    raise ValueError(f'--{flag} takes {", ".join(known)}, not '
                     f'{unknown[0] if unknown else "nothing"!r}.')


def check_file(flag: str, path: str | None) -> pathlib.Path | None:
  """The path of a file to write, None without one.

  Raises ValueError or PermissionError where the file cannot be written.
  """
  if not path:
    return None
  file = pathlib.Path(path)
  if file.is_dir() or not file.parent.is_dir():
    raise ValueError(f'--{flag} must be a file in a folder that exists, not {file}.')
  if not os.access(file if file.exists() else file.parent, os.W_OK):
    raise PermissionError(f'{file} cannot be written to; choose another --{flag}.')
  return file
