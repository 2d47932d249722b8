# What the three runs of the demo share: a small TResNet, 64 px, for two CPU cores. The low rate of session 0 keeps
# what pretraining brought, which later sessions need.
train_transform = dict(cutout=0.0, randaugment=False)
train_dataloader = dict(batch_size=16, num_workers=0)
test_dataloader = dict(batch_size=100, num_workers=0)
train_cfg = dict(max_epochs=10, base_lr=3e-4)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4, fused=True))
precision = "fp32"
deterministic = True
log_interval = 50
threads = 1  # networks this small gain nothing from more
seed = 1
