#!/usr/bin/env bash
# Creates the environment (once), then runs the tests on two processes:
#   launch/test.sh [pytest arguments, such as tests/losses or -k dice]
# Without arguments the code is first checked by ruff and mypy.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test
cd "$root"
if [ $# -eq 0 ]; then
  "$PYTHON" -m ruff check
  "$PYTHON" -m mypy
fi
exec "$PYTHON" -m pytest -n 2 --dist loadgroup "$@"
