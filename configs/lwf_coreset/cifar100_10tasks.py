_base_ = ["../_base_/abd_cifar100_10tasks.py", "_method.py"]
