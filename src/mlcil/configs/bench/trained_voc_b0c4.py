# KRT in its own regime as far as two CPU cores go: PASCAL VOC 2007, B0-C4, EfficientNet-Lite0 with ImageNet weights and
# a trained backbone, 160 px, Cutout, RandAugment. Statistics of batch norms stay: moving ones follow a session's few
# photos and spoil old features. Each method takes the best of four settings on a quarter of the training images: rates
# of head and backbone, and the weight of what keeps old classes if it has one.
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
    "train_cfg.max_epochs": 4,
    "train_cfg.base_epochs": 6,
}


def _rates(head, backbone, **more):
    return {
        "train_cfg.base_lr": head,
        "optim_wrapper.optimizer.lr": head,
        "optim_wrapper.paramwise_cfg.backbone_lr_mult": backbone / head,
        **more,
    }


_linear = [_rates(head, backbone) for head in (1e-3, 3e-3) for backbone in (3e-5, 1e-4)]
_lwf = [_rates(*rates, **{"method.weight": weight}) for rates in ((1e-3, 1e-4), (3e-3, 3e-5)) for weight in (1.0, 4.0)]
_attention = [
    _rates(*rates, **{"method.token_weight": weight})
    for rates in ((1e-4, 1e-4), (3e-4, 3e-5))
    for weight in (20.0, 80.0)
]
_replay = {"memory.per_class": 2, "memory.selection": "herding", "memory.deduplicate": False}
_absent = {"method.old_labels": "absent"}

runs = [
    dict(label="Joint", config="joint data=voc backbone=lite0", choices=_linear),
    dict(label="Fine-tuning", config="finetune data=voc backbone=lite0", choices=_linear),
    dict(label="LwF, unknown ignored", config="lwf data=voc backbone=lite0", choices=_lwf),
    dict(label="LwF, unknown absent", config="lwf data=voc backbone=lite0", overrides=_absent, choices=_lwf),
    dict(label="AGCN", config="agcn data=voc backbone=lite0", choices=_linear),
    dict(label="KRT", config="krt data=voc backbone=lite0", choices=_attention),
    dict(label="KRT-R, 2/class", config="krt data=voc backbone=lite0", overrides=_replay, choices=_attention),
]
