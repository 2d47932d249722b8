#!/bin/sh
# Static checks and the test suite. Arguments go to pytest: sh run_tests.sh tests/parity -k ica
set -eu
cd "$(dirname "$0")"
REQUIREMENTS=requirements-dev.txt
. scripts/env.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# a file of tests at a time on every core, each with one thread; -n 0 runs them here, for a debugger
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest --numprocesses logical --dist loadfile "$@"
