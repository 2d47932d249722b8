# R-DFCIL on Tiny-ImageNet-200, whose classes it counts by wnids.txt.
_base_ = ["rdfcil_cifar100.py"]

scenario = dict(
    dataset=dict(_delete_=True, type="tiny_imagenet", root="datasets/tiny-imagenet-200", class_ids="wnids"),
)
train_transform = dict(fill="tiny_imagenet")
network = dict(backbone=dict(mean="tiny_imagenet", std="tiny_imagenet"), image_size=64)
optim_wrapper = dict(optimizer=dict(weight_decay=2e-4))
train_dataloader = dict(num_workers=8)
test_dataloader = dict(num_workers=8)
