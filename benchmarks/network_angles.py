"""Errors of the angles of networks' masks on phantoms that no run has seen.

  python -m benchmarks.network_angles --workdirs=runs/a,runs/b --cases=60 --seed=71 \
    --output=launch/results/network_angles.jsonl

Each run predicts phantoms of its own kind, size and difficulty, drawn from the seed, and measures
them as `spinejax test` does. One row for each run; the columns are those of
`benchmarks.angle_errors`.
"""
import json
import pathlib
import time

from absl import flags

from benchmarks import facts
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIRS = flags.DEFINE_list('workdirs', None, 'Run folders separated by commas.', required=True)
_CASES = flags.DEFINE_integer('cases', 60, 'Phantoms for each run.', lower_bound=2)
_SEED = flags.DEFINE_integer('seed', 71, 'config.data.split_seed of the phantoms.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON Lines file to append to.')


def measure_run(workdir: str, cases: int, seed: int) -> dict:
  """The row of a run; ValueError if it was not trained on phantoms."""
  from benchmarks import angle_errors
  from spinejax.data import datasets
  from spinejax.inference import load, predict

  predictor = load.load_predictor(workdir)
  data = predictor.config.data
  if not data.name.endswith('_phantom'):
    raise ValueError(f'{workdir} was trained on {data.name}, not on phantoms.')
  source = datasets.load_phantoms({**data, 'split_seed': seed, 'num_train': 0,
                                   'num_validation': 0, 'num_test': cases})['test']
  found = []
  for i in range(len(source)):
    record = source[i]
    true = record.true_angles[predictor.config.angle.method]
    prediction, = predict.predict_images(predictor, [record.image])
    start = time.perf_counter()
    result = predict.measure_prediction(predictor, prediction.mask, record.spacing,
                                        probs=prediction.probs)
    found.append(angle_errors.Case(result, true, 0.0, 1e3 * (time.perf_counter() - start)))
  return {'workdir': pathlib.Path(workdir).name, 'method': predictor.config.angle.method,
          'seed': predictor.config.seed, 'cases': cases, 'split_seed': seed,
          **angle_errors.summarize(found)}


def main(argv) -> None:
  del argv
  for workdir in _WORKDIRS.value:
    row = measure_run(workdir, _CASES.value, _SEED.value)
    print(json.dumps(row), flush=True)
    if _OUTPUT.value:
      facts.append_row(pathlib.Path(_OUTPUT.value), row | facts.machine_facts())


if __name__ == '__main__':
  cli.run(main)
