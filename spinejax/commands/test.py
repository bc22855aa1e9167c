"""Tests the best checkpoint of a run on its test cases and writes the report.

  spinejax test --workdir=runs/seam_quick
  spinejax test --workdir=runs/seam_quick --checkpoint=last

`spinejax train` does the same after training.
"""
from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR, _CHECKPOINT = cli.define_workdir(), cli.define_checkpoint('test')


def main(_) -> None:
  devices.configure_jax()
  from spinejax import evaluate, runs  # late: --help needs no JAX
  from spinejax.report import pages

  config = runs.load_config(_WORKDIR.value)
  evaluation = evaluate.evaluate(config, _WORKDIR.value, checkpoint=_CHECKPOINT.value)
  pages.report_run(_WORKDIR.value, config, evaluation)
