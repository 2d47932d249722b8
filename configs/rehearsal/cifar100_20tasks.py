_base_ = ["../_base_/abd_cifar100_20tasks.py", "_method.py"]
