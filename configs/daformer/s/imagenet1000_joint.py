_base_ = ["../m/imagenet1000_joint.py"]
# edition S has no official code: one external key for all sessions
network = dict(head=dict(edition="S"))
