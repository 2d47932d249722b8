#!/bin/sh
# Static checks and the test suite. Arguments go to pytest: sh run_tests.sh tests/parity -k ica
set -eu
cd "$(dirname "$0")"
REQUIREMENTS=requirements-dev.txt
. scripts/env.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest "$@"
