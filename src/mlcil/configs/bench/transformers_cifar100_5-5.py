# DKT and DAFormer on CIFAR-100, 20 sessions: the runs of transformers_cifar100_20-20.py.
# Needs a GPU: python -m mlcil bench transformers_cifar100_5-5
_base_ = ["transformers_cifar100_20-20.py"]
title = "CIFAR-100 5-5, transformers"
phases = "dkt_cifar100_5-5"
runs = [{**run, "config": run["config"].replace("20-20", "5-5")} for run in _base_.runs]
