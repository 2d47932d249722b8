_base_ = ["../_base_/abd_cifar100_5tasks.py"]

method = dict(type="SingleLabelFinetune")  # "Base" of the tables
