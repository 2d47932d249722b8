"""oEWC: old weights are kept where they matter."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="OEWC"))
