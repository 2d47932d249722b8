# What DAFormer's runs on ImageNet share.
_base_ = ["../../_base_/daformer_imagenet.py"]
train_transform = dict(
    cutout=0.0, randaugment=False, crop="resized", interpolation="bicubic", flip=True, policy="rand-m9-mstd0.5-inc1"
)
