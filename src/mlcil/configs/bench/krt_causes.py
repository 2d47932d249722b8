# What KRT's place on small data comes from: its head or its pseudo-labels. Digit scenes, B0-C2, {attention head, linear
# head} with {KRT's losses, LwF's}, without augmentation and with that of the papers. Each row takes the best of three
# rates on a quarter of the training images.
# python -m mlcil bench krt_causes
title = "Heads, losses and augmentation; digit scenes, B0-C2, small TResNet pretrained on rendered letters"
seeds = [1, 2, 3]
jobs = 2
trial_seeds = [11]

prepare = [dict(config="demo/pretrain")]
overrides = dict(pretrained="saved_models/bench_krt_causes/pretrain/session_0.pth")

_ica = {"network.head.type": "ica", "network.head.embed_dim": 128, "network.head.num_heads": 8}
_dpl = {"method.type": "KRT", "method.token_weight": 0.0, "method.freeze_old": False}  # a linear head has no tokens
_lwf = {"method.type": "LwF"}
_augmentation = {
    "plain images": {},
    "Cutout, RandAugment": {"train_transform.cutout": 0.5, "train_transform.randaugment": True},
}
_rates = [{"optim_wrapper.optimizer.lr": rate} for rate in (3e-4, 1e-3, 3e-3)]
_methods = [
    ("Attention, KRT", "demo/krt", {}),
    ("Attention, LwF", "lwf data=digits", {**_ica, **_lwf}),
    ("Linear, LwF", "lwf data=digits", _lwf),
    ("Linear, pseudo-labels", "finetune data=digits", _dpl),
]
runs = [
    dict(label=f"{label}, {images}", config=config, overrides={**method, **augmentation}, choices=_rates)
    for images, augmentation in _augmentation.items()
    for label, config, method in _methods
]
