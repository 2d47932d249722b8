# DKT on 32 x 32 images: the released settings (one GPU, batch 512; with two, train_dataloader.batch_size=256, with a
# small one, batch_size=128 and optim_wrapper.accumulative_counts=4). Data set, augmentation and class order come
# from the data set's base file. early_sessions is 3 for increments of 10, 2 for 20, 6 for fewer.
network = dict(
    backbone=dict(name="dkt", dim=384, depth=5, heads=12, drop_path=0.1, stem="cifar"),
    head=dict(type="dkt", num_heads=12),
    image_size=32,
)
method = dict(
    type="DKT",
    separation=0.003,
    finetuning=dict(lr=5e-5, base_batch_size=256, epochs=10, early_epochs=1, early_sessions=3),
)
memory = dict(total=2000, quota="floor", views="train")
train_dataloader = dict(batch_size=512)
train_cfg = dict(max_epochs=500, repeated_augmentation=3)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=1e-6))
param_scheduler = [dict(type="WarmupCosine", warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)]
auto_scale_lr = dict(base_batch_size=256, published_batch_size=512)
precision = "fp32"
