# ImageNet-1000 from its class folders, in the order of DKT, DAFormer and ABD.
scenario = dict(
    dataset=dict(type="imagenet", root="datasets/imagenet", fit="centre", name="imagenet1000"),
    class_order="numpy:1993",
)
train_transform = dict(cutout=0.0, randaugment=False, crop="resized", flip=True)
