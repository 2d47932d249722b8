"""Ridge regression on frozen features in closed form; old scores stay as they are to the bit."""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="session_linear", bias=True), frozen_backbone=True),
    method=dict(type="Ridge"),
    train_transform=dict(cutout=0.0, randaugment=False),
)
