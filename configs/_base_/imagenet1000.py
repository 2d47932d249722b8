# ImageNet-1000 from its class folders. Labels take 1.3 GB of memory.
scenario = dict(
    dataset=dict(type="imagenet", root="datasets/imagenet", fit="centre", name="imagenet1000"),
    class_order="numpy:1993",
)
train_transform = dict(cutout=0.0, randaugment=False, crop="resized", flip=True)
