# KBK's ablation on two CPU cores: the rows of voc_kbk_ablation.py, B10-C2, with a trainable EfficientNet-Lite0 at 160
# px, a narrow head and few epochs. The paper's settings need a GPU.
# python -m mlcil bench kbk_ablation scenario.dataset.root=FOLDER
_base_ = ["voc_kbk_ablation.py"]
title = "KBK's ablation, PASCAL VOC 2007, B10-C2, EfficientNet-Lite0, 160 px"
seeds = [1]
jobs = 2
protocols = []
overrides = {
    "scenario.base": 10,
    "scenario.increment": 2,
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "network.image_size": 160,
    "network.frozen_backbone": False,
    "network.frozen_statistics": True,
    "optim_wrapper.paramwise_cfg.backbone_lr_mult": 0.1,
    "optim_wrapper.optimizer.lr": 5e-4,
    "train_cfg.base_lr": 5e-4,
    "train_cfg.base_epochs": 3,
    "train_cfg.max_epochs": 2,
    "train_transform.flip": True,
    "precision": "fp32",  # bf16 is slower here: most layers are depthwise
}
runs = [{**run, "config": run["config"] + " backbone=lite0"} for run in _base_.runs]
