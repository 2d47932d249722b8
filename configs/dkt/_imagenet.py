# What DKT's runs on ImageNet share; no hole is cut there.
_base_ = ["../_base_/dkt_imagenet.py"]
train_transform = dict(
    cutout=0.0, randaugment=False, crop="resized", interpolation="bicubic", flip=True, policy="rand-m9-mstd0.5-inc1"
)
