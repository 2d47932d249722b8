# DKT and DAFormer on ImageNet-1000, beside DKT's published lines; needs GPUs.
title = "ImageNet-1000 100-100, transformers"
seeds = [0]
phases = "dkt_imagenet1000_100-100"
runs = [
    dict(label="DKT", config="dkt/imagenet1000_100-100"),
    dict(label="DAFormer-S", config="daformer/s/imagenet1000_100-100"),
    dict(label="DAFormer-M", config="daformer/m/imagenet1000_100-100"),
]
