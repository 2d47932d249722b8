# R-DFCIL on CIFAR-100 (release: 200 epochs, the last 40 of them refine the classifier; session 0 has no refinement).
# Its std is over the class orders "random:0", "random:1" and "random:2", all with seed 1.
_base_ = ["cifar100.py"]

network = dict(
    backbone=dict(name="resnet32_rdfcil", mean="cifar100", std="cifar100"),
    head=dict(type="session_linear"),
    image_size=32,
)
method = dict(type="RDFCIL", ce=0.5, hkd=0.15, rkd=0.5, finetune_epochs=40, inversion=dict(iterations=5000))
train_cfg = dict(max_epochs=200, base_epochs=160)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4), paramwise_cfg=dict(decay_all=True)
)
param_scheduler = [dict(type="Steps", milestones=[80, 120], constant_from=160, constant=0.005)]
train_dataloader = dict(batch_size=128, num_workers=4, drop_last=True)
test_dataloader = dict(batch_size=128, num_workers=4)
precision = "fp32"
seed = 1
