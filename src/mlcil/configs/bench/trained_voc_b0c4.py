# KRT in its own regime as far as two CPU cores go: PASCAL VOC 2007, B0-C4, EfficientNet-Lite0 with ImageNet weights and
# a trained backbone, 160 px, Cutout, RandAugment; statistics of batch norms stay. Each method takes the best of three
# settings on a quarter of the training images: two weights of what keeps old classes (rates of the head if it has
# none), and two rates of the backbone.
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


def _three(head, name, values):
    """Two values of a setting at the lower rate of the backbone, and the second one at the higher rate."""
    low, high = values
    return [_rates(head, 3e-5, {name: low}), _rates(head, 3e-5, {name: high}), _rates(head, 1e-4, {name: high})]


def _rates(head, backbone, more):
    rates = {"train_cfg.base_lr": head, "optim_wrapper.optimizer.lr": head}
    return {**rates, "optim_wrapper.paramwise_cfg.backbone_lr_mult": backbone / head, **more}


_linear = [_rates(head, backbone, {}) for head, backbone in ((1e-3, 3e-5), (3e-3, 3e-5), (3e-3, 1e-4))]
_lwf = _three(3e-3, "method.weight", (4.0, 8.0))
_krt = _three(3e-4, "method.token_weight", (20.0, 100.0))
_agcn = _three(1e-3, "method.relation", (1000.0, 100.0))
_replay = {"memory.per_class": 2, "memory.selection": "herding", "memory.deduplicate": False}
_absent = {"method.old_labels": "absent"}

runs = [
    dict(label="Joint", config="joint data=voc backbone=lite0", choices=_linear),
    dict(label="Fine-tuning", config="finetune data=voc backbone=lite0", choices=_linear),
    dict(label="LwF, unknown ignored", config="lwf data=voc backbone=lite0", choices=_lwf),
    dict(label="LwF, unknown absent", config="lwf data=voc backbone=lite0", overrides=_absent, choices=_lwf),
    dict(label="AGCN", config="agcn data=voc backbone=lite0", choices=_agcn),
    dict(label="KRT", config="krt data=voc backbone=lite0", choices=_krt),
    dict(label="KRT-R, 2/class", config="krt data=voc backbone=lite0", overrides=_replay, choices=_krt),
]
