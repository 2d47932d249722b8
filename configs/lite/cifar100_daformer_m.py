# DAFormer-M on a CPU: width 64, two local blocks, few epochs (most steps pass a batch twice); everything else as
# configs/daformer/m/cifar100_20-20.py.
_base_ = ["../daformer/m/cifar100_20-20.py"]
network = dict(backbone=dict(dim=64, depth=2, heads=4), head=dict(num_heads=4))
memory = dict(total=500)
train_dataloader = dict(num_workers=0)
test_dataloader = dict(batch_size=250, num_workers=0)
train_cfg = dict(max_epochs=8)
param_scheduler = [dict(type="WarmupCosine", warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-5)]
auto_scale_lr = dict(base_batch_size=64)
seed = 1
