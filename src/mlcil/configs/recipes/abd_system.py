"""ABD's system: network, optimiser and schedule of every row of its tables.

Repetition r of the tables is seed r with class order "random:r". On photos the network is what ABD's release calls
ResNet-18 (three stages at 224 pixels); a common one is network.backbone.name=resnet18.
"""

settings = dict(
    network=dict(
        backbone=dict(name="resnet32_abd", mean="abd_cifar100", std="abd_cifar100"), head=dict(type="full_linear")
    ),
    train_cfg=dict(max_epochs=250),
    optim_wrapper=dict(
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=2e-4), paramwise_cfg=dict(decay_all=True)
    ),
    param_scheduler=[dict(type="Steps", milestones=[100, 150, 200])],
    train_dataloader=dict(batch_size=128, num_workers=8, drop_last=True),
    test_dataloader=dict(batch_size=128, num_workers=8),
    precision="fp32",
    seed=0,
)
on = {
    "small_images": dict(train_transform=dict(fill="black", jitter=dict(brightness=63 / 255, contrast=0.8))),
    "cifar10": dict(network=dict(backbone=dict(mean="abd_cifar10", std="abd_cifar10"))),
    "tiny_imagenet": dict(
        scenario=dict(dataset=dict(class_ids="sorted")),
        network=dict(backbone=dict(mean="abd_tiny_imagenet", std="abd_tiny_imagenet")),
    ),
    "photos": dict(
        network=dict(backbone=dict(name="resnet18_abd", mean="imagenet", std="imagenet")),
        train_cfg=dict(max_epochs=100),
        optim_wrapper=dict(optimizer=dict(weight_decay=1e-4)),
        param_scheduler=[dict(type="Steps", milestones=[30, 60, 80, 90])],
        train_dataloader=dict(batch_size=256),
        test_dataloader=dict(batch_size=256),
    ),
}
