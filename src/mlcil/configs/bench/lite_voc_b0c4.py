# Real photos on a laptop: EfficientNet-Lite0 with frozen ImageNet features, 224 px, PASCAL VOC 2007, B0-C4. Settings:
# those with the best last mAP of tune_lite_voc_b0c4.py, which does not see the test images.
# python -m mlcil bench lite_voc_b0c4 scenario.dataset.root=FOLDER
title = "PASCAL VOC 2007, B0-C4, EfficientNet-Lite0, frozen backbone"
seeds = [1, 2, 3]
jobs = 2

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "train_cfg.base_epochs": 10,
}

_linear = "lite/voc_finetune"
_low = {"train_cfg.base_lr": 1e-3, "optim_wrapper.optimizer.lr": 1e-3}
_high = {"train_cfg.base_lr": 3e-3, "optim_wrapper.optimizer.lr": 3e-3}
_krt = {"train_cfg.base_lr": 1e-4, "optim_wrapper.optimizer.lr": 5e-5, "method.token_weight": 20.0}
_er = {"method.type": "ER", "method.old_labels": "ignored", "memory.total": 40, "memory.selection": "reservoir"}

runs = [
    dict(label="Joint", config="lite/voc_joint", overrides=_low),
    dict(label="Fine-tuning", config=_linear, overrides=_low),
    dict(label="LwF", config=_linear, overrides={"method.type": "LwF", "method.weight": 4.0, **_high}),
    dict(label="ER, 40", config=_linear, overrides={**_er, **_high}),
    dict(label="KRT", config="lite/voc_krt", overrides=_krt),
    dict(label="KRT-R, 2/class", config="lite/voc_krt_replay", overrides=_krt),
]
