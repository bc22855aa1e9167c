"""Tests runs on phantoms whose artifacts get stronger: curves, differences, tables, a page.

  spinejax stress --workdirs=runs/rsn,runs/unet
  spinejax stress --workdirs=runs/rsn --artifacts=speckle,holes --strengths=0,1,2,4,8 --cases=60

For each artifact and strength the test phantoms are drawn anew and every run predicts them. The
strength is a factor of config.data.difficulty; 1 is the usual phantom, 0 switches the artifact off.
The other artifacts stay as they are, and so do anatomies and random numbers. The first run is
compared with each other one. Runs must have been trained on VPI phantoms; their classes may differ.

The output folder gets stress.json, stress.csv, stress.png (curves), stress_samples.png and
index.html. A stopped suite goes on with the same command, and a finished one is only read again,
unless a run changed.
"""
import pathlib

from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIRS = flags.DEFINE_list(
    'workdirs', None, 'Folders of trained runs, separated by commas; the first is compared with '
    'the others.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, "Folder for tables, pictures and page; by default 'stress' in the folder of "
    'the first run.')
_ARTIFACTS = flags.DEFINE_list(
    'artifacts', ['speckle', 'mottling', 'gain', 'holes', 'false_bones'],
    'Artifacts that get stronger, separated by commas.')
_STRENGTHS = flags.DEFINE_list(
    'strengths', ['0', '1', '2', '3', '4'], 'Strengths of each artifact, separated by commas.')
_CASES = flags.DEFINE_integer('cases', 29, 'Number of phantoms.')
_CHECKPOINT = cli.define_checkpoint('test')


def main(_) -> None:
  devices.configure_jax()
  from spinejax import stress  # late: --help needs no JAX
  from spinejax.metrics import robustness
  from spinejax.report import pages, terminal

  workdirs = [workdir.strip() for workdir in _WORKDIRS.value if workdir.strip()]
  if not workdirs:
    raise ValueError('--workdirs needs at least one run folder.')
  settings = stress.Settings(tuple(name.strip() for name in _ARTIFACTS.value),
                             cli.numbers('strengths', _STRENGTHS.value), _CASES.value)
  folder = pathlib.Path(_OUTPUT.value or f'{workdirs[0]}/stress')
  found, samples = stress.stress_runs(workdirs, folder, settings, checkpoint=_CHECKPOINT.value)
  page = pages.write_stress(folder, found, samples.name, samples.images)
  robustness.write_tables(folder, found)
  terminal.print_stress(found)
  print(f'Stress suite: {page}')
