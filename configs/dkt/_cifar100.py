# DKT on CIFAR-100 as released: order 1 of the class lists that DyTox, DKT and DAFormer share (the others:
# scenario.class_order=dytox_cifar100_2, dytox_cifar100_3).
_base_ = ["../_base_/cifar100.py", "../_base_/dkt_cifar.py"]
scenario = dict(class_order="dytox_cifar100_1")
train_transform = dict(fill="black", policy="rand-m9-mstd0.5-inc1", hole=16)
