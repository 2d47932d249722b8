# The number of exemplars is the usual one for ImageNet-1000; the release does not state it.
_base_ = ["_imagenet.py"]
scenario = dict(
    dataset=dict(
        type="imagenet",
        root="datasets/imagenet",
        fit=dict(kind="centre", interpolation="bicubic"),
        name="imagenet1000",
    ),
    class_order="numpy:1993",
    base=0,
    increment=100,
)
memory = dict(total=20000)
