# What the transformers' demo shares: ten handwritten digits at 16 pixels, five sessions of two classes, 200 exemplars.
# Repeated augmentation needs more images a session than there are, and fine-tuning is shuffled so that the newest
# classes are not left out.
_base_ = ["../_base_/digits_single.py"]

scenario = dict(base=0, increment=2)
train_transform = dict(padding=1)
memory = dict(total=200, quota="floor", views="train")
train_dataloader = dict(batch_size=32, num_workers=0)
test_dataloader = dict(batch_size=128, num_workers=0)
train_cfg = dict(max_epochs=15)
param_scheduler = [dict(type="WarmupCosine", warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-5)]
precision = "fp32"
deterministic = True
log_interval = 50
threads = 1
seed = 1
