_base_ = ["_cifar100.py"]
scenario = dict(base=0, increment=20)
method = dict(finetuning=dict(early_sessions=2))
