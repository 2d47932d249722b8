_base_ = ["cifar100_daformer_m.py"]
network = dict(head=dict(edition="S"))
