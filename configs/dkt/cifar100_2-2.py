_base_ = ["_cifar100.py"]
# a protocol that DKT did not publish; DAFormer has it
scenario = dict(base=0, increment=2)
method = dict(finetuning=dict(early_sessions=6))
