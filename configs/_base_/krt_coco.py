# KRT on COCO: released YAML (embed_dim 384, lr 4e-5 in session 0 and 1e-4 later, lambda 100).
network = dict(
    backbone=dict(name="tresnet_m"),
    head=dict(type="ica", embed_dim=384, num_heads=8),
    image_size=224,
)
pretrained = "pretrained_models/tresnet_m_224_21k.pth"
method = dict(type="KRT", token_weight=100.0)
train_cfg = dict(max_epochs=20, base_lr=4e-5)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-4, weight_decay=1e-4))
