_base_ = ["../_base_/rdfcil_cifar100.py"]

scenario = dict(num_sessions=10)  # as the release; 5 and 20 are in cifar100_5tasks.py and cifar100_20tasks.py
