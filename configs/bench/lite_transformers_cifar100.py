# The transformers shortened for a CPU (configs/lite/cifar100_*.py), CIFAR-100 or a part of it, 20-20.
# python -m mlcil bench configs/bench/lite_transformers_cifar100.py scenario.dataset.root=FOLDER
title = "CIFAR-100 20-20, shortened transformers"
phases = True
runs = [
    dict(label="DKT", config="../lite/cifar100_dkt.py"),
    dict(label="DAFormer-S", config="../lite/cifar100_daformer_s.py"),
    dict(label="DAFormer-M", config="../lite/cifar100_daformer_m.py"),
]
