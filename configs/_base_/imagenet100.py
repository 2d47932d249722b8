# ImageNet-100 from ImageNet's class folders: the first 100 synsets (DyTox, DAFormer). DKT's subset of the same name is
# "imagenet100_dkt"; with PODNet's lists (R-DFCIL) leave subset out and set train_list="train_100.txt" and
# test_list="val_100.txt". R-DFCIL trains with crop="padded", fill="imagenet", on the central crop.
scenario = dict(
    dataset=dict(
        type="imagenet", root="datasets/imagenet", subset="imagenet100_dytox", fit="centre", name="imagenet100"
    ),
    class_order="numpy:1993",
)
train_transform = dict(cutout=0.0, randaugment=False, crop="resized", flip=True)
