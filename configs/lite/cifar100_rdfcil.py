_base_ = ["../_base_/short_cifar100.py"]

# R-DFCIL's own network and schedule, shortened like the others: refinement in the last fifth
train_transform = dict(fill="cifar100")
network = dict(
    backbone=dict(name="resnet32_rdfcil", blocks=(1, 1, 1, 1), mean="cifar100", std="cifar100"),
    head=dict(_delete_=True, type="session_linear"),
)
method = dict(type="RDFCIL", ce=0.5, hkd=0.15, rkd=0.5, finetune_epochs=4, inversion=dict(iterations=250))
train_cfg = dict(base_epochs=16)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = [dict(type="Steps", milestones=[8, 12], constant_from=16, constant=0.005)]
