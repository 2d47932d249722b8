_base_ = ["../m/imagenet100_10-10.py"]
# edition S has no official code: one external key for all sessions
network = dict(head=dict(edition="S"))
