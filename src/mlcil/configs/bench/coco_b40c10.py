# MS-COCO 2014, B40-C10: the runs of coco_b0c10.py.
# Needs the full data set, the ImageNet-21K-P weights and GPUs: python -m mlcil bench coco_b40c10
_base_ = ["coco_b0c10.py"]
title = "MS-COCO 2014, B40-C10, TResNet-M, 224 px"
published = "coco_b40c10"
overrides = {"scenario.base": 40, "scenario.increment": 10}
runs = [
    {
        **run,
        "config": run["config"].replace("b0c10", "b40c10"),
        # no log of this protocol was found; 300 is what the released config says of it
        "overrides": {
            key: 300.0 if key == "method.token_weight" else value for key, value in run.get("overrides", {}).items()
        },
    }
    for run in _base_.runs
]
