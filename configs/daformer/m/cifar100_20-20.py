_base_ = ["_cifar100.py"]
# not among the released settings, which have 10-10, 5-5 and 2-2; beside DKT
scenario = dict(base=0, increment=20)
