#!/usr/bin/env bash
# Makes the environment (once), then runs the tests on two processes:
#   launch/test.sh [pytest arguments, such as tests/losses or -k dice]
# Without arguments the code is first linted and its types are checked; these are held against the
# libraries of Python 3.11, as the stubs of the newer NumPy, from Python 3.12 on, refuse a.max().
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test
cd "$root"
if [ $# -eq 0 ]; then
  "$PYTHON" -m ruff check
  if "$PYTHON" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then "$PYTHON" -m mypy; fi
fi
exec "$PYTHON" -m pytest -n 2 --dist loadgroup "$@"
