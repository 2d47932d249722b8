# DKT's own choice of 100 classes, which is not that of DyTox and DAFormer.
_base_ = ["_imagenet.py"]
scenario = dict(
    dataset=dict(
        type="imagenet",
        root="datasets/imagenet",
        subset="imagenet100_dkt",
        fit=dict(kind="centre", interpolation="bicubic"),
        name="imagenet100_dkt",
    ),
    class_order="numpy:1993",
    base=0,
    increment=10,
)
