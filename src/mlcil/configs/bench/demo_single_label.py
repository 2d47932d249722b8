# The methods that `python -m mlcil demo --single-label` compares, on scikit-learn's digits in five sessions of two.
# Over three seeds: python -m mlcil bench demo_single_label
title = "Digits, one class an image, B0-C2"
seeds = [1, 2, 3]

_config = "demo/single_label"
_rdfcil = {
    "network.backbone.name": "resnet32_rdfcil",
    "network.head": {"type": "session_linear"},
    "train_cfg.base_epochs": 9,
    "param_scheduler": [{"type": "Steps", "milestones": [5, 7], "constant_from": 9, "constant": 0.005}],
}
runs = [
    dict(label="Finetune", config=_config, overrides={"method": {"type": "SingleLabelFinetune"}}),
    dict(label="LwF", config=_config, overrides={"method": {"type": "SingleLabelLwF"}}),
    dict(label="ABD", config=_config),
    dict(
        label="R-DFCIL",
        config=_config,
        overrides={
            **_rdfcil,
            "method": {"type": "RDFCIL", "finetune_epochs": 3, "inversion": {"iterations": 150, "width": 64}},
        },
    ),
    dict(
        label="Rehearsal, 100",
        config=_config,
        overrides={
            "method": {"type": "SingleLabelFinetune"},
            "memory": {"total": 100, "selection": "random_coreset"},
        },
    ),
    dict(
        label="Joint",
        config=_config,
        overrides={"method": {"type": "SingleLabelFinetune", "restart": True}, "scenario.cumulative": True},
    ),
]
upper_bound = "Joint"
