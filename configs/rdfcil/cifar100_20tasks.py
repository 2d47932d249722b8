_base_ = ["../_base_/rdfcil_cifar100.py"]

scenario = dict(num_sessions=20)
