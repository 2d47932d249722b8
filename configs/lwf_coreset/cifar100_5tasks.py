_base_ = ["../_base_/abd_cifar100_5tasks.py", "_method.py"]
