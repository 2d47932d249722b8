_base_ = ["../_base_/short_cifar100.py"]

method = dict(type="ABD", mu=0.1, inversion=dict(iterations=250))
