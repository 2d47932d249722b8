"""CIFAR-100 from its python archive, whole or unpacked.

The order is R-DFCIL's and ABD's first; iCaRL's, DyTox's and DKT's is "dytox_cifar100_1". Augmentation: R-DFCIL's, a
crop from images with the mean around them, and mirroring.
"""

task = "single_label"
protocol = "10-tasks"
tags = ("small_images",)
classes = 100
settings = dict(
    scenario=dict(dataset=dict(type="cifar100", root="datasets/cifar100"), class_order="random:0"),
    network=dict(image_size=32),
    train_transform=dict(cutout=0.0, randaugment=False, crop="padded", padding=4, fill="cifar100", flip=True),
)
