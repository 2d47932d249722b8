# Real photos on a laptop: EfficientNet-Lite0 with frozen ImageNet features, 224 px, PASCAL VOC 2007, B10-C2.
# python -m mlcil bench configs/bench/lite_voc_b10c2.py scenario.dataset.root=FOLDER
title = "PASCAL VOC 2007, B10-C2, EfficientNet-Lite0, frozen backbone"
seeds = [1]
jobs = 2

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "scenario.base": 10,
    "scenario.increment": 2,
}

_linear, _krt = "../lite/voc_finetune.py", "../lite/voc_krt.py"
_reservoir = {"memory.total": 40, "memory.selection": "reservoir"}

runs = [
    dict(label="Joint", config="../lite/voc_joint.py"),
    dict(label="Fine-tuning", config=_linear),
    dict(label="LwF", config=_linear, overrides={"method.type": "LwF"}),
    dict(label="ER, 40", config=_linear, overrides={"method.type": "ER", **_reservoir}),
    dict(label="KRT", config=_krt),
    dict(label="KRT-R, 2/class", config="../lite/voc_krt_replay.py"),
]
