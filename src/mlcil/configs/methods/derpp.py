"""DER++: replays images with the logits they had; 20 images a class of COCO."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="DERpp"), memory=dict(total=1600, selection="reservoir"))
on = {
    "voc": dict(memory=dict(total=40)),
}
