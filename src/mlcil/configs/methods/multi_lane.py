"""MULTI-LANE: a lane of selectors and prompts a session through a frozen vision transformer.

Published settings for ViT-B/16 with weights of ImageNet-21k and -1k, on images in [0, 1]. The transformer's weights are
timm's for vit_base_patch16_224, saved as the file below; any vit_* model of timm's will do.
"""

recipes = {"multi_label": None}
settings = dict(
    network=dict(
        backbone=dict(name="vit_base_patch16_224", mean=[0.0] * 3, std=[1.0] * 3),
        head=dict(type="lanes", tokens=20, prompts=20, prompt_blocks=5),
        frozen_backbone=True,
    ),
    pretrained="pretrained_models/vit_base_patch16_224.pth",
    method=dict(type="MultiLane"),
    train_transform=dict(crop="resized", area=0.05, flip=True),
    train_dataloader=dict(batch_size=128),
    train_cfg=dict(max_epochs=30, base_lr=0.03),
    optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.03, weight_decay=0.0)),
    param_scheduler=[dict(type="CosineAnnealingLR")],
    auto_scale_lr=dict(base_batch_size=256),
)
on = {
    "voc": dict(
        network=dict(head=dict(tokens=10, prompts=10)),
        train_dataloader=dict(batch_size=256),
        train_cfg=dict(base_lr=0.05),
        optim_wrapper=dict(optimizer=dict(lr=0.05)),
    ),
}
