# DKT on 224 x 224 images: ImageNet-100 with batch 512. The released log shows the learning rate 5e-4 at that batch,
# the released code would give 1e-3 (base_batch_size 256).
_base_ = ["./dkt_cifar.py"]
network = dict(backbone=dict(stem="imagenet"), image_size=224)
method = dict(finetuning=dict(early_epochs=5, early_sessions=3))
auto_scale_lr = dict(base_batch_size=512)
precision = "auto"
