#!/usr/bin/env bash
# Makes the environment (once), then trains, tests and reports on this machine:
#   launch/local.sh --config=configs/seam.py:quick [--workdir=DIR] [--config.field=value ...]
# Without --workdir the run lives in runs/<config>_<variant>. A second call resumes it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

config='' workdir=''
for argument in "$@"; do
  case $argument in
    --config=*) config=${argument#--config=} ;;
    --workdir=*) workdir=${argument#--workdir=} ;;
    --help | -h) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  esac
done
if [ -z "$config" ]; then
  echo "error: --config=FILE is needed, such as launch/local.sh --config=configs/seam.py:quick." >&2
  exit 2
fi
prepare_environment
name=${config##*/}
name=${name/.py/}
[ -n "$workdir" ] || set -- "$@" "--workdir=$root/runs/${name/:/_}"
# Large pages for the allocator: a training step on a CPU takes 8 % less time.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec "$PYTHON" -m spinejax.main "$@"
