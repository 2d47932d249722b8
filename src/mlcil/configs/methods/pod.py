"""PODNet-style distillation of pooled features, the baseline released with KRT.

Its memory there: memory.per_class=20 memory.deduplicate=True on COCO.
"""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="POD", spatial=5.0, flat=180.0))
