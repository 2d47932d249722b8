_base_ = ["_digits.py"]

network = dict(
    backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25),
    head=dict(type="ica", embed_dim=128, num_heads=8),
    image_size=64,
)
method = dict(type="KRT", token_weight=50.0)
