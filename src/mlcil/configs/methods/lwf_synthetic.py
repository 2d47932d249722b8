"""The ablation of ABD's release: LwF on real and made images (in none of the tables)."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="SingleLabelLwFSynthetic", mu=0.1, inversion=dict(iterations=10000)))
on = {
    "photos": dict(method=dict(inversion=dict(iterations=50000))),
}
