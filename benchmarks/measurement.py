"""Errors of measured angles on phantoms with exact and with spoiled masks.

  python -m benchmarks.measurement --cases=40 --seed=61 --output=launch/results/measurement.jsonl

The seeds are (seed, 0) to (seed, cases - 1). One row for each method and kind of mask, with the
columns of `benchmarks.angle_errors`.
"""
import json
import pathlib

from absl import flags

from benchmarks import facts
from spinejax.commands import cli

POSITIONALS = ()

_CASES = flags.DEFINE_integer('cases', 40, 'Phantoms per row.', lower_bound=2)
_SEED = flags.DEFINE_integer('seed', 11, 'First number of the seeds.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON Lines file to append to.')


def main(argv) -> None:
  del argv
  from benchmarks import measure_laminae, measure_vpi

  for benchmark in (measure_vpi, measure_laminae):
    for name, errors in benchmark.rows(_CASES.value, _SEED.value):
      row = {'row': name, 'cases': _CASES.value, 'seed': _SEED.value, **errors}
      print(json.dumps(row), flush=True)
      if _OUTPUT.value:
        facts.append_row(pathlib.Path(_OUTPUT.value), row | facts.machine_facts())


if __name__ == '__main__':
  cli.run(main)
