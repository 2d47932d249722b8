_base_ = ["_transformers.py"]

# DKT
network = dict(
    backbone=dict(name="dkt", dim=48, depth=2, heads=4, mean=[0.3] * 3, std=[0.4] * 3),
    head=dict(type="dkt", num_heads=4),
    image_size=16,
)
method = dict(type="DKT", finetuning=dict(lr=1e-3, base_batch_size=32, epochs=10, shuffle=True))
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-6))
