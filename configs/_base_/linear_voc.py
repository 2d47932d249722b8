# The baselines' network on VOC: linear head on the pooled embedding, same recipe as KRT.
network = dict(backbone=dict(name="tresnet_m"), head=dict(type="linear"), image_size=224)
pretrained = "pretrained_models/tresnet_m_224_21k.pth"
train_cfg = dict(max_epochs=20, base_lr=4e-5)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=4e-5, weight_decay=1e-4))
