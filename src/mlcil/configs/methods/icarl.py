"""iCaRL: nearest mean of exemplars; 20 images a class by herding."""

recipes = {"multi_label": "multi_label"}
settings = dict(network=dict(head=dict(type="prototype")), method=dict(type="ICaRL"), memory=dict(per_class=20))
on = {
    "voc": dict(memory=dict(per_class=2)),
}
