"""Trains, evaluates and reports one configuration.

  python -m spinejax.main --config=configs/seam.py:quick --workdir=runs/seam_quick

A second run in the same --workdir resumes. Any field of the config can be overridden on the
command line, as in --config.seed=2 or --config.data.directory=my_images.
"""
from absl import flags
from ml_collections import config_flags

from spinejax import cli

MODES = ('train_and_evaluate', 'train', 'evaluate')

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file and variant, such as configs/seam.py:quick; with '
    '--mode=evaluate it may be left out, the config of the run is used.', lock_config=True)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: checkpoints, metrics, predictions, report.', required=True)
_MODE = flags.DEFINE_enum(
    'mode', 'train_and_evaluate', MODES, "'train' stops after training; 'evaluate' restores the "
    'best checkpoint, tests it and writes the report.')


def main(argv) -> None:
  del argv
  cli.configure_jax()
  from spinejax import evaluate, runs, train  # late: --help and config errors need no JAX

  config = _CONFIG.value
  if config is None:
    if _MODE.value != 'evaluate':
      raise ValueError('--config=FILE is needed, such as --config=configs/seam.py:quick.')
    config = runs.load_config(_WORKDIR.value)
  run = {'train_and_evaluate': train.train_and_evaluate, 'train': train.train,
         'evaluate': evaluate.evaluate}[_MODE.value]
  run(config, _WORKDIR.value)


if __name__ == '__main__':
  cli.run(main)
