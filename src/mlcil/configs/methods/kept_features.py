"""Logistic rows on the kept features of all images so far."""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="linear"), frozen_backbone=True),
    method=dict(type="KeptFeatures"),
    train_transform=dict(cutout=0.0, randaugment=False),
)
