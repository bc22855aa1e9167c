"""Trains all members of a sweep and collects their results in one table.

  spinejax sweep --config=configs/seam.py --output=runs/sweep
  spinejax sweep --config=seam:small --output=runs/sweep --only=variant=ours --jobs=2
  spinejax sweep --config=seam:quick --output=runs/sweep --grid=optimizer.learning_rate=1e-3,2e-3

sweep() of the config yields overrides such as {'variant': 'ours', 'seed': 1}. Each is a member with
a run folder, runs/sweep/ours_seed=1, and a log beside it. A variant given with the config is added
to each member's, as in seam:ours,small. --config.FIELD=VALUE changes a field of all members.

  --table=1      takes the rows of one of the config's TABLES
  --grid=FIELD=a,b   takes all combinations of the values of the grids in place of sweep(); the
                 fields may include seed and variant
  --random=20    draws 20 combinations of the grids, with all seeds each; a grid may then be a
                 range, low..high (uniform) or log:low..high. --random_seed draws others
  --choose=FIELD=a,b   trains the first seed of each group with every value, chooses that of the
                 best validation score and trains the other seeds with it

  --print        prints the commands and runs nothing
  --jobs=4       runs four at a time, each with a share of the cores and of $CUDA_VISIBLE_DEVICES
  --slurm        submits the members as a Slurm array of launch/slurm.sh; --jobs limits how many run
                 at a time, --sbatch="--partition=gpu --time=8:00:00" is passed to sbatch
  --collect      only makes the table of the results there are

The same command resumes a sweep: finished members are skipped, others go on. With --slurm and
--choose it is given twice: for all values, and for the other seeds once these are finished. A
failed member does not stop the others; its last error line is printed, and the exit status is 1.
The table groups the members by all overrides but the seed and gives mean and standard deviation
(n - 1) over seeds. OUTPUT/results.csv and results.json hold every metric, OUTPUT/members.csv those
of each member.
"""
import shlex
import sys
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from spinejax.commands import cli

if TYPE_CHECKING:
  from spinejax.sweeps.members import Member

POSITIONALS = ()

cli.define_config()
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder of the sweep: run folders of the members and the table.', required=True)
_TABLE = flags.DEFINE_string('table', '', "One of the config's TABLES; by default all.")
_GRID = flags.DEFINE_multi_string(
    'grid', [], 'FIELD=VALUE,VALUE: members in place of sweep(). Repeat it for further fields.')
_RANDOM = flags.DEFINE_integer(
    'random', None, 'Number of combinations to draw from --grid.', lower_bound=1)
_RANDOM_SEED = flags.DEFINE_integer('random_seed', 0, 'Seed of --random.')
_CHOOSE = flags.DEFINE_string(
    'choose', '', 'FIELD=VALUE,VALUE: the best by validation of the first seed of each group.')
_PRINT = flags.DEFINE_bool('print', False, 'Print the commands and run nothing.')
_SLURM = flags.DEFINE_bool('slurm', False, 'Submit a Slurm array instead of running here.')
_COLLECT = flags.DEFINE_bool('collect', False, 'Run nothing and collect the results there are.')
_JOBS = flags.DEFINE_integer(
    'jobs', None, 'Members that run at a time; by default 1 here, and no limit on Slurm.',
    lower_bound=1)
_ONLY = flags.DEFINE_multi_string(
    'only', [], 'Take the members with KEY=VALUE. Repeat it for other values or further keys.')
_SBATCH = flags.DEFINE_string('sbatch', '', 'Options for sbatch, with --slurm.')


def main(_) -> int:
  from rich.console import Console  # late: --help is fast
  from spinejax.sweeps import choice, launch, members, table

  everyone, field = _create_members()
  selected = {member.name for member in members.select_members(everyone, _ONLY.value)}
  failed: dict[str, str] = {}
  console = Console()
  while True:  # with --choose, the second round has the chosen members
    choices = choice.decide(everyone, field) if field else ()
    due = choice.select_due(everyone, choices)
    ours = [member for member in due if member.name in selected]
    if _PRINT.value:
      print('\n'.join(shlex.join(member.command) for member in ours))
      return 0
    unfinished, refused = _find_unfinished(ours)
    failed |= refused
    unfinished = [member for member in unfinished if member.name not in failed]
    if _SLURM.value and unfinished:
      launch.submit(unfinished, _OUTPUT.value, _JOBS.value, shlex.split(_SBATCH.value))
      if any(found.value is None for found in choices):
        print('When these have finished, the same command chooses the values and submits the other '
              'seeds.')
      return 0
    if _COLLECT.value or not unfinished:
      break
    failed |= launch.run_members(unfinished, _JOBS.value or 1, console)
  results = table.collect(due, failed, choices)
  table.write_results(results, _OUTPUT.value)
  table.print_results(results, _OUTPUT.value, console)
  errors = {row.name: row.error for row in results.members if row.error and row.name in selected}
  errors |= {members.label(found.group): f'training diverged with every value of {field}'
             for found in choices if found.is_hopeless}
  for name, error in errors.items():
    print(f'{name}: {error}', file=sys.stderr)
  if errors:
    print(f'error: {len(errors)} of {len(ours)} members have no results; see above and their '
          f'logs, {_OUTPUT.value}/NAME.log.', file=sys.stderr)
  return bool(errors)


def _create_members() -> 'tuple[list[Member], str]':
  """All members that the flags describe, and the field of --choose or ''."""
  from spinejax.sweeps import choice, grid, members

  if flags.FLAGS.config is None:
    raise ValueError('--config=CONFIG is needed, such as --config=configs/seam.py.')
  if _PRINT.value + _SLURM.value + _COLLECT.value > 1:
    raise ValueError('give one of --print, --slurm and --collect.')
  if _GRID.value and _TABLE.value:
    raise ValueError('give --grid or --table; a table has its own members.')
  if _RANDOM.value and not _GRID.value or flags.FLAGS['random_seed'].present and not _RANDOM.value:
    raise ValueError('--random needs --grid=FIELD=VALUES, and --random_seed needs --random.')
  config = flags.FLAGS.config_name
  axes = [grid.parse_axis('grid', text) for text in _GRID.value]
  items = (grid.create_items(config, axes, _RANDOM.value, _RANDOM_SEED.value) if axes
           else members.read_items(config, _TABLE.value))
  field = ''
  if _CHOOSE.value:
    axis = grid.parse_axis('choose', _CHOOSE.value)
    items, field = grid.expand(config, items, axis), axis.field
  everyone = members.create_members(config, items, _OUTPUT.value,
                                    config_flags.get_override_values(flags.FLAGS['config']))
  if field:
    choice.check(everyone, field)
  return everyone, field


def _find_unfinished(due: 'list[Member]') -> 'tuple[list[Member], dict[str, str]]':
  """The members to run, and errors of those whose folders hold other runs."""
  from spinejax.sweeps import members

  unfinished, refused = [], {}
  for member in due:
    try:
      if not members.is_finished(member):
        unfinished.append(member)
    except ValueError as error:
      refused[member.name] = ' '.join(str(error).split())
  return unfinished, refused
