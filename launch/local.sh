#!/usr/bin/env bash
# Creates the environment (once), then trains, tests and reports on this machine:
#   launch/local.sh --config=configs/seam.py:quick [--workdir=DIR] [--config.field=value ...]
# Without --workdir the run folder is runs/CONFIG_VARIANT. A second call resumes the run.
# launch/local.sh --setup only creates the environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --setup) prepare_environment; exit 0 ;;
  esac
done
require_config "$@"
prepare_environment
# Large pages for the allocator: a training step on a CPU takes 8 % less time.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec "$PYTHON" -m spinejax.main "$@"
