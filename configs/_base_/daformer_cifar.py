# DAFormer-M on 32 x 32 images: the released settings (one GPU, batch 128). network.head.edition="S" is this
# project's own edition with one shared external key. Data set, augmentation and class order come from the data set's
# base file.
network = dict(
    backbone=dict(name="daformer", dim=384, depth=5, heads=12, drop_path=0.1, patch=4),
    head=dict(type="daformer", edition="M", num_heads=12, drop_path=0.1),
    image_size=32,
)
method = dict(type="DAFormer", distillation="plain", finetuning=dict(lr=5e-5, base_batch_size=512, epochs=20))
memory = dict(total=2000, quota="floor", views="train")
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=500, repeated_augmentation=3)
optim_wrapper = dict(
    type="SharpnessAwareOptimWrapper", rho=3.0, optimizer=dict(type="AdamW", lr=5e-4, weight_decay=1e-6)
)
param_scheduler = [dict(type="WarmupCosine", warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)]
auto_scale_lr = dict(base_batch_size=512, published_batch_size=128)
custom_hooks = [dict(type="MixUp", alpha=0.8, smoothing=0.1)]
precision = "fp32"
