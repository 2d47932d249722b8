_base_ = ["../_base_/short_cifar100.py"]

# the memory is the share of a whole CIFAR-100 that ABD gives it
method = dict(type="SingleLabelBiC")
memory = dict(total=400, selection="herding_coreset")
