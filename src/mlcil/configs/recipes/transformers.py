"""What DKT and DAFormer share as released: 500 epochs of repeated augmentation, 2000 exemplars, DyTox's class lists.

The other orders are scenario.class_order=dytox_cifar100_2 and dytox_cifar100_3. The number of exemplars on
ImageNet-1000 is the usual one.
"""

settings = dict(
    train_transform=dict(policy="rand-m9-mstd0.5-inc1"),
    memory=dict(total=2000, quota="floor", views="train"),
    train_cfg=dict(max_epochs=500, repeated_augmentation=3),
    optim_wrapper=dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=1e-6)),
    param_scheduler=[dict(type="WarmupCosine", warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)],
    precision="fp32",
)
on = {
    "small_images": dict(train_transform=dict(fill="black")),
    "cifar100": dict(scenario=dict(class_order="dytox_cifar100_1")),
    "photos": dict(
        scenario=dict(dataset=dict(fit=dict(kind="centre", interpolation="bicubic"))),
        train_transform=dict(interpolation="bicubic"),
    ),
    "imagenet1000": dict(memory=dict(total=20000)),
}
