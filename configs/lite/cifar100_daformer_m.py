# DAFormer-M in minutes on a CPU, shortened as cifar100_dkt.py, with a smaller radius of the sharpness-aware step. The
# rest is configs/daformer/m/cifar100_20-20.py.
_base_ = ["../daformer/m/cifar100_20-20.py"]
scenario = dict(dataset=dict(verify=False))
network = dict(backbone=dict(dim=64, depth=2, heads=4), head=dict(num_heads=4), image_size=16)
method = dict(finetuning=dict(lr=5e-4, base_batch_size=32, epochs=3, shuffle=True))
memory = dict(total=500)
train_transform = dict(padding=2, policy=None)
train_dataloader = dict(batch_size=32, num_workers=0)
test_dataloader = dict(batch_size=250, num_workers=0)
train_cfg = dict(max_epochs=10, repeated_augmentation=1)
optim_wrapper = dict(rho=0.5)
param_scheduler = [dict(type="WarmupCosine", warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-5)]
auto_scale_lr = dict(_delete_=True, base_batch_size=16)
threads = 1
seed = 1
