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
# Trains, tests and reports one config on a node of a Slurm cluster, one task per GPU:
#   sbatch --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh --config=configs/seam.py:quick
# Without --workdir the run lives in runs/<config>_<variant>. Make the environment first, where there
# is a network: SPINEJAX_EXTRAS=cuda launch/local.sh --help. Three minutes before its time is over
# the job saves, and is queued again; a job that is queued again resumes.
set -euo pipefail
# Slurm runs a copy of this file from its spool; the project is where sbatch was called.
launch=$(dirname "${BASH_SOURCE[0]}")
[ -f "$launch/environment.sh" ] || launch=${SLURM_SUBMIT_DIR:-.}/launch
if [ ! -f "$launch/environment.sh" ]; then
  echo "error: call sbatch launch/slurm.sh from the folder of the project." >&2
  exit 2
fi
source "$launch/environment.sh"

config='' workdir=''
for argument in "$@"; do
  case $argument in
    --config=*) config=${argument#--config=} ;;
    --workdir=*) workdir=${argument#--workdir=} ;;
  esac
done
if [ -z "$config" ]; then
  echo "error: --config=FILE is needed, such as sbatch launch/slurm.sh --config=configs/seam.py:quick." >&2
  exit 2
fi
prepare_environment
name=${config##*/}
name=${name/.py/}
[ -n "$workdir" ] || set -- "$@" "--workdir=$root/runs/${name/:/_}"

# Every task sees all GPUs of the node and takes the one of its local number; one that ends with an
# error ends the others.
status=0
srun --gpu-bind=none --kill-on-bad-exit=1 "$PYTHON" -m spinejax.main --multihost "$@" || status=$?
# 130: stopped and saved. A job that is still running was stopped by its time limit; Slurm itself
# queues preempted jobs again, and one that was canceled must not be.
if [ "$status" -eq 130 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
