"""DAFormer-M as released: one GPU with batches of 128.

network.head.edition=S is this project's own edition with one external key for all sessions; no official code stands
behind it. The released settings for 224 pixels cannot run, so the external keys follow the patches. Released are 10-10,
5-5 and 2-2 of CIFAR-100.
"""

recipes = {"single_label": "transformers"}
settings = dict(
    network=dict(
        backbone=dict(name="daformer", dim=384, depth=5, heads=12, drop_path=0.1),
        head=dict(type="daformer", edition="M", num_heads=12, drop_path=0.1),
    ),
    method=dict(
        type="DAFormer",
        distillation="plain",
        finetuning=dict(lr=5e-5, base_batch_size=512, epochs=20),
        mixup=dict(alpha=0.8, smoothing=0.1),
        rho=3.0,
    ),
    train_dataloader=dict(batch_size=128),
    auto_scale_lr=dict(base_batch_size=512, published_batch_size=128),
)
on = {
    "small_images": dict(network=dict(backbone=dict(patch=4))),
    "photos": dict(network=dict(backbone=dict(patch=16))),
}
