"""RCLP: replayed images get the labels that the networks of other sessions give; 3% of all images of COCO."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="RCLP"), memory=dict(total=2400, selection="reservoir", labels="rclp"))
on = {
    "voc": dict(memory=dict(total=150)),
}
