"""Upper bound: all classes at once, same recipe.

With one class an image as in ABD's tables: in every session a new network learns the images of all classes so far.
"""

recipes = {"multi_label": "multi_label", "single_label": "abd_system"}
on = {
    "multi_label": dict(scenario=dict(joint=True), method=dict(type="Finetune")),
    "single_label": dict(scenario=dict(cumulative=True), method=dict(type="SingleLabelFinetune", restart=True)),
}
