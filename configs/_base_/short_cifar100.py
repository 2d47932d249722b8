# CIFAR-100 in minutes on one core: five sessions of twenty classes, images halved to 16 pixels, ABD's network with
# one block a stage, crops and mirroring without colour jitter, and ABD's schedule divided by 12.5 (20 epochs, steps
# at 8, 12 and 16). Works with a part of CIFAR-100 too.
_base_ = ["abd_cifar100_5tasks.py"]

scenario = dict(dataset=dict(verify=False))
train_transform = dict(padding=2, jitter=None)
network = dict(backbone=dict(blocks=(1, 1, 1)), image_size=16)
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type="Steps", milestones=[8, 12, 16])]
train_dataloader = dict(batch_size=64, num_workers=0)
test_dataloader = dict(batch_size=256, num_workers=0)
threads = 1
