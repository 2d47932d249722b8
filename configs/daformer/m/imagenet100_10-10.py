# The first 100 synsets, as DyTox; DKT has another subset.
_base_ = ["_imagenet.py"]
scenario = dict(
    dataset=dict(
        type="imagenet",
        root="datasets/imagenet",
        subset="imagenet100_dytox",
        fit=dict(kind="centre", interpolation="bicubic"),
        name="imagenet100",
    ),
    class_order="numpy:1993",
    base=0,
    increment=10,
)
