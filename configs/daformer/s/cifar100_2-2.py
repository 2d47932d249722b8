_base_ = ["../m/cifar100_2-2.py"]
# edition S has no official code: one external key for all sessions
network = dict(head=dict(edition="S"))
