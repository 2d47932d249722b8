# KRT on VOC: released YAML (embed_dim 768, lr 4e-5 in every session, lambda 80).
network = dict(
    backbone=dict(name="tresnet_m"),
    head=dict(type="ica", embed_dim=768, num_heads=8),
    image_size=224,
)
pretrained = "pretrained_models/tresnet_m_224_21k.pth"
method = dict(type="KRT", token_weight=80.0)
train_cfg = dict(max_epochs=20, base_lr=4e-5)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=4e-5, weight_decay=1e-4))
