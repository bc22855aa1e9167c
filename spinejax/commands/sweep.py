"""Trains all members of a config's sweep() and collects their results in one table.

  spinejax sweep --config=configs/seam.py --output=runs/sweep
  spinejax sweep --config=seam --output=runs/sweep --only=variant=ours --jobs=2

sweep() yields overrides such as {'variant': 'ours', 'seed': 1}. Each is a member with a run folder,
runs/sweep/ours_seed=1, and a log beside it. --config.FIELD=VALUE changes a field of all members.

  --print     prints the commands and runs nothing
  --jobs=4    runs four at a time, each with a share of the cores and of $CUDA_VISIBLE_DEVICES
  --slurm     submits the members as a Slurm array of launch/slurm.sh; --jobs limits how many run at
              a time, --sbatch="--partition=gpu --time=8:00:00" is passed to sbatch
  --collect   only makes the table of the results there are

The same command resumes a sweep: finished members are skipped, others go on. A failed member does
not stop the others; its last error line is printed, and the exit status is 1. The table groups the
members by all overrides but the seed and gives mean and standard deviation (n - 1) over seeds.
OUTPUT/results.csv and results.json hold every metric, OUTPUT/members.csv those of each member.
"""
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from spinejax.commands import cli

POSITIONALS = ()

cli.define_config()
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder of the sweep: run folders of the members and the table.', required=True)
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
  from spinejax.sweeps import launch, members, table

  if flags.FLAGS.config is None:
    raise ValueError('--config=CONFIG is needed, such as --config=configs/seam.py.')
  if _PRINT.value + _SLURM.value + _COLLECT.value > 1:
    raise ValueError('give one of --print, --slurm and --collect.')
  extra = config_flags.get_override_values(flags.FLAGS['config'])
  everyone = members.create_members(flags.FLAGS.config_name, _OUTPUT.value, extra)
  selected = members.select_members(everyone, _ONLY.value)
  if _PRINT.value:
    print('\n'.join(shlex.join(member.command) for member in selected))
    return 0
  failed, unfinished = {}, []
  for member in selected:
    try:
      if not members.is_finished(member):
        unfinished.append(member)
    except ValueError as error:
      failed[member.name] = ' '.join(str(error).split())
  if _SLURM.value and unfinished:
    launch.submit(unfinished, _OUTPUT.value, _JOBS.value, shlex.split(_SBATCH.value))
    return 0
  console = Console()
  if not _COLLECT.value and unfinished:
    failed |= launch.run_members(unfinished, _JOBS.value or 1, console)
  results = table.collect(everyone, failed)
  table.write_results(results, _OUTPUT.value)
  table.print_results(results, _OUTPUT.value, console)
  names = {member.name for member in selected}
  errors = {row.name: row.error for row in results.members if row.error and row.name in names}
  for name, error in errors.items():
    print(f'{name}: {error}', file=sys.stderr)
  if errors:
    print(f'error: {len(errors)} of {len(selected)} members have no results; see above and their '
          f'logs, {_OUTPUT.value}/NAME.log.', file=sys.stderr)
  return bool(errors)
