#!/bin/sh
# The suite on the edges of what is supported: python 3.10 and 3.13, the oldest and the newest torch of
# requirements.txt, mmengine and its continuation onedl-mmengine, and on python 3.10 everything in requirements.txt and
# requirements-dev.txt at its lowest bound. Each line in an environment of its own, made by uv and removed afterwards
# (6 GB); a line that this machine cannot run is said and is no failure, but where it was asked for alone.
#   sh scripts/matrix.sh                          all lines
#   sh scripts/matrix.sh 3.13 newest mmengine     one of them
#   sh scripts/matrix.sh 3.10 lowest mmengine     the lowest bounds
# ARGS goes to pytest, such as ARGS="tests/test_schema.py".
set -eu
cd "$(dirname "$0")/.."
failed=0 skipped=0 passed=0

line() {  # python, versions, engine
    name="python $1, $2 versions, $3"
    [ "$2" = lowest ] || name="python $1, $2 torch, $3"
    if ! python=$(command -v "python$1") || ! "$python" -c "" 2>/dev/null; then
        echo "matrix: $name: NOT RUN, python$1 is not on this machine"
        skipped=$((skipped + 1))
        return
    fi
    place=$(mktemp -d "${TMPDIR:-/tmp}/mlcil-matrix.XXXXXX")
    sed "s/^mmengine\(.*\),.*/$3\1/" requirements.txt > "$place/requirements.txt"
    resolution=highest
    case $2 in
        lowest) resolution=lowest-direct ;;
        oldest) sed -i -E 's/^(torch|torchvision)>=([0-9.]+).*/\1~=\2.0/' "$place/requirements.txt" ;;
    esac
    sed '/^-r /d' requirements-dev.txt > "$place/dev.txt"
    [ "$3" = mmengine ] || echo "opencv-python-headless" >> "$place/requirements.txt"  # the continuation leaves it to its users
    if ! { "$python" -m venv "$place/env" && "$place/env/bin/pip" install -q uv &&
        "$place/env/bin/uv" pip install -q --python "$place/env" --resolution "$resolution" \
            -r "$place/requirements.txt" -r "$place/dev.txt"; } > "$place/install.txt" 2>&1
    then
        echo "matrix: $name: NOT RUN, it cannot be installed here: $(tail -n 3 "$place/install.txt")"
        skipped=$((skipped + 1))
    elif PYTHONPATH=src OMP_NUM_THREADS=1 "$place/env/bin/python" -m pytest -n logical --dist loadfile ${ARGS:-}; then
        echo "matrix: $name: passed"
        passed=$((passed + 1))
    else
        echo "matrix: $name: FAILED"
        failed=$((failed + 1))
    fi
    rm -rf "$place"
}

if [ $# -eq 3 ]; then
    line "$1" "$2" "$3"
else
    for python in 3.10 3.13; do
        for torch in oldest newest; do
            for engine in mmengine onedl-mmengine; do
                line "$python" "$torch" "$engine"
            done
        done
    done
    line 3.10 lowest mmengine
fi
echo "matrix: $passed passed, $failed failed, $skipped not run"
[ "$failed" -eq 0 ] && { [ $# -ne 3 ] || [ "$passed" -eq 1 ]; }  # a line that was asked for has to run
