# The transformers shortened for a CPU (lite/cifar100_*), CIFAR-100 or a part of it, 20-20.
# python -m mlcil bench lite_transformers_cifar100 scenario.dataset.root=FOLDER
title = "CIFAR-100 20-20, shortened transformers"
phases = True
runs = [
    dict(label="DKT", config="lite/cifar100_dkt"),
    dict(label="DAFormer-S", config="lite/cifar100_daformer_s"),
    dict(label="DAFormer-M", config="lite/cifar100_daformer_m"),
]
