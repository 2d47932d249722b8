"""TPCIL: the topology of class anchors is kept; replays 20 images a class."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="TPCIL"), memory=dict(per_class=20))
on = {
    "voc": dict(memory=dict(per_class=2)),
}
