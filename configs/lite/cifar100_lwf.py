_base_ = ["../_base_/short_cifar100.py"]

method = dict(type="LwF")
