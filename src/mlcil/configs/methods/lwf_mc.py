"""LwF.MC of ABD's tables: binary cross-entropy as in the release; method.variant=softmax is its first form."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="SingleLabelLwFMC"))
