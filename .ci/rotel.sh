#!/usr/bin/env bash
# Prints the path of Rotel's program, a collector that prints all that it receives; installs
# it under `target` first, where it isn't yet. Needs a Python 3 with pip, or with venv.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.0.1a15
target=${CARGO_TARGET_DIR:-$PWD/target}
home=$target/rotel-$version
program=$home/rotel/rotel-agent

if [ ! -x "$program" ]; then
    mkdir -p "$target"
    python=python3
    command -v "$python" >/dev/null || { echo 'rotel: python3 is missing' >&2; exit 1; }
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv "$target/rotel-venv" >&2
        python=$target/rotel-venv/bin/python
    fi
    # The wheel of one Python, whichever runs pip: the program in it needs none.
    fresh=$home.$$
    trap 'rm -rf "$fresh"' EXIT
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --pre --only-binary :all: --python-version 3.11 \
        --target "$fresh" "rotel==$version" >&2
    # Whole or not at all.
    rm -rf "$home"
    mv "$fresh" "$home"
fi
"$program" --version >&2
printf '%s\n' "$program"
