_base_ = ["_cifar100.py"]
scenario = dict(base=0, increment=10)
method = dict(finetuning=dict(early_sessions=3))
