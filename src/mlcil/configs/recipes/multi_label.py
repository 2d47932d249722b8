"""KRT's recipe for its baselines: TResNet-M with weights of ImageNet-21K-P, and the classifier of a method.

The augmentation (a filled rectangle, RandAugment) and the rates are those of the released YAMLs.
"""

settings = dict(
    network=dict(backbone=dict(name="tresnet_m"), head=dict(type="linear")),
    pretrained="pretrained_models/tresnet_m_224_21k.pth",
    train_transform=dict(cutout=0.5, randaugment=True),
    train_cfg=dict(max_epochs=20, base_lr=4e-5),
    optim_wrapper=dict(optimizer=dict(type="Adam", lr=1e-4, weight_decay=1e-4)),
)
on = {"voc": dict(optim_wrapper=dict(optimizer=dict(lr=4e-5)))}
