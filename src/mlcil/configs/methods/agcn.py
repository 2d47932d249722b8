"""AGCN: an augmented graph of label statistics."""

recipes = {"multi_label": "multi_label"}
settings = dict(network=dict(head=dict(type="graph")), method=dict(type="AGCN"))
