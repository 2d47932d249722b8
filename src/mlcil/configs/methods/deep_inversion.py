"""DeepInversion of ABD's tables: the inversion of ABD, distillation on real and made images."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="SingleLabelDeepInversion", mu=1.0, inversion=dict(iterations=10000)))
on = {
    "photos": dict(method=dict(inversion=dict(iterations=50000))),
}
