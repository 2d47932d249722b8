"""Training on new classes alone, nothing against forgetting (Base of ABD's tables)."""

recipes = {"multi_label": "multi_label", "single_label": "abd_system"}
on = {
    "multi_label": dict(method=dict(type="Finetune")),
    "single_label": dict(method=dict(type="SingleLabelFinetune")),
}
