# Sourced by train_mlcil_*.sh: run_experiment DEFAULT_CONFIG ARGUMENTS...
# Runs the demo when --demo is among the arguments, else trains: on every GPU through torchrun, or the CPU.

run_experiment() {
    config=$1
    shift
    for argument in "$@"; do
        if [ "$argument" = "--demo" ]; then
            for word in "$@"; do
                shift
                [ "$word" = "--demo" ] || set -- "$@" "$word"
            done
            exec "$PYTHON" -m mlcil demo "$@"
        fi
    done
    gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
    if [ "$gpus" -gt 1 ]; then
        "$PYTHON" -m mlcil train --check "$config" "$@" # a mistake ends here, with exit code 2
        exec "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$gpus" \
            -m mlcil train --launcher pytorch "$config" "$@"
    fi
    exec "$PYTHON" -m mlcil train "$config" "$@"
}
