"""HCP: KBK without stages, entropy, likeness and compensation (full settings need a GPU)."""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="kbk", purify="flat", depth=1)),
    method=dict(type="KBK", recall="class", unknown="mix", grad_comp=False),
)
on = {"voc": dict(network=dict(head=dict(depth=3)))}
