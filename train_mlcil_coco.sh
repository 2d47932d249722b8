#!/bin/sh
# KRT on MS-COCO 2014, protocol B0-C10, from datasets/coco2014 and pretrained_models/.
#   sh train_mlcil_coco.sh --demo             five minutes on embedded data, no download
#   sh train_mlcil_coco.sh [NAME_OR_FILE] [--name RUN] [--resume | --overwrite] [key=value ...]
set -eu
cd "$(dirname "$0")"
. scripts/env.sh
. scripts/train.sh
run_experiment krt/coco_b0c10 "$@"
