#!/usr/bin/env bash
# Creates the environment (once), then builds the documentation into build/docs, strictly:
#   launch/docs.sh [mkdocs arguments]     launch/docs.sh serve     shows it at 127.0.0.1:8000
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment docs
cd "$root"
export NO_MKDOCS_2_WARNING=1  # an advertisement of Material for MkDocs
if [ "${1:-}" = serve ]; then
  exec "$PYTHON" -m mkdocs serve --strict "${@:2}"
fi
exec "$PYTHON" -m mkdocs build --strict --quiet --site-dir=build/docs "$@"
