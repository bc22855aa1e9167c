"""Collects the results of finished runs as rows of a results file.

  python -m benchmarks.collect --runs=runs --output=launch/results/small_runs.jsonl
  python -m benchmarks.collect --runs=runs --variant=quick --output=launch/results/quick_runs.jsonl

Each run folder in --runs, at any depth, gives a row if its config has the variant: Dice and angle
of every test case, AUC, validation by step, durations, devices. A row of the same config, learning
rate and seed is replaced. A folder that is not finished is named and left out.
"""
import pathlib
import sys

from absl import flags

from spinejax.commands import cli

POSITIONALS = ()

_RUNS = flags.DEFINE_list('runs', ['runs'], 'Folders with run folders.')
_VARIANT = flags.DEFINE_string('variant', 'small', 'Variant that the configs must have.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON Lines file to write.', required=True)


def main(argv) -> None:
  del argv
  from benchmarks import finished_runs

  found, left_out = finished_runs.read_folders(_RUNS.value, _VARIANT.value)
  for reason in left_out:
    print(f'left out: {reason}', file=sys.stderr)
  if not found:
    raise ValueError(f'{", ".join(_RUNS.value)}: no finished run of a variant {_VARIANT.value}.')
  output = pathlib.Path(_OUTPUT.value)
  finished_runs.write_file(output, [*finished_runs.read_file(output), *found])
  print(f'{len(found)} runs in {output}')


if __name__ == '__main__':
  cli.run(main)
