"""DKT as released: one GPU with batches of 512.

With two GPUs train_dataloader.batch_size=256, with a small one batch_size=128 and optim_wrapper.accumulative_counts=4.
The released log of ImageNet-100 (DKT's own choice of 100 classes, where no hole is cut) shows the learning rate 5e-4 at
its batch, the released code would give 1e-3. ImageNet-1000: 4 processes of 256 images; its rate is not known, and 1e-3
is that of the smaller data sets at 512 images, kept for 1024. B0-C2 was not published; DAFormer has it.
"""

recipes = {"single_label": "transformers"}
settings = dict(
    network=dict(
        backbone=dict(name="dkt", dim=384, depth=5, heads=12, drop_path=0.1), head=dict(type="dkt", num_heads=12)
    ),
    method=dict(
        type="DKT",
        separation=0.003,
        finetuning=dict(lr=5e-5, base_batch_size=256, epochs=10, early_epochs=1, early_sessions=3),
    ),
    train_dataloader=dict(batch_size=512),
    auto_scale_lr=dict(base_batch_size=256, published_batch_size=512),
)
on = {
    "small_images": dict(network=dict(backbone=dict(stem="cifar")), train_transform=dict(hole=16)),
    ("cifar100", "B0-C20"): dict(method=dict(finetuning=dict(early_sessions=2))),
    ("cifar100", "B0-C5"): dict(method=dict(finetuning=dict(early_sessions=6))),
    ("cifar100", "B0-C2"): dict(method=dict(finetuning=dict(early_sessions=6))),
    "photos": dict(
        network=dict(backbone=dict(stem="imagenet")),
        method=dict(finetuning=dict(early_epochs=5)),
        auto_scale_lr=dict(base_batch_size=512),
        precision="auto",
    ),
    "imagenet100": dict(scenario=dict(dataset=dict(subset="imagenet100_dkt", name="imagenet100_dkt"))),
    "imagenet1000": dict(
        method=dict(finetuning=dict(base_batch_size=512)),
        train_dataloader=dict(batch_size=1024),
        auto_scale_lr=dict(published_batch_size=1024),
    ),
}
