# ABD's system on CIFAR-100: data, network, optimiser and schedule of every row of its tables. A method's own part is
# configs/<method>/_method.py; the sessions are in abd_cifar100_{5,10,20}tasks.py. Repetition r of the tables is seed r
# with class order "random:r".
_base_ = ["cifar100.py"]

train_transform = dict(fill="black", jitter=dict(brightness=63 / 255, contrast=0.8))
network = dict(
    backbone=dict(name="resnet32_abd", mean="abd_cifar100", std="abd_cifar100"),
    head=dict(type="full_linear", num_classes=100),
    image_size=32,
)
train_cfg = dict(max_epochs=250)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=2e-4), paramwise_cfg=dict(decay_all=True)
)
param_scheduler = [dict(type="Steps", milestones=[100, 150, 200])]
train_dataloader = dict(batch_size=128, num_workers=8, drop_last=True)
test_dataloader = dict(batch_size=128, num_workers=8)
precision = "fp32"
seed = 0
