# Which settings the methods of lite_voc_b0c4 want, without its test images: a quarter of the training images stands in
# for them. Every method has four pairs of rates to choose from, and one more choice if it has one to make. The best of
# the four was at the edge of the list for every head, so two higher pairs follow for linear heads and two lower ones
# for the attention head.
# python -m mlcil bench tune_lite_voc_b0c4 scenario.dataset.root=FOLDER
title = "PASCAL VOC 2007, B0-C4, EfficientNet-Lite0, frozen backbone: settings on held-out training images"
seeds = [1]
jobs = 2

overrides = {
    "scenario.validation": 0.25,
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "train_cfg.base_epochs": 10,
}

_linear, _krt, _krt_replay = "lite/voc_finetune", "lite/voc_krt", "lite/voc_krt_replay"
_reservoir = {"memory.total": 40, "memory.selection": "reservoir"}
#: first session's rate, later sessions' rate
_rates = [(1e-3, 1e-3), (1e-3, 3e-4), (3e-4, 1e-4), (1e-4, 5e-5)]
_higher, _lower = [(3e-3, 3e-3), (1e-2, 1e-2)], [(1e-4, 2e-5), (5e-5, 2e-5)]
_methods = [
    ("Joint", "lite/voc_joint", {}, [("", {})]),
    ("Fine-tuning", _linear, {}, [("", {})]),
    ("LwF", _linear, {"method.type": "LwF"}, [(f", weight {w}", {"method.weight": w}) for w in (1.0, 4.0)]),
    (
        "ER, 40",
        _linear,
        {"method.type": "ER", **_reservoir},
        [(f", old labels {old}", {"method.old_labels": old}) for old in ("absent", "ignored")],
    ),
    ("KRT", _krt, {}, [(f", token weight {w:g}", {"method.token_weight": w}) for w in (20.0, 100.0)]),
    ("KRT-R, 2/class", _krt_replay, {}, [(f", token weight {w:g}", {"method.token_weight": w}) for w in (20.0, 100.0)]),
]
runs = [
    dict(
        label=f"{name}, rates {first:g} and {later:g}{text}",
        config=config,
        overrides={**fixed, **choice, "train_cfg.base_lr": first, "optim_wrapper.optimizer.lr": later},
    )
    for name, config, fixed, choices in _methods
    for first, later in _rates + (_lower if config in (_krt, _krt_replay) else _higher)
    for text, choice in choices
]
