# Sourced by local.sh, slurm.sh, test.sh and docs.sh.
#   prepare_environment [EXTRA ...]   creates .venv with the project, once, and sets $PYTHON. Adds the
#     named extras of pyproject.toml and those of $SPINEJAX_EXTRAS (comma-separated: cuda, tpu,
#     medical, tensorboard).
#   require_config ARGUMENT ...       exits with 2 unless one of the arguments is --config=CONFIG.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
  local candidate
  for candidate in "${SPINEJAX_PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14 python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "$candidate"
    return
  done
  echo "error: Python 3.11 or newer is needed and was not found (python3 is $(python3 --version 2>&1)); install it or set SPINEJAX_PYTHON=/path/to/python3." >&2
  return 1
}

prepare_environment() {
  local extras="${*:-} ${SPINEJAX_EXTRAS:-}" venv=${SPINEJAX_VENV:-$root/.venv} base wanted stamp
  base=$(find_python) || return 1
  extras=$(echo $extras | tr ' ' ',')
  stamp=$venv/installed${extras:+-$extras}
  wanted=$("$base" --version; echo "$root"; cat "$root/pyproject.toml" "$root/launch/constraints.txt")
  PYTHON=$venv/bin/python
  if [ ! -f "$stamp" ] || [ "$wanted" != "$(cat "$stamp")" ]; then
    echo "Setting up $venv with $("$base" --version) (about two minutes, once) ..." >&2
    [ -x "$PYTHON" ] && "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
      "$base" -m venv --clear "$venv" ||
      { echo "error: could not create $venv with $base -m venv." >&2; return 1; }
    "$PYTHON" -m pip install --quiet --disable-pip-version-check \
      --constraint "$root/launch/constraints.txt" --editable "$root${extras:+[$extras]}" ||
      { echo "error: the packages could not be installed; see the lines above." >&2; return 1; }
    printf '%s\n' "$wanted" > "$stamp"
  fi
}

require_config() {
  local argument
  for argument in "$@"; do
    case $argument in --config=?*) return ;; esac
  done
  echo "error: --config=CONFIG is needed, such as --config=configs/seam.py:quick." >&2
  exit 2
}
