#!/usr/bin/env bash
# Make .venv beside this checkout and install exactly what uv.lock names. Safe to run again; quick when nothing changed.
#   scripts/setup.sh [--quiet]
# Needs Python 3.10 or newer (PYTHON=… chooses one). On Debian without the venv module it installs python3-venv when it
# runs as root, and says what to do otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { say "No $python found. Install Python 3.10 or newer, or name one: PYTHON=/path/to/python make setup"; exit 69; }
"$python" - <<'PY' || { say "Farcall needs Python 3.10 or newer; $python is $("$python" --version 2>&1). Name another: PYTHON=… make setup"; exit 69; }
import sys
sys.exit(sys.version_info < (3, 10))
PY

if [ ! -x .venv/bin/python ]; then
    say "Making .venv with $("$python" --version) …"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "Python's venv module is missing; installing python3-venv …"
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        else
            say "Python's venv module is missing. Install it (Debian, Ubuntu: sudo apt-get install python3-venv) and try again."
            exit 69
        fi
    fi
    "$python" -m venv .venv
fi

stamp=.venv/.farcall-installed
want=$(cat pyproject.toml uv.lock | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    say "Installing farcall[all] and the development tools into .venv …"
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
    .venv/bin/uv sync --quiet --frozen --inexact --all-extras --all-groups
    printf '%s' "$want" >"$stamp"
fi
