_base_ = ["_transformers.py"]

# DAFormer-M
network = dict(
    backbone=dict(name="daformer", dim=48, depth=2, heads=4, patch=4, mean=[0.3] * 3, std=[0.4] * 3),
    head=dict(type="daformer", edition="M", num_heads=4),
    image_size=16,
)
method = dict(type="DAFormer", finetuning=dict(lr=1e-3, base_batch_size=32, epochs=10, shuffle=True))
optim_wrapper = dict(
    type="SharpnessAwareOptimWrapper", rho=0.5, optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-6)
)
custom_hooks = [dict(type="MixUp", alpha=0.8, smoothing=0.1)]
