"""Test cases of compared runs: image, truth, and what each run found."""
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from rich.console import Console

from spinejax import colors, logs, runs
from spinejax.data import datasets
from spinejax.metrics.comparison import Comparison, case_dice
from spinejax.metrics.results import ComparedCase
from spinejax.readers.records import Record


def load_cases(found: Comparison, roles: Mapping[str, str], *, with_probs: bool = False
               ) -> list[ComparedCase]:
  """Reads test cases, and the masks that the tests of the runs stored.

  Args:
    found: of `comparison.compare_runs`.
    roles: {case: role}, of `comparison.choose_cases`.
    with_probs: restores the network of each run and segments the cases for their probabilities.

  Raises:
    FileNotFoundError: the data are no longer there.
    ValueError: the data are other ones than in the test; a mask or the tested checkpoint is no
      longer there.
  """
  first = found.workdirs[found.runs[0]]
  test = datasets.load_dataset(runs.load_config(first).data)['test']
  if test.fingerprint != found.fingerprint:
    raise ValueError(f'the test data of {first} changed after the test; restore them, or run '
                     'spinejax test on all runs again.')
  records = [test[test.names.index(name)] for name in roles]
  masks = {run: [_read_mask(workdir, record) for record in records]
           for run, workdir in found.workdirs.items()}
  probs = _predict(found, records) if with_probs else {}
  dice = {run: case_dice(found, run) for run in found.runs}

  def case_of(i: int, record: Record, role: str) -> ComparedCase:
    assert record.label is not None  # every test case has one
    gray = record.image[..., 0]
    return ComparedCase(
        record.name, role, _project(gray if gray.ndim == 2 else colors.stretch(gray)),
        _project(record.label), {run: _project(of_run[i]) for run, of_run in masks.items()},
        {run: of_run[record.name] for run, of_run in dice.items()},
        {run: _project(of_run[i]) for run, of_run in probs.items()})

  return [case_of(i, record, role) for i, (record, role) in enumerate(
      zip(records, roles.values()))]


def _project(array: np.ndarray) -> np.ndarray:
  """An image as it is, and the coronal maximum projection of a volume [D,H,W]."""
  return array.max(2) if array.ndim == 3 else array


def _read_mask(workdir: str, record: Record) -> np.ndarray:
  """The mask that a test wrote, int [*S]."""
  assert record.label is not None
  suffix = 'png' if record.label.ndim == 2 else 'npz'
  path = pathlib.Path(workdir) / 'predictions' / f'{record.name}.{suffix}'
  try:
    mask = np.asarray(Image.open(path)) if suffix == 'png' else np.load(path)['mask']
  except Exception:  # missing or damaged, of many kinds
    raise ValueError(f'{path} cannot be read; run spinejax test --workdir={workdir}.') from None
  if mask.shape != record.label.shape:
    raise ValueError(f'{path} has the size {mask.shape}, but the case {record.label.shape}; run '
                     f'spinejax test --workdir={workdir}.')
  return mask


def _predict(found: Comparison, records: Sequence[Record]) -> dict[str, list[np.ndarray]]:
  """Probabilities of any foreground class [*S] of each record, by run."""
  from spinejax.inference import load, predict, restore  # late: masks need no JAX

  steps = next(fact.values for fact in found.facts if fact.key == 'step')
  images = [record.image for record in records]
  probs: dict[str, list[np.ndarray]] = {run: [] for run in found.runs}
  with logs.progress_of('predicting', len(probs) * len(images), Console()) as progress:
    for run, of_run in probs.items():
      workdir = found.workdirs[run]
      restored = (restore.restore_run(workdir, checkpoint) for checkpoint in ('best', 'last'))
      tested = next((of for of in restored if of.step == steps[run]), None)
      if tested is None:
        raise ValueError(f'{workdir} no longer holds the checkpoint of step {steps[run]} that was '
                         f'tested; run spinejax test --workdir={workdir}.')
      predictor = load.create_predictor(tested)
      for prediction in predict.predict_images(predictor, images):
        of_run.append(prediction.probs[..., 1:].sum(-1))
        progress.advance()
  return probs
