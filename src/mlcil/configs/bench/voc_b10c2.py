# PASCAL VOC 2007, B10-C2: the runs of voc_b0c4.py.
# Needs the full data set, the ImageNet-21K-P weights and GPUs: python -m mlcil bench voc_b10c2
_base_ = ["voc_b0c4.py"]
title = "PASCAL VOC 2007, B10-C2, TResNet-M, 224 px"
published = "voc_b10c2"
overrides = {"scenario.base": 10, "scenario.increment": 2}
runs = [{**run, "config": run["config"].replace("b0c4", "b10c2")} for run in _base_.runs]
