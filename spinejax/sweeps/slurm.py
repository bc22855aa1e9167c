"""Runs members of a sweep as a Slurm array of launch/slurm.sh."""
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from spinejax import runs
from spinejax.sweeps.members import Member

LAUNCHER = pathlib.Path(__file__).resolve().parents[2] / 'launch' / 'slurm.sh'


def array_script(members: Sequence[Member]) -> str:
  """The options of launch/slurm.sh, then one call of it for each index of the array.

  Raises:
    ValueError: spinejax is installed without its launch folder.
  """
  if not LAUNCHER.is_file():
    raise ValueError('--slurm needs launch/slurm.sh; run it from a clone of the repository.')
  options = [line for line in LAUNCHER.read_text().splitlines() if line.startswith('#SBATCH')]
  calls = [f'  {index}) exec {shlex.join([str(LAUNCHER), *member.arguments])}'
           f' >> {shlex.quote(str(member.log.resolve()))} 2>&1 ;;'
           for index, member in enumerate(members)]
  return '\n'.join(['#!/usr/bin/env bash', *options, 'case $SLURM_ARRAY_TASK_ID in', *calls, 'esac',
                    ''])


def submit(members: Sequence[Member], output: str, jobs: int | None, options: Sequence[str]
           ) -> None:
  """Submits a Slurm array of the members.

  Raises:
    ValueError: there is no sbatch here, or it failed.
  """
  if shutil.which('sbatch') is None:
    raise ValueError('sbatch was not found; --slurm is for the login node of a Slurm cluster.')
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  script = folder / 'array.sh'
  runs.write_text(script, array_script(members))
  array = f'--array=0-{len(members) - 1}' + (f'%{jobs}' if jobs else '')
  command = ['sbatch', array, f'--output={folder / "slurm-%A_%a.log"}', *options, str(script)]
  print(shlex.join(command), flush=True)
  if status := subprocess.run(command, check=False).returncode:
    raise ValueError(f'sbatch ended with status {status}; see above.')
