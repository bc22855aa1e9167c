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
# Without --workdir the run lives in runs/<config>_<variant>. Three minutes before its time is over
# the job saves and is queued again; so is a preempted one. The same command resumes a run, with any
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

# A TERM is for the tasks: this script outlives it to see how they end. Every task sees all GPUs of
# its node and takes the one of its local number. One that ends with an error ends the others
# itself; Slurm killing them would hide that all have saved.
trap : TERM
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --gpu-bind=none --kill-on-bad-exit=0 \
  "$PYTHON" -m spinejax.main --multihost "${arguments[@]}" || status=$?
# 130: stopped in training, and saved; 143: stopped in testing. A job that is still running was
# stopped by its time limit; Slurm queues preempted jobs again, and canceled ones must not be.
job=$SLURM_JOB_ID  # of an array: this task alone
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
if [[ $status == 130 || $status == 143 ]] &&
    [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
  scontrol requeue "$job"
fi
exit "$status"
