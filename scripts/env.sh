# Sourced by the commands at the top of the project. Sets PYTHON to an interpreter that has everything in the
# requirements file named in REQUIREMENTS: the active environment when it satisfies them, otherwise a virtual
# environment (.venv, or $MLCIL_VENV) that is made and filled on first use. MLCIL_TORCH=cpu takes PyTorch's CPU build,
# from its own package index or from the address that MLCIL_TORCH names instead of the word cpu.

PYTHON=${PYTHON:-python3}
REQUIREMENTS=${REQUIREMENTS:-requirements.txt}
VENV=${MLCIL_VENV:-.venv}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

if ! command -v "$PYTHON" >/dev/null 2>&1; then
    echo "mlcil: $PYTHON was not found; install python 3.10 or newer, or set PYTHON=/path/to/python3" >&2
    exit 2
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "mlcil: $("$PYTHON" --version) is too old; python 3.10 or newer is needed (set PYTHON=/path/to/python3)" >&2
    exit 2
fi

if ! "$PYTHON" scripts/check_requirements.py "$REQUIREMENTS" 2>/dev/null; then
    if [ ! -x "$VENV/bin/python" ]; then
        echo "mlcil: making the virtual environment $VENV" >&2
        "$PYTHON" -m venv "$VENV"
    fi
    PYTHON="$VENV/bin/python"
    if ! "$PYTHON" scripts/check_requirements.py "$REQUIREMENTS" 2>/dev/null; then
        echo "mlcil: installing $REQUIREMENTS into $VENV (some minutes the first time)" >&2
        if [ -n "${MLCIL_TORCH:-}" ]; then
            index=$MLCIL_TORCH
            [ "$index" != cpu ] || index=https://download.pytorch.org/whl/cpu
            if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check --index-url "$index" \
                "$(grep '^torch>' requirements.txt)" "$(grep '^torchvision>' requirements.txt)" >&2 ||
                ! "$PYTHON" -c 'import sys, torch, torchvision; sys.exit(torch.version.cuda is not None)'; then
                echo "mlcil: MLCIL_TORCH=$MLCIL_TORCH: no CPU pair of torch and torchvision came from $index;" \
                    "set it to the address of an index that has one, and see that pip's own settings (extra-index-url," \
                    "find-links) do not put another in front of it, or leave it out for the default build" >&2
                exit 2
            fi
        fi
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$REQUIREMENTS" >&2
        # mmengine asks for opencv, which wants libGL; servers without a screen take the headless build
        if ! "$PYTHON" -c 'import cv2' 2>/dev/null; then
            "$PYTHON" -m pip uninstall --quiet --yes opencv-python >&2
            "$PYTHON" -m pip install --quiet --disable-pip-version-check opencv-python-headless >&2
        fi
        # frozen features and exported taggers are faster with it; where it has no wheel torch computes them
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
            onnx onnxruntime onnxscript >&2 || echo "mlcil: no onnxruntime for this machine; torch computes" >&2
        if "$PYTHON" scripts/can_build_abn.py; then
            "$PYTHON" -m pip install --quiet --disable-pip-version-check setuptools setuptools_scm wheel >&2
            "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-build-isolation inplace-abn >&2 ||
                echo "mlcil: inplace-abn could not be built" >&2
        fi
        "$PYTHON" -c 'import inplace_abn' 2>/dev/null &&
            echo "mlcil: using the package inplace-abn" >&2 ||
            echo "mlcil: using mlcil's own activated batch norm (same numbers as inplace-abn)" >&2
    fi
fi
