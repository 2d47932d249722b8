# Real photos on a laptop: EfficientNet-Lite0 with frozen ImageNet features, 224 px, MS-COCO 2014, B0-C10.
# python -m mlcil bench configs/bench/lite_coco_b0c10.py scenario.dataset.root=FOLDER
title = "MS-COCO 2014, B0-C10, EfficientNet-Lite0, frozen backbone"
seeds = [1]
jobs = 2

overrides = {"threads": 1, "train_dataloader.num_workers": 0, "test_dataloader.num_workers": 0}

_linear, _krt = "../lite/coco_finetune.py", "../lite/coco_krt.py"

runs = [
    dict(label="Joint", config="../lite/coco_joint.py"),
    dict(label="Fine-tuning", config=_linear),
    dict(label="KRT", config=_krt),
    dict(label="KRT-R, 20/class", config="../lite/coco_krt_replay.py"),
]
