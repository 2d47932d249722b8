#!/bin/sh
# KRT on PASCAL VOC 2007, protocol B0-C4, from datasets/voc2007 and pretrained_models/.
#   sh train_mlcil_voc.sh --demo              five minutes on embedded data, no download
#   sh train_mlcil_voc.sh [NAME_OR_FILE] [--name RUN] [--resume | --overwrite] [key=value ...]
set -eu
cd "$(dirname "$0")"
. scripts/env.sh
. scripts/train.sh
run_experiment krt/voc_b0c4 "$@"
