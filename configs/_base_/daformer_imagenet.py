# DAFormer-M on 224 x 224 images; the released settings for these cannot run, so the external keys follow the patches.
_base_ = ["./daformer_cifar.py"]
network = dict(backbone=dict(patch=16), image_size=224)
