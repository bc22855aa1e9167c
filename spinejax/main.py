"""Trains, evaluates and reports one configuration.

  python -m spinejax.main --config=configs/seam.py:quick --workdir=runs/seam_quick

A second run in the same --workdir resumes. Any field of the config can be overridden on the
command line, as in --config.seed=2 or --config.data.directory=my_images.

With --multihost the same command is started once per machine or per GPU, and the processes train
together: Slurm (launch/slurm.sh), Open MPI, Cloud TPU and GKE are recognized. The folder of the run
must be one that all of them see.
"""
import contextlib

from absl import flags
from ml_collections import config_flags

from spinejax.commands import cli

MODES = ('train_and_evaluate', 'train', 'evaluate')

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file and variant, such as configs/seam.py:quick; with '
    '--mode=evaluate it may be left out, the config of the run is used.', lock_config=True)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: checkpoints, metrics, predictions, report.', required=True)
_MODE = flags.DEFINE_enum(
    'mode', 'train_and_evaluate', MODES, "'train' stops after training; 'evaluate' restores the "
    'best checkpoint, tests it and writes the report.')

_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of this command.')
_COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, with --multihost outside of a known cluster.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which this one is, from 0.', lower_bound=0)


def main(argv) -> None:
  del argv
  cli.configure_jax()
  explicit = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  if not _MULTIHOST.value and explicit != (None, None, None):
    raise ValueError('--coordinator, --num_processes and --process_id need --multihost.')
  with cli.joined(*explicit) if _MULTIHOST.value else contextlib.nullcontext():
    _run()


def _run() -> None:
  import jax
  from spinejax import evaluate, runs, train

  config = _CONFIG.value
  if config is None:
    if _MODE.value != 'evaluate':
      raise ValueError('--config=FILE is needed, such as --config=configs/seam.py:quick.')
    config = runs.load_config(_WORKDIR.value)
  run = {'train_and_evaluate': train.train_and_evaluate, 'train': train.train,
         'evaluate': evaluate.evaluate}[_MODE.value]
  if _MODE.value != 'evaluate' or jax.process_index() == 0:  # one process tests
    run(config, _WORKDIR.value)


if __name__ == '__main__':
  cli.run(main)
