_base_ = ["cifar100_10-10.py"]
scenario = dict(joint=True)
