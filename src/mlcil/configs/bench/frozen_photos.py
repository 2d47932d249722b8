# What wins on frozen features: photos in VOC's or COCO's folders, EfficientNet-Lite0 with ImageNet weights at 224 px,
# both protocols, three class orders. Features are computed once. Settings are chosen on held-out training images, four
# tries for each method that has any to choose.
# python -m mlcil bench frozen_photos data=FOLDER
title = "Frozen EfficientNet-Lite0 features"
seeds = [1]
class_orders = ["random:1", "random:2", "random:3"]
jobs = 2
trial_seeds = [1]
one_table = True
validation = 0.25
protocols = [
    dict(label="an image in one session", overrides={"scenario.disjoint": True}),
    dict(label="images return"),
]

overrides = {
    "threads": 1,
    "train_dataloader.num_workers": 0,
    "test_dataloader.num_workers": 0,
    "train_cfg.max_epochs": 6,
    "train_cfg.base_epochs": 6,
    "scenario.allow_empty_classes": True,
}

_rates = [{"train_cfg.base_lr": rate, "optim_wrapper.optimizer.lr": rate} for rate in (1e-3, 3e-3)]
_epochs = [{"train_cfg.max_epochs": number, "train_cfg.base_epochs": number} for number in (4, 8)]
_four = [{**rate, **epochs} for rate in _rates for epochs in _epochs]
_strengths = [{"method.strength": value} for value in (10.0, 30.0, 100.0, 300.0)]
_penalties = [{"method.strength": value} for value in (None, 100.0, 300.0, 1000.0)]
_negatives = [{"method.negatives": value} for value in (1.0, 0.5, 0.2, 0.05)]
_joint = {"scenario.joint": True}


def _config(method):
    return f"{method} data={{data}} backbone=lite0"


runs = [
    dict(label="Joint, logistic", config=_config("kept_features"), overrides=_joint, choices=_strengths),
    dict(label="Joint, ridge", config=_config("ridge"), overrides=_joint, choices=_penalties),
    dict(label="Joint, ASL", config=_config("joint"), choices=_four),
    dict(label="Fine-tuning", config=_config("finetune"), choices=_four),
    dict(
        label="LwF",
        config=_config("lwf"),
        choices=[{**rate, "method.weight": weight} for rate in _rates for weight in (1.0, 4.0)],
    ),
    dict(
        label="KRT",
        config=_config("krt"),
        choices=[
            {"train_cfg.base_lr": first, "optim_wrapper.optimizer.lr": later, "method.token_weight": weight}
            for first, later in ((1e-4, 5e-5), (3e-4, 1e-4))
            for weight in (20.0, 100.0)
        ],
    ),
    dict(
        label="CSC",
        config=_config("csc"),
        choices=[
            {"train_cfg.base_lr": first, "optim_wrapper.optimizer.lr": later, **epochs}
            for first, later in ((3e-4, 1e-4), (1e-3, 3e-4))
            for epochs in _epochs
        ],
    ),
    dict(label="RCLP, 100 images", config=_config("rclp"), overrides={"memory.total": 100}, choices=_four),
    dict(label="Frozen rows", config=_config("frozen_rows"), choices=_four),
    dict(
        label="Ridge rows, own images", config=_config("ridge"), overrides={"method.negatives": 0.0}, choices=_penalties
    ),
    dict(label="Ridge", config=_config("ridge"), choices=_negatives),
    dict(label="Ridge, Gaussian", config=_config("ridge"), overrides={"method.gaussian": True}, choices=_negatives),
    dict(
        label="Ridge, refreshed",
        config=_config("ridge"),
        overrides={"method.old_rows": "refreshed"},
        choices=[{"method.pseudo": pseudo} for pseudo in ("none", "hard", "soft", "per_class")],
    ),
    dict(
        label="L3A, 2048",
        config=_config("l3a"),
        overrides={"network.head.hidden": 2048},
        choices=[{"method.strength": value} for value in (1.0, 10.0, 100.0, 1000.0)],
    ),
    dict(label="Kept features", config=_config("kept_features"), choices=_strengths),
    dict(
        label="Kept features, unknown cells",
        config=_config("kept_features"),
        choices=[{"method.unknown": unknown} for unknown in ("masked", "soft", "hill", "splc")],
    ),
]
