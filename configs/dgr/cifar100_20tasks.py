_base_ = ["../_base_/abd_cifar100_20tasks.py", "_method.py"]

network = dict(backbone=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
