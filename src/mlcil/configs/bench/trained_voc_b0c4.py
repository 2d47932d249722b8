# KRT in its own regime as far as two CPU cores go: PASCAL VOC 2007, B0-C4, EfficientNet-Lite0 with ImageNet weights and
# a trained backbone, 160 px, Cutout, RandAugment; statistics of batch norms stay. Each method takes the better of two
# rates of the backbone on a quarter of the training images; rates of heads and weights of what keeps old classes are
# those that won on frozen features (frozen_photos.py).
# python -m mlcil bench trained_voc_b0c4 scenario.dataset.root=FOLDER
title = "PASCAL VOC 2007, B0-C4, EfficientNet-Lite0, trained backbone, 160 px"
seeds = [1, 2]
jobs = 2
trial_seeds = [11]

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "network.image_size": 160,
    "network.frozen_backbone": False,
    "network.frozen_statistics": True,
    "train_transform.cutout": 0.5,
    "train_transform.randaugment": True,
    "train_cfg.max_epochs": 3,
    "train_cfg.base_epochs": 4,
    "precision": "fp32",  # bf16 is slower here: most layers are depthwise
}


def _rates(head, **more):
    """Two rates of the backbone for a rate of the head."""
    rates = {"train_cfg.base_lr": head, "optim_wrapper.optimizer.lr": head}
    return [
        {**rates, "optim_wrapper.paramwise_cfg.backbone_lr_mult": backbone / head, **more} for backbone in (3e-5, 1e-4)
    ]


_linear, _lwf = _rates(1e-3), _rates(3e-3, **{"method.weight": 4.0})
_krt = _rates(3e-4, **{"method.token_weight": 20.0})
_replay = {"memory.per_class": 2, "memory.selection": "herding", "memory.deduplicate": False}
_absent = {"method.old_labels": "absent"}

runs = [
    dict(label="Joint", config="joint data=voc backbone=lite0", choices=_linear),
    dict(label="Fine-tuning", config="finetune data=voc backbone=lite0", choices=_linear),
    dict(label="LwF, unknown ignored", config="lwf data=voc backbone=lite0", choices=_lwf),
    dict(label="LwF, unknown absent", config="lwf data=voc backbone=lite0", overrides=_absent, choices=_lwf),
    dict(label="AGCN", config="agcn data=voc backbone=lite0", choices=_linear),
    dict(label="KRT", config="krt data=voc backbone=lite0", choices=_krt),
    dict(label="KRT-R, 2/class", config="krt data=voc backbone=lite0", overrides=_replay, choices=_krt),
]
