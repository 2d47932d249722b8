# R-DFCIL on ImageNet-100, from PODNet's lists: the central crop, then a padded random crop of it.
_base_ = ["rdfcil_cifar100.py"]

scenario = dict(
    dataset=dict(
        _delete_=True,
        type="imagenet",
        root="datasets/imagenet100",
        train_list="train_100.txt",
        test_list="val_100.txt",
        fit="centre",
        name="imagenet100",
    ),
    class_order="numpy:1993",
)
train_transform = dict(fill="imagenet")
network = dict(backbone=dict(name="resnet18_rdfcil", mean="imagenet", std="imagenet"), image_size=224)
method = dict(finetune_epochs=30, inversion=dict(iterations=10000))
train_cfg = dict(max_epochs=120, base_epochs=90)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [dict(type="Steps", milestones=[30, 60], constant_from=90, constant=0.005)]
train_dataloader = dict(batch_size=64, num_workers=8)
test_dataloader = dict(batch_size=64, num_workers=8)
