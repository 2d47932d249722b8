"""L3A: analytic rows on random features, hard pseudo-labels, images weighted by the rarity of their classes.

The strength 1000 is L3A's for TResNet; here the backbone keeps its pretrained weights (no first epoch of training).
"""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="session_linear", bias=True, hidden=4096), frozen_backbone=True),
    method=dict(type="Ridge", old_rows="refreshed", pseudo="hard", balanced=True, strength=1000.0),
    train_transform=dict(cutout=0.0, randaugment=False),
)
on = {
    "voc": dict(network=dict(head=dict(hidden=8192))),
}
