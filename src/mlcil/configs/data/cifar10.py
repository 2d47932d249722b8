"""CIFAR-10 from its python archive, whole or unpacked; 5 sessions of 2 classes or 2 of 5 are usual."""

task = "single_label"
protocol = "5-tasks"
tags = ("small_images",)
classes = 10
settings = dict(
    scenario=dict(dataset=dict(type="cifar10", root="datasets/cifar10"), class_order="random:0"),
    network=dict(image_size=32),
    train_transform=dict(cutout=0.0, randaugment=False, crop="padded", padding=4, fill="cifar10", flip=True),
)
