"""Minutes on a CPU: thin networks on small images with a short schedule; the default of the digits.

Many labels an image: a TResNet of four blocks at 64 pixels from random weights; the low rate of session 0 keeps what
pretraining brought, where there was one, and KRT's attention head wants half the rate of a linear one (of 1e-3, 5e-4
and 3e-4 the best on held-out digit scenes, seed 11). CIFAR-100: images halved to 16 pixels, one block a stage or two
transformer blocks of width 64, no colour jitter, ABD's schedule divided by 12.5; works with a part of CIFAR-100 too.
Single digits: twelve or fifteen epochs; repeated augmentation would need more images, and fine-tuning is shuffled so
that the newest classes are not left out.
"""

tasks = ("multi_label", "single_label")
settings = dict(threads=1)  # networks this small gain nothing from more
on = {
    "multi_label": dict(
        network=dict(backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25), image_size=64),
        pretrained=None,
        train_transform=dict(cutout=0.0, randaugment=False),
        train_dataloader=dict(batch_size=16, num_workers=0),
        test_dataloader=dict(batch_size=100, num_workers=0),
        train_cfg=dict(max_epochs=10, base_lr=3e-4),
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4, fused=True)),
        precision="fp32",
        deterministic=True,
        seed=1,
    ),
    "krt": dict(
        network=dict(head=dict(embed_dim=128)),
        method=dict(token_weight=50.0),
        optim_wrapper=dict(optimizer=dict(lr=5e-4)),
        auto_scale_lr=None,
    ),
    "multi_lane": dict(
        network=dict(
            backbone=dict(
                _delete_=True,
                name="vit_tiny_r_s16_p8_224",  # patches of a convolution's map, which few images can teach
                mean=[0.0] * 3,
                std=[1.0] * 3,
                trunk=dict(patch_size=2, embed_dim=96, depth=4, num_heads=4),
            ),
            head=dict(tokens=5, prompts=5, prompt_blocks=2),
        ),
        train_transform=dict(crop=None, flip=False),
        train_cfg=dict(base_lr=0.03),
        optim_wrapper=dict(optimizer=dict(lr=0.03, weight_decay=0.0)),
        auto_scale_lr=None,
    ),
    ("er", "multi_label"): dict(memory=dict(total=200)),
    "derpp": dict(memory=dict(total=200)),
    "prs": dict(memory=dict(total=200)),
    "ocdm": dict(memory=dict(total=200)),
    "letters": dict(train_cfg=dict(max_epochs=8, base_lr=2e-3)),
    "single_label": dict(
        network=dict(image_size=16),
        train_transform=dict(padding=2, jitter=None),
        train_dataloader=dict(batch_size=64, num_workers=0),
        test_dataloader=dict(batch_size=256, num_workers=0),
    ),
    "abd_system": dict(
        network=dict(backbone=dict(blocks=(1, 1, 1))),
        train_cfg=dict(max_epochs=20),
        param_scheduler=[dict(type="Steps", milestones=[8, 12, 16])],
    ),
    "abd": dict(method=dict(inversion=dict(iterations=250))),
    "deep_inversion": dict(method=dict(inversion=dict(iterations=250))),
    "lwf_synthetic": dict(method=dict(inversion=dict(iterations=250))),
    ("bic", "single_label"): dict(memory=dict(total=400)),  # the share of a whole CIFAR-100 that ABD gives it
    "e2e": dict(memory=dict(total=400)),
    "rehearsal": dict(memory=dict(total=400)),
    "rdfcil": dict(
        network=dict(backbone=dict(blocks=(1, 1, 1, 1))),
        method=dict(finetune_epochs=4, inversion=dict(iterations=250)),
        train_cfg=dict(max_epochs=20, base_epochs=16),
        param_scheduler=[dict(type="Steps", milestones=[8, 12], constant_from=16, constant=0.005)],
    ),
    "transformers": dict(
        network=dict(backbone=dict(dim=64, depth=2, heads=4), head=dict(num_heads=4)),
        method=dict(finetuning=dict(lr=5e-4, base_batch_size=32, epochs=3, shuffle=True)),
        memory=dict(total=500),
        train_transform=dict(policy=None),
        train_dataloader=dict(batch_size=32),
        test_dataloader=dict(batch_size=250),
        train_cfg=dict(max_epochs=10, repeated_augmentation=1),
        param_scheduler=[dict(type="WarmupCosine", warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-5)],
        auto_scale_lr=dict(_delete_=True, base_batch_size=16),
        seed=1,
    ),
    "dkt": dict(method=dict(finetuning=dict(early_epochs=3)), train_transform=dict(hole=0)),
    "daformer": dict(method=dict(rho=0.5)),
    "cifar100": dict(scenario=dict(dataset=dict(verify=False))),
    "digits_single": dict(
        network=dict(backbone=dict(mean=(0.3,) * 3, std=(0.35,) * 3)),
        train_dataloader=dict(batch_size=32),
        test_dataloader=dict(batch_size=445),
        deterministic=True,
        seed=1,
    ),
    ("abd_system", "digits_single"): dict(
        network=dict(backbone=dict(blocks=(1, 1), widths=(16, 32))),
        train_cfg=dict(max_epochs=12),
        param_scheduler=[dict(type="Steps", milestones=[6, 9])],
    ),
    ("abd", "digits_single"): dict(method=dict(inversion=dict(iterations=150, width=64))),
    ("deep_inversion", "digits_single"): dict(method=dict(inversion=dict(iterations=150, width=64))),
    ("lwf_synthetic", "digits_single"): dict(method=dict(inversion=dict(iterations=150, width=64))),
    ("bic", "digits_single"): dict(memory=dict(total=100)),
    ("e2e", "digits_single"): dict(memory=dict(total=100)),
    ("rehearsal", "digits_single"): dict(memory=dict(total=100)),
    ("rdfcil", "digits_single"): dict(
        network=dict(backbone=dict(blocks=(1, 1), widths=(16, 32))),
        method=dict(finetune_epochs=3, inversion=dict(iterations=150, width=64)),
        train_cfg=dict(max_epochs=12, base_epochs=9),
        optim_wrapper=dict(optimizer=dict(weight_decay=2e-4)),
        param_scheduler=[dict(type="Steps", milestones=[5, 7], constant_from=9, constant=0.005)],
    ),
    ("transformers", "digits_single"): dict(
        network=dict(backbone=dict(dim=48, mean=[0.3] * 3, std=[0.4] * 3)),
        method=dict(finetuning=dict(lr=1e-3, epochs=10)),
        memory=dict(total=200),
        train_transform=dict(padding=1),
        train_dataloader=dict(batch_size=32),
        test_dataloader=dict(batch_size=128),
        train_cfg=dict(max_epochs=15),
        optim_wrapper=dict(optimizer=dict(lr=2e-3)),
        auto_scale_lr=None,
    ),
    ("dkt", "digits_single"): dict(method=dict(finetuning=dict(early_sessions=0))),
}
