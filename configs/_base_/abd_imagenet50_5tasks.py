# ABD's system on ImageNet: the first five sessions of ten classes, in a classifier of 1000 outputs; top-5 is the number
# that its tables judge by. The network is what its release calls ResNet-18 (three stages at 224 pixels); a common
# one is network.backbone.name=resnet18.
_base_ = ["abd_cifar100.py"]

scenario = dict(
    dataset=dict(_delete_=True, type="imagenet", root="datasets/imagenet", fit="centre", name="imagenet1000"),
    class_order="numpy:1993",
    base=0,
    increment=10,
    max_sessions=5,
)
train_transform = dict(_delete_=True, cutout=0.0, randaugment=False, crop="resized", flip=True)
network = dict(
    backbone=dict(name="resnet18_abd", mean="imagenet", std="imagenet"), head=dict(num_classes=1000), image_size=224
)
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [dict(type="Steps", milestones=[30, 60, 80, 90])]
train_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)
