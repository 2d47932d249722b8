"""Learning without forgetting.

With a memory, as "LwF" of ABD's tables with coreset: memory.total=2000 memory.selection=random_coreset.
"""

recipes = {"multi_label": "multi_label", "single_label": "abd_system"}
on = {
    "multi_label": dict(method=dict(type="LwF")),
    "single_label": dict(method=dict(type="SingleLabelLwF")),
}
