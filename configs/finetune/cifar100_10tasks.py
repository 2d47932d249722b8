_base_ = ["../_base_/abd_cifar100_10tasks.py"]

method = dict(type="SingleLabelFinetune")  # "Base" of the tables
