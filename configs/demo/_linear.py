_base_ = ["_digits.py"]

# What the linear-head methods of the demo share.
network = dict(
    backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25),
    head=dict(type="linear"),
    image_size=64,
)
