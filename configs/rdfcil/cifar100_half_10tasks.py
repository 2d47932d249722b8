_base_ = ["../_base_/rdfcil_cifar100.py"]

scenario = dict(base=50, num_sessions=11)
