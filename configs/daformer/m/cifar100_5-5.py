_base_ = ["_cifar100.py"]
scenario = dict(base=0, increment=5)
