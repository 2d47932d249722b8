"""ImageNet-100 from ImageNet's class folders: the first 100 synsets (DyTox, DAFormer).

DKT's subset of the same name is "imagenet100_dkt"; with PODNet's lists (R-DFCIL) set subset=None,
train_list=train_100.txt and test_list=val_100.txt.
"""

task = "single_label"
protocol = "10-tasks"
tags = ("photos",)
classes = 100
settings = dict(
    scenario=dict(
        dataset=dict(
            type="imagenet", root="datasets/imagenet", subset="imagenet100_dytox", fit="centre", name="imagenet100"
        ),
        class_order="numpy:1993",
    ),
    network=dict(image_size=224),
    train_transform=dict(cutout=0.0, randaugment=False, crop="resized", flip=True),
)
