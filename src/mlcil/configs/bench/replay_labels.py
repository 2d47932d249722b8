# What labels should a kept image carry? Experience replay of 100 images under each answer, with the features, protocols
# and class orders of frozen_photos; four tries each, two rates with two readings of old labels on new images.
# python -m mlcil bench replay_labels data=FOLDER
_base_ = ["frozen_photos.py"]
title = "Labels of 100 kept images"

_tries = [
    {"train_cfg.base_lr": rate, "optim_wrapper.optimizer.lr": rate, "method.old_labels": old_labels}
    for rate in (1e-3, 3e-3)
    for old_labels in ("absent", "ignored")
]
_labels = {
    "All labels of later sessions": "oracle",  # KRT-R's way, which reads what nobody has given
    "Its own session's": "frozen",
    "Propagated": "propagate",
    "Propagated, to new images too": "rclp",
}
runs = [
    dict(
        label=label,
        config="er data={data} backbone=lite0",
        overrides={"memory.total": 100, "memory.labels": labels},
        choices=_tries,
    )
    for label, labels in _labels.items()
]
