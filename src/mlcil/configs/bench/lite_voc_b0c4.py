# Real photos on a laptop: EfficientNet-Lite0 with frozen ImageNet features, 224 px, PASCAL VOC 2007, B0-C4. A method
# chooses among four settings on a quarter of the training images, on which its trials do not train: two pairs of rates
# with two values of a setting of its own, or four pairs where it has none. tried.md says what was tried.
# python -m mlcil bench lite_voc_b0c4 scenario.dataset.root=FOLDER
title = "PASCAL VOC 2007, B0-C4, EfficientNet-Lite0, frozen backbone"
seeds = [1, 2, 3]
trial_seeds = [1]
jobs = 2

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "train_cfg.base_epochs": 10,
}

_linear = "lite/voc_finetune"


def _tries(rates, own=({},)):
    """First session's rate and later sessions' rate, with each of the method's own settings."""
    return [
        {"train_cfg.base_lr": first, "optim_wrapper.optimizer.lr": later, **more}
        for first, later in rates
        for more in own
    ]


_high, _low = [(1e-3, 1e-3), (3e-3, 3e-3)], [(1e-4, 5e-5), (3e-4, 1e-4)]
_weights = _tries(_high, [{"method.weight": weight} for weight in (1.0, 4.0)])
_old_labels = _tries(_high, [{"method.old_labels": old} for old in ("absent", "ignored")])
_token_weights = _tries(_low, [{"method.token_weight": weight} for weight in (20.0, 100.0)])

runs = [
    dict(label="Joint", config="lite/voc_joint", choices=_tries([(rate, rate) for rate in (3e-4, 1e-3, 3e-3, 1e-2)])),
    dict(label="Fine-tuning", config=_linear, choices=_tries([(3e-4, 1e-4), (1e-3, 3e-4), *_high])),
    dict(label="LwF, unknown ignored", config=_linear, overrides={"method.type": "LwF"}, choices=_weights),
    dict(
        label="LwF, unknown absent",
        config=_linear,
        overrides={"method.type": "LwF", "method.old_labels": "absent"},
        choices=_weights,
    ),
    dict(
        label="ER, 40",
        config=_linear,
        overrides={"method.type": "ER", "memory.total": 40, "memory.selection": "reservoir"},
        choices=_old_labels,
    ),
    dict(label="KRT", config="lite/voc_krt", choices=_token_weights),
    dict(label="KRT-R, 2/class", config="lite/voc_krt_replay", choices=_token_weights),
]
