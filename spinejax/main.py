"""Trains a config, tests the best checkpoint and writes the report.

  python -m spinejax.main --config=configs/seam.py:quick
  spinejax train --config=seam:quick --workdir=runs/mine --config.seed=2

The run folder is runs/CONFIG_VARIANT unless --workdir names another one. The same command resumes
a run that was stopped. Any field of the config is a flag, as in --config.data.directory=my_images.

With --multihost the same command is started once per machine or per GPU, and the processes train
together. Slurm (launch/slurm.sh), Open MPI, Cloud TPU and GKE are detected. All processes must see
the run folder.
"""
import contextlib

from absl import app, flags

from spinejax import devices, multihost
from spinejax.commands import cli

POSITIONALS = ()

cli.define_config()
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: checkpoints, metrics, predictions, report; by default '
    'runs/CONFIG_VARIANT.')
_TEST = flags.DEFINE_bool('test', True, 'Test the best checkpoint and write the report afterwards.')
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of this command.')
_COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, with --multihost outside of a known cluster.')
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'Number of processes, with --coordinator.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Index of this process from 0, with --coordinator.', lower_bound=0)


def main(argv) -> None:
  with cli.user_errors():
    cli.check_positionals(argv, POSITIONALS)
    processes = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if not _MULTIHOST.value and processes != (None, None, None):
      raise ValueError('--coordinator, --num_processes and --process_id need --multihost.')
    config, workdir = flags.FLAGS.config, _WORKDIR.value
    if config is None or workdir is None:
      raise ValueError('--config=CONFIG is needed, such as --config=configs/seam.py:quick.')
    devices.configure_jax()
    import jax  # late: --help and config errors need no JAX
    from spinejax import train

    with (multihost.joined_processes(*processes) if _MULTIHOST.value
          else contextlib.nullcontext()):
      train.train(config, workdir)
      if _TEST.value and jax.process_index() == 0:
        from spinejax import evaluate
        from spinejax.report import pages
        pages.report_run(workdir, config, evaluate.evaluate(config, workdir))


if __name__ == '__main__':
  app.run(main, flags_parser=cli.parse_flags)
