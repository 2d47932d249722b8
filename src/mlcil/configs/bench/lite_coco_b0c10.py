# Real photos on a laptop: EfficientNet-Lite0 with frozen ImageNet features, 224 px, MS-COCO 2014, B0-C10, with the
# settings that lite_voc_b0c4.py has from held-out images of PASCAL VOC.
# python -m mlcil bench lite_coco_b0c10 scenario.dataset.root=FOLDER
title = "MS-COCO 2014, B0-C10, EfficientNet-Lite0, frozen backbone"
seeds = [1]
jobs = 2

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "train_cfg.base_epochs": 10,
}

_linear = "lite/coco_finetune"
_low = {"train_cfg.base_lr": 1e-3, "optim_wrapper.optimizer.lr": 1e-3}
_high = {"train_cfg.base_lr": 3e-3, "optim_wrapper.optimizer.lr": 3e-3}
_krt = {"train_cfg.base_lr": 1e-4, "optim_wrapper.optimizer.lr": 5e-5, "method.token_weight": 20.0}
_er = {"method.type": "ER", "method.old_labels": "ignored", "memory.total": 160, "memory.selection": "reservoir"}

runs = [
    dict(label="Joint", config="lite/coco_joint", overrides=_low),
    dict(label="Fine-tuning", config=_linear, overrides=_low),
    dict(label="LwF", config=_linear, overrides={"method.type": "LwF", "method.weight": 4.0, **_high}),
    dict(label="ER, 160", config=_linear, overrides={**_er, **_high}),
    dict(label="KRT", config="lite/coco_krt", overrides=_krt),
    dict(label="KRT-R, 2/class", config="lite/coco_krt_replay", overrides={"memory.per_class": 2, **_krt}),
]
