# ABD's system on CIFAR-100: network, optimiser and schedule of every row of its tables, and the method ABD itself.
# Other rows change the method (SingleLabel*); DGR also mean 0, std 1 and weight_decay 0. Rows with a coreset have
# memory=dict(total=2000, selection=...): random_coreset (rehearsal, LwF), nearest_coreset (E2E), herding_coreset (BiC).
# Tiny-ImageNet-200: image_size 64 and 200 outputs.
network = dict(
    backbone=dict(
        name="resnet32_abd",
        mean=(0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        std=(0.2673342858792409, 0.25643846291708816, 0.2761504713256834),
    ),
    head=dict(type="full_linear", num_classes=100),
    image_size=32,
)
method = dict(type="ABD", mu=0.1, inversion=dict(iterations=10000))
train_cfg = dict(max_epochs=250)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=2e-4), paramwise_cfg=dict(decay_all=True)
)
param_scheduler = [dict(type="Steps", milestones=[100, 150, 200])]
train_dataloader = dict(batch_size=128, num_workers=8)
test_dataloader = dict(batch_size=128, num_workers=8)
precision = "fp32"
seed = 0
