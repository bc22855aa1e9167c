#!/usr/bin/env bash
# Starts the same training on every worker of a Cloud TPU VM that is there already:
#   launch/tpu_vm.sh --tpu=NAME --zone=ZONE [--project=PROJECT] --config=configs/seam.py:ours
#       --workdir=DIR [--config.field=value ...]
#   launch/tpu_vm.sh --tpu=NAME --zone=ZONE --setup     # the environment alone
#   launch/tpu_vm.sh --tpu=NAME --zone=ZONE --stop      # a SIGTERM: the run saves and ends
# It does not create or delete TPUs. First copy the project to the home of every worker:
#   gcloud compute tpus tpu-vm scp --recurse --worker=all . NAME:spinejax --zone=ZONE
# --workdir, and your own data, must be in a folder that all workers see under the same path
# (Filestore, or a bucket mounted with gcsfuse). The workers detect each other. The same command
# resumes. If the connection breaks, the workers may go on: check them, or use --stop.
# Tested with a replacement of gcloud only, never on a TPU.
set -euo pipefail

tpu='' zone='' config='' workdir='' action=train
place=() arguments=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --tpu=*) tpu=${argument#--tpu=} ;;
    --zone=*) zone=$argument; place+=("$argument") ;;
    --project=*) place+=("$argument") ;;
    --setup | --stop) action=${argument#--} ;;
    --config=*) config=$argument; arguments+=("$argument") ;;
    --workdir=*) workdir=$argument; arguments+=("$argument") ;;
    *) arguments+=("$argument") ;;
  esac
done
fail() { echo "error: $1" >&2; exit 2; }
[ -n "$tpu" ] && [ -n "$zone" ] || fail "--tpu=NAME and --zone=ZONE are needed."
launch='cd ~/spinejax && SPINEJAX_EXTRAS=tpu launch/local.sh'
case $action in
  setup) command="$launch --setup" ;;
  stop) command="pkill -TERM -f '[s]pinejax.main'" ;;
  train)
    [ -n "$config" ] || fail "--config=CONFIG is needed, such as --config=configs/seam.py:ours."
    [ -n "$workdir" ] || fail "--workdir=DIR is needed, a folder that all workers see."
    command="$launch --multihost$(printf ' %q' "${arguments[@]}")" ;;
esac
exec gcloud compute tpus tpu-vm ssh "$tpu" "${place[@]}" --worker=all --command="$command"
