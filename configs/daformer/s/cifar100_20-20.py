_base_ = ["../m/cifar100_20-20.py"]
# edition S has no official code: one external key for all sessions
network = dict(head=dict(edition="S"))
