"""DGR of ABD's tables: a variational auto-encoder in place of a memory, on images in [0, 1]."""

unfit = {"photos": "224 pixels are too many for its auto-encoder"}
recipes = {"single_label": "abd_system"}
settings = dict(
    network=dict(backbone=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
    method=dict(type="SingleLabelDGR", mu=1.0),
    optim_wrapper=dict(optimizer=dict(weight_decay=0.0)),
)
