_base_ = ["../_base_/abd_cifar100_20tasks.py"]

# "Upper Bound" of the tables: in every session a new network learns the images of all classes so far.
scenario = dict(cumulative=True)
method = dict(type="SingleLabelFinetune", restart=True)
