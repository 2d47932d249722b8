"""Own photos, a folder a class: scenario.dataset.root=FOLDER.

A classifier that has its outputs from the beginning has 100 of them; for more classes set network.head.num_classes.
"""

task = "single_label"
protocol = None  # of one's own data nobody knows it
tags = ("photos",)
classes = 100
settings = dict(
    scenario=dict(dataset=dict(type="folder", root="datasets/folder", fit="centre"), class_order="as_given"),
    network=dict(image_size=224),
    train_transform=dict(cutout=0.0, randaugment=False, crop="resized", flip=True),
)
