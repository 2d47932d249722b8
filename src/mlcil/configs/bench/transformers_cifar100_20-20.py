# DKT and DAFormer on CIFAR-100, 5 sessions, over the three class orders; the published lines are of the first. DKT
# published one run. Needs a GPU: python -m mlcil bench transformers_cifar100_20-20
title = "CIFAR-100 20-20, transformers"
seeds = [0]
class_orders = ["dytox_cifar100_1", "dytox_cifar100_2", "dytox_cifar100_3"]
phases = "dkt_cifar100_20-20"
runs = [
    dict(label="DKT", config="dkt/cifar100_20-20"),
    dict(label="DAFormer-S", config="daformer/s/cifar100_20-20"),
    dict(label="DAFormer-M", config="daformer/m/cifar100_20-20"),
    dict(label="DAFormer-M, joint", config="daformer/m/cifar100_20-20", overrides={"scenario.joint": True}),
]
