"""ImageNet-1000 from its class folders, in the order of DKT, DAFormer and ABD."""

task = "single_label"
protocol = "10-tasks"
tags = ("photos",)
classes = 1000
settings = dict(
    scenario=dict(
        dataset=dict(type="imagenet", root="datasets/imagenet", fit="centre", name="imagenet1000"),
        class_order="numpy:1993",
    ),
    network=dict(image_size=224),
    train_transform=dict(cutout=0.0, randaugment=False, crop="resized", flip=True),
)
