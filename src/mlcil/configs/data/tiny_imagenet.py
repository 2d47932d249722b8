"""Tiny-ImageNet-200 in its official layout.

R-DFCIL counts classes by wnids.txt; ABD's class_ids are "sorted", so that the same seed means another order there.
"""

task = "single_label"
protocol = "10-tasks"
tags = ("small_images",)
classes = 200
settings = dict(
    scenario=dict(
        dataset=dict(type="tiny_imagenet", root="datasets/tiny-imagenet-200", class_ids="wnids"), class_order="random:0"
    ),
    network=dict(image_size=64),
    train_transform=dict(cutout=0.0, randaugment=False, crop="padded", padding=4, fill="tiny_imagenet", flip=True),
)
