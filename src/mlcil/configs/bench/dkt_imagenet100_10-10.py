# DKT on its own choice of 100 ImageNet classes, beside the published lines; needs a GPU.
title = "ImageNet-100 10-10, DKT"
seeds = [0]
phases = "dkt_imagenet100_10-10"
runs = [dict(label="DKT", config="dkt/imagenet100_10-10")]
