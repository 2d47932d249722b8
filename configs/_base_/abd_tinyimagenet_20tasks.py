# ABD's system on Tiny-ImageNet-200, which it counts by sorted class ids: everything else as on CIFAR-100.
_base_ = ["abd_cifar100.py"]

scenario = dict(
    dataset=dict(_delete_=True, type="tiny_imagenet", root="datasets/tiny-imagenet-200", class_ids="sorted"),
    num_sessions=20,
)
network = dict(
    backbone=dict(mean="abd_tiny_imagenet", std="abd_tiny_imagenet"), head=dict(num_classes=200), image_size=64
)
