#!/usr/bin/env bash
#SBATCH --job-name=spinejax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains, tests and reports one config on nodes of a Slurm cluster, one task per GPU:
#   SPINEJAX_EXTRAS=cuda launch/local.sh --setup     # once, where there is a network
#   sbatch launch/slurm.sh --config=configs/seam.py:ours [--workdir=DIR] [--config.field=value ...]
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh --config=...
# Without --workdir the run folder is runs/CONFIG_VARIANT. Three minutes before its time limit the
# job saves and is queued again, as is a preempted job. The same command resumes a run, with any
# number of GPUs that divides its batch. SPINEJAX_EXTRAS= (empty) trains on CPUs.
set -euo pipefail
# Slurm runs a copy of this file from its spool; the project is where sbatch was called.
launch=$(dirname "${BASH_SOURCE[0]}")
[ -f "$launch/environment.sh" ] || launch=${SLURM_SUBMIT_DIR:-.}/launch
if [ ! -f "$launch/environment.sh" ]; then
  echo "error: call sbatch launch/slurm.sh from the folder of the project." >&2
  exit 2
fi
source "$launch/environment.sh"
require_config "$@"
export SPINEJAX_EXTRAS=${SPINEJAX_EXTRAS-cuda}
prepare_environment

# The tasks handle a TERM; this script ignores it and waits for them. Every task sees all GPUs of its
# node and takes the one of its local number. A task that fails ends the others itself, after they
# have saved; Slurm must not kill them.
trap : TERM
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --gpu-bind=none --kill-on-bad-exit=0 \
  "$PYTHON" -m spinejax.main --multihost "$@" || status=$?
# 130: stopped during training, and saved; 143: stopped during the test. A job in state RUNNING was
# stopped by its time limit. Slurm queues preempted jobs itself; canceled ones must stay canceled.
job=$SLURM_JOB_ID  # of an array: this task alone
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
if [[ $status == 130 || $status == 143 ]] &&
    [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
  scontrol requeue "$job"
fi
exit "$status"
