# R-DFCIL on CIFAR-100 (release: 200 epochs, the last 40 of them refine the classifier; session 0 has no refinement).
# Tiny-ImageNet-200: image_size 64, weight_decay 2e-4. ImageNet-100: resnet18_rdfcil, 120 epochs, the last 30 of them
# for the refinement, milestones 30 and 60, weight_decay 1e-4, batches of 64, 10000 iterations of inversion.
network = dict(
    backbone=dict(name="resnet32_rdfcil", mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
    head=dict(type="session_linear"),
    image_size=32,
)
method = dict(type="RDFCIL", ce=0.5, hkd=0.15, rkd=0.5, finetune_epochs=40, inversion=dict(iterations=5000))
train_cfg = dict(max_epochs=200, base_epochs=160)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4), paramwise_cfg=dict(decay_all=True)
)
param_scheduler = [dict(type="Steps", milestones=[80, 120], constant_from=160, constant=0.005)]
train_dataloader = dict(batch_size=128, num_workers=4)
test_dataloader = dict(batch_size=128, num_workers=4)
precision = "fp32"
seed = 1
