_base_ = ["_recipe.py"]

# The demo's stand-in for ImageNet: all letters in one session, on scenes made like the digits'.
scenario = dict(dataset=dict(type="letters"), base=0, increment=24, joint=True)
network = dict(
    backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25),
    head=dict(type="linear"),
    image_size=64,
)
method = dict(type="Finetune")
train_cfg = dict(max_epochs=8, base_lr=2e-3)
