# MULTI-LANE and linear heads on the same frozen vision transformer, which was trained on rendered letters; digit
# scenes, B0-C2. Rates: the best of three on a quarter of the training images (scenario.validation=0.25): 0.002, 0.01
# and 0.03 for the lanes, 0.003, 0.01 and 0.03 for the linear heads.
# python -m mlcil bench multi_lane
title = "Digit scenes, B0-C2, small frozen vision transformer pretrained on rendered letters"
seeds = [1]
jobs = 2

_backbone = dict(
    name="vit_tiny_r_s16_p8_224",
    mean=[0.0] * 3,
    std=[1.0] * 3,
    trunk=dict(patch_size=2, embed_dim=96, depth=4, num_heads=4),
)
prepare = [
    dict(
        config="finetune data=letters",
        overrides={
            "scenario.joint": True,
            "network.backbone": _backbone,
            "train_cfg.max_epochs": 12,
            "train_cfg.base_lr": 1e-3,
        },
    )
]
overrides = {
    "pretrained": "saved_models/bench_multi_lane/finetune_data_letters/session_0.pth",
    "deterministic": False,  # so that the maps of the frozen backbone are computed once for the linear heads
}


def _linear(method, lr, **more):
    frozen = {"network.backbone": _backbone, "network.frozen_backbone": True}
    rates = {"train_cfg.base_lr": lr, "optim_wrapper.optimizer.lr": lr}
    return dict(config="finetune data=digits", overrides={"method.type": method, **frozen, **rates, **more})


_lanes = "multi_lane data=digits"
runs = [
    dict(label="Joint, linear", **_linear("Finetune", 0.003, **{"scenario.joint": True})),
    dict(label="Joint, a lane", config=_lanes, overrides={"scenario.joint": True}),
    dict(label="Fine-tuning, linear", **_linear("Finetune", 0.003)),
    dict(label="LwF, linear", **_linear("LwF", 0.03)),
    dict(label="MULTI-LANE", config=_lanes),
]
