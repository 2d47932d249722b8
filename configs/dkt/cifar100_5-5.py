_base_ = ["_cifar100.py"]
scenario = dict(base=0, increment=5)
method = dict(finetuning=dict(early_sessions=6))
