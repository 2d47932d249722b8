# Ten digit classes in five sessions of two, on scenes composed of scikit-learn's handwritten digits;
# a small TResNet from random weights, 64 px, for two CPU cores.
scenario = dict(dataset=dict(type="digits"), class_order="as_given", base=0, increment=2)
train_transform = dict(cutout=0.0, randaugment=False)
train_dataloader = dict(batch_size=32, num_workers=1)
test_dataloader = dict(batch_size=100, num_workers=0)
train_cfg = dict(max_epochs=6, base_lr=2e-3)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=1e-4))
precision = "fp32"
deterministic = True
log_interval = 20
seed = 1
