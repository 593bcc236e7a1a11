#!/usr/bin/env bash
# One command from a fresh checkout to market data in Iceberg. Needs Python 3.11 and nothing else:
# no root, Java, Docker or server. Writes only to this checkout and to the cache.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CACHE="${K2BEAM_CACHE:-${HOME:?set HOME or K2BEAM_CACHE}/.cache/k2beam}"
VENV="${K2BEAM_VENV:-$ROOT/.venv}"
PYTHON="$VENV/bin/python"
SAMPLES=(samples/asx samples/crypto)

usage() {
  cat <<'TEXT'
usage: ./run_local.sh [--warehouse DIR]   load the samples into DIR (default: warehouse in the checkout) and audit them
       ./run_local.sh test [PYTEST ARGS]  run the tests
       ./run_local.sh full [PYTEST ARGS]  run the long set of tests too
       ./run_local.sh setup [run|test|dev] make the environment only

environment: K2BEAM_CACHE   what is downloaded or built (default: ~/.cache/k2beam)
             K2BEAM_PYTHON  the Python 3.11 to use
             K2BEAM_VENV    an environment that is ready: nothing is installed
TEXT
}

say() { printf '\n== %s\n' "$*" >&2; }

fail() {
  printf 'run_local.sh: %s\n' "$*" >&2
  exit 2
}

# --- the environment ---------------------------------------------------------

is_python311() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1
}

# pyenv's shim of python3.11 is on the PATH even when another version is chosen, so each candidate is run.
find_python() {
  local candidate
  for candidate in "${K2BEAM_PYTHON:-python3.11}" python3.11 python3 python "${HOME:-}"/.pyenv/versions/3.11.*/bin/python; do
    if is_python311 "$candidate"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "needs Python 3.11 with its venv module, and none of python3.11, python3, python or pyenv's is one.
Install it (Debian and Ubuntu: apt install python3.11-venv; macOS: brew install python@3.11; pyenv install 3.11)
or name it: K2BEAM_PYTHON=/path/to/python3.11 ./run_local.sh"
}

use_cache() {
  if ! mkdir -p "$CACHE/pip" 2>/dev/null || [ ! -w "$CACHE/pip" ]; then
    fail "can't write to the cache $CACHE: set K2BEAM_CACHE to a folder you may write to"
  fi
  export K2BEAM_CACHE="$CACHE" PIP_CACHE_DIR="$CACHE/pip" PIP_DISABLE_PIP_VERSION_CHECK=1
  if [ ! -w "${TMPDIR:-/tmp}" ]; then
    mkdir -p "$CACHE/tmp"
    export TMPDIR="$CACHE/tmp"
  fi
}

# The mark is written when the environment is whole: one that was cut off has none, and one that was copied or moved
# with its checkout, whose scripts point to the old place, has another.
make_venv() {
  local python
  if is_python311 "$PYTHON" && [ "$(cat "$VENV/k2beam-home" 2>/dev/null)" = "$VENV" ]; then
    return
  fi
  python="$(find_python)"
  say "Making $VENV with $python"
  "$python" -m venv --clear "$VENV"
  printf '%s\n' "$VENV" >"$VENV/k2beam-home"
}

stamp_of() {
  (cd "$ROOT" && "$PYTHON" - "requirements/$1.txt" setup.py pyproject.toml) <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(sys.version.encode())
for name in sys.argv[1:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

# setup_environment run|test|dev: each lock file holds the ones before it.
setup_environment() {
  local lock="requirements/$1.txt" stamp="$VENV/k2beam-$1.stamp" wanted
  [ -f "$ROOT/$lock" ] || fail "no lock file $lock: choose run, test or dev"
  use_cache
  if [ -n "${K2BEAM_VENV:-}" ]; then
    is_python311 "$PYTHON" || fail "K2BEAM_VENV=$VENV has no Python 3.11 in bin/python"
    return
  fi
  make_venv
  wanted="$(stamp_of "$1")"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  say "Installing $lock into $VENV (about a minute the first time)"
  (
    cd "$ROOT"
    "$PYTHON" -m pip install --quiet --require-hashes -r "$lock"
    "$PYTHON" -m pip install --quiet --no-deps --no-build-isolation -e .
  )
  printf '%s\n' "$wanted" >"$stamp"
}

# --- the sample run ----------------------------------------------------------

k2beam() { "$VENV/bin/k2beam" "$@"; }

show() {
  say "k2beam $*"
  k2beam "$@"
}

say_what_next() {
  cat <<TEXT

The data is in $1. To go on:
  '$VENV/bin/k2beam' query summary --symbol BTCUSDT --day 2026-01-05 --warehouse '$1'
  '$VENV/bin/k2beam' query snapshots --warehouse '$1'
  '$VENV/bin/k2beam' simulate --rows 100000 --symbols 20 --seed 1 --faults gaps=5,duplicates=10 '$1-feed'
The rows as a pandas DataFrame, in '$PYTHON' (more in examples/dataframe.py):
  >>> from k2beam import Lake
  >>> Lake(warehouse="$1").trades(symbol="BTCUSDT", columns=["timestamp", "price", "quantity"]).to_pandas()
TEXT
}

run_samples() {
  local warehouse="$ROOT/warehouse" sample
  while [ $# -gt 0 ]; do
    case "$1" in
      --warehouse=*) set -- --warehouse "${1#*=}" "${@:2}" ;;
      --warehouse) [ $# -ge 2 ] || fail "--warehouse needs a folder"
        warehouse="$2"
        shift 2 ;;
      *) usage >&2
        fail "unknown argument: $1" ;;
    esac
  done
  case "$warehouse" in /*) ;; *) warehouse="$PWD/$warehouse" ;; esac
  setup_environment run
  cd "$ROOT"
  for sample in "${SAMPLES[@]}"; do
    [ -d "$sample" ] || fail "the sample $sample is missing from the checkout: git checkout -- samples"
  done
  show ingest archive "${SAMPLES[@]}" --warehouse "$warehouse" --output json
  show query trades --warehouse "$warehouse" --limit 5
  show gaps --warehouse "$warehouse"
  show dlq list --warehouse "$warehouse"
  show audit --warehouse "$warehouse" --source samples/asx --source samples/crypto
  say_what_next "$warehouse"
}

# --- the tests ---------------------------------------------------------------

# Prism is the one program outside PyPI that is made before the tests start: building it takes minutes.
fetch_test_programs() {
  local prism
  if prism="$("$PYTHON" -m k2beam.stack.prism)"; then
    export K2BEAM_PRISM="$prism"
  elif [ -n "${K2BEAM_PRISM:-}" ]; then
    fail "K2BEAM_PRISM=$K2BEAM_PRISM is not a usable Prism: unset it to have one built"
  else
    say "There is no Prism: the tests that need it are skipped, and named at the end"
  fi
}

run_tests() {
  setup_environment test
  cd "$ROOT"
  fetch_test_programs
  # Two at a time, each with servers of its own: most of a test is waiting. A file's tests stay together, in their order.
  "$PYTHON" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
}

main() {
  case "${1:-}" in
    test) run_tests "${@:2}" ;;
    full) run_tests -m "full or not full" "${@:2}" ;;
    setup) setup_environment "${2:-run}" ;;
    -h | --help | help) usage ;;
    *) run_samples "$@" ;;
  esac
}

main "$@"
