# Real photos on a laptop: the runs of lite_voc_b0c4.py on MS-COCO 2014, B0-C10, one seed; two images a class are kept.
# python -m mlcil bench lite_coco_b0c10 scenario.dataset.root=FOLDER
_base_ = ["lite_voc_b0c4.py"]
title = "MS-COCO 2014, B0-C10, EfficientNet-Lite0, frozen backbone"
seeds = [1]

_memory = {
    "ER, 40": dict(
        label="ER, 160", overrides={"method.type": "ER", "memory.total": 160, "memory.selection": "reservoir"}
    ),
    "KRT-R, 2/class": dict(overrides={"memory.per_class": 2}),
}
runs = [{**run, "config": run["config"].replace("voc", "coco"), **_memory.get(run["label"], {})} for run in _base_.runs]
