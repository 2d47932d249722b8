"""R-DFCIL: 200 epochs, the last 40 of them refine the classifier; session 0 has no refinement.

Its std is over the class orders "random:0", "random:1" and "random:2", all with seed 1. On ImageNet-100 it takes
PODNet's lists; photos are cut to their centre and then cropped at random.
"""

recipes = {"single_label": None}
settings = dict(
    network=dict(
        backbone=dict(name="resnet32_rdfcil", mean="cifar100", std="cifar100"), head=dict(type="session_linear")
    ),
    method=dict(type="RDFCIL", ce=0.5, hkd=0.15, rkd=0.5, finetune_epochs=40, inversion=dict(iterations=5000)),
    train_cfg=dict(max_epochs=200, base_epochs=160),
    optim_wrapper=dict(
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4), paramwise_cfg=dict(decay_all=True)
    ),
    param_scheduler=[dict(type="Steps", milestones=[80, 120], constant_from=160, constant=0.005)],
    train_dataloader=dict(batch_size=128, num_workers=4, drop_last=True),
    test_dataloader=dict(batch_size=128, num_workers=4),
    precision="fp32",
    seed=1,
)
on = {
    "cifar10": dict(network=dict(backbone=dict(mean="cifar10", std="cifar10"))),
    "tiny_imagenet": dict(
        network=dict(backbone=dict(mean="tiny_imagenet", std="tiny_imagenet")),
        optim_wrapper=dict(optimizer=dict(weight_decay=2e-4)),
        train_dataloader=dict(num_workers=8),
        test_dataloader=dict(num_workers=8),
    ),
    "imagenet100": dict(
        scenario=dict(
            dataset=dict(
                _delete_=True,
                type="imagenet",
                root="datasets/imagenet100",
                train_list="train_100.txt",
                test_list="val_100.txt",
                fit="centre",
                name="imagenet100",
            )
        )
    ),
    "photos": dict(
        train_transform=dict(crop="padded", padding=4, fill="imagenet"),
        network=dict(backbone=dict(name="resnet18_rdfcil", mean="imagenet", std="imagenet")),
        method=dict(finetune_epochs=30, inversion=dict(iterations=10000)),
        train_cfg=dict(max_epochs=120, base_epochs=90),
        optim_wrapper=dict(optimizer=dict(weight_decay=1e-4)),
        param_scheduler=[dict(type="Steps", milestones=[30, 60], constant_from=90, constant=0.005)],
        train_dataloader=dict(batch_size=64, num_workers=8),
        test_dataloader=dict(batch_size=64, num_workers=8),
    ),
}
