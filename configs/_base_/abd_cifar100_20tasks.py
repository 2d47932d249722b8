_base_ = ["abd_cifar100.py"]

scenario = dict(num_sessions=20)
