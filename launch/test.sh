#!/usr/bin/env bash
# Makes the environment (once), then runs the tests on two processes:
#   launch/test.sh [pytest arguments, such as tests/losses or -k dice]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test
cd "$root"
exec "$PYTHON" -m pytest -n 2 --dist loadgroup "$@"
