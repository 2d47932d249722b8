_base_ = ["../_base_/digits_single.py"]

# Real digits, one class an image, in five sessions of two: a small network of ABD's kind at 16 pixels, for a CPU. The
# methods that `python -m mlcil demo --single-label` compares are in configs/bench/demo_single_label.py; this is ABD.
scenario = dict(num_sessions=5)
network = dict(
    backbone=dict(name="resnet32_abd", blocks=(1, 1), widths=(16, 32), mean=(0.3,) * 3, std=(0.35,) * 3),
    head=dict(type="full_linear", num_classes=10),
    image_size=16,
)
method = dict(type="ABD", mu=0.1, inversion=dict(iterations=150, width=64))
train_cfg = dict(max_epochs=12)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=2e-4), paramwise_cfg=dict(decay_all=True)
)
param_scheduler = [dict(type="Steps", milestones=[6, 9])]
train_dataloader = dict(batch_size=32, num_workers=0, drop_last=True)
test_dataloader = dict(batch_size=445, num_workers=0)
precision = "fp32"
deterministic = True
threads = 1
seed = 1
