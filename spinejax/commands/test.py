"""Tests the best checkpoint of a run on its test cases and writes the report.

  spinejax test --workdir=runs/seam_quick
  spinejax test --workdir=runs/seam_quick --checkpoint=last
  spinejax test --workdir=runs/xray_unet_quick --interlaced

`spinejax train` does the same after training.
"""
from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR, _CHECKPOINT = cli.define_workdir(), cli.define_checkpoint('test')
_INTERLACED = flags.DEFINE_bool(
    'interlaced', False, 'Write predictions/NAME_interlaced.png of every test image: the image in '
    'even rows, the predicted mask in odd rows.')


def main(_) -> None:
  devices.configure_jax()
  from spinejax import evaluate, runs  # late: --help needs no JAX
  from spinejax.report import pages

  config = runs.load_config(_WORKDIR.value)
  evaluation = evaluate.evaluate(config, _WORKDIR.value, checkpoint=_CHECKPOINT.value,
                                 interlaced=_INTERLACED.value)
  pages.report_run(_WORKDIR.value, config, evaluation)
