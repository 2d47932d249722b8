"""ABD without a memory: inversion of 10000 steps, made images beside every batch."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="ABD", mu=0.1, inversion=dict(iterations=10000)))
on = {
    "photos": dict(method=dict(inversion=dict(iterations=50000))),
}
