# DKT and DAFormer on CIFAR-100, 10 sessions: the runs of transformers_cifar100_20-20.py.
# Needs a GPU: python -m mlcil bench transformers_cifar100_10-10
_base_ = ["transformers_cifar100_20-20.py"]
title = "CIFAR-100 10-10, transformers"
phases = "dkt_cifar100_10-10"
runs = [{**run, "config": run["config"].replace("20-20", "10-10")} for run in _base_.runs]
