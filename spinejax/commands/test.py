"""Tests the best checkpoint of a run on its test cases and writes the report.

  spinejax test --workdir=runs/seam_quick
  spinejax test --workdir=runs/seam_quick --checkpoint=last

`spinejax train` does the same after training.
"""
from absl import flags

from spinejax import devices

POSITIONALS = ()

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_CHECKPOINT = flags.DEFINE_enum(
    'checkpoint', 'best', ('best', 'last'), 'Checkpoint to test: the best by validation, or the '
    'last.')


def main(argv) -> None:
  del argv
  devices.configure_jax()
  from spinejax import evaluate, runs  # late: --help needs no JAX
  from spinejax.report import pages

  workdir = _WORKDIR.value
  config = runs.load_config(workdir)
  evaluation = evaluate.evaluate(config, workdir, checkpoint=_CHECKPOINT.value)
  pages.report_run(workdir, config, evaluation)
