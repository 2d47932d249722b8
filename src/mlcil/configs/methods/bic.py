"""BiC: bias correction on a held-out part of the memory.

With one class an image, 2000 images by herding; the figures of ABD's tables are of the raw logits,
method.correct_predictions=True predicts with the corrected ones.
"""

recipes = {"multi_label": "multi_label", "single_label": "abd_system"}
on = {
    "multi_label": dict(method=dict(type="BiC"), memory=dict(per_class=20)),
    "voc": dict(memory=dict(per_class=2)),
    "single_label": dict(method=dict(type="SingleLabelBiC"), memory=dict(total=2000, selection="herding_coreset")),
    ("single_label", "photos"): dict(
        method=dict(second=dict(epochs=100, milestones=[30, 60, 80, 90], weight_decay=1e-4))
    ),
}
