"""A row a class on frozen features, learned in its session and never touched again."""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="session_linear", bias=True), frozen_backbone=True),
    method=dict(type="FrozenRows"),
    train_transform=dict(cutout=0.0, randaugment=False),
)
