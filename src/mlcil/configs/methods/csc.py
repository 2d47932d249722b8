"""CSC: a growing label graph, distillation and an entropy term (full settings need a GPU)."""

recipes = {"multi_label": "multi_label"}
settings = dict(network=dict(head=dict(type="csc")), method=dict(type="CSC"))
