"""E2E of ABD's tables: 2000 images nearest to their class means, a second stage on them alone."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="SingleLabelE2E", mu=1.0), memory=dict(total=2000, selection="nearest_coreset"))
on = {
    "photos": dict(method=dict(second=dict(epochs=100, milestones=[30, 60, 80, 90], weight_decay=1e-4))),
}
