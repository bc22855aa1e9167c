"""Shared by all commands: parsing of flags, user errors in one sentence, exit statuses."""
import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from spinejax import config as config_lib
from spinejax import interrupts

flags.disclaim_key_flags()  # --help lists flags that are defined here under the command


def run(main: Callable[[Sequence[str]], int | None], positionals: Sequence[str] = ()) -> None:
  """Runs `main([program, *positionals])` under absl; all positionals are required.

  An error a user can cause prints one line and exits with 1; `--verbosity=1` also prints the
  traceback. Wrong flags exit with 2, an interrupted run with 130.
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
  except (interrupts.Interrupted, KeyboardInterrupt) as stop:
    print(str(stop) or 'interrupted before there was anything to save.', file=sys.stderr)
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
      'Variants combine: seam:fpn,small. --config.FIELD=VALUE changes a field, such as '
      '--config.batch_size=2.')


def define_workdir() -> flags.FlagHolder:
  """Defines --workdir of a run that exists."""
  return flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)


def define_checkpoint(verb: str) -> flags.FlagHolder:
  """Defines --checkpoint; `verb` says what for."""
  return flags.DEFINE_enum('checkpoint', 'best', ('best', 'last'),
                           f'Checkpoint to {verb}: the best by validation, or the last.')


def define_bands() -> flags.FlagHolder:
  """Defines --bands, the limits of severity."""
  return flags.DEFINE_list('bands', ['10', '25', '40'],
                           'Degrees between none, mild, moderate and severe.')


def define_files() -> tuple[flags.FlagHolder, flags.FlagHolder, flags.FlagHolder]:
  """Defines --spacing, --formats and --axes of files that are measured."""
  return (
      flags.DEFINE_list(
          'spacing', None, 'Millimeters per pixel, vertical and horizontal, of images whose files '
          'do not say, such as 0.25,0.25; 1,1 if all that is known is that pixels are square.'),
      flags.DEFINE_list(
          'formats', [], 'Further files for each case with an angle: nifti, seg_nrrd and markups '
          '(3D Slicer, ITK-SNAP), dicom_seg (DICOM viewers; the input must be DICOM).'),
      flags.DEFINE_string(
          'axes', '', 'Directions of the axes, such as RAS. Of volumes: if the files are wrong. Of '
          'images in --formats: of columns, rows and slice, LIP by default; with LPS the files lie '
          'on a PNG as 3D Slicer loads it.'))


def parse_flags(argv: Sequence[str], command: types.ModuleType | None = None) -> list[str]:
  """Parses flags and returns the rest; a wrong flag or config is one line and exit status 2.

  --help prints the docstring and the flags of the command, by default the module that is run.
  """
  app.define_help_flags()
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  if {'--help', '-help', '-h'} & set(argv[1:]):
    command = command or sys.modules['__main__']
    name = sys.argv[0] if command.__name__ == '__main__' else command.__name__
    listed = flags.FLAGS.module_help(name).strip().partition('\n')[2]  # without the module
    print(f'{(command.__doc__ or "").strip()}\n\nFlags:\n{listed}')
    sys.exit(0)
  try:
    return flags.FLAGS(_load_config_flag(list(argv)) if 'config' in flags.FLAGS else argv)
  except (flags.Error, ValueError, TypeError, FileNotFoundError, RecursionError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


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


def report_files(outcomes: Iterable[Any], what: str, count: int, console: Any) -> list[Any]:
  """Prints the notes and faults of files behind a progress bar.

  `outcomes` are those of `inference.measure_files`; returns those without a fault.
  """
  from spinejax import logs  # late: --help needs no rich

  done = []
  with logs.progress_of(what, count, console) as progress:
    for outcome in outcomes:
      progress.advance()
      for note in outcome.notes:
        print(f'{outcome.path.name}: {note}', file=sys.stderr)
      if outcome.fault:
        print(f'skipped: {outcome.fault}', file=sys.stderr)
      else:
        done.append(outcome)
  return done
