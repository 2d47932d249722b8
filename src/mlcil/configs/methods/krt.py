"""KRT: dynamic pseudo-labels and knowledge that is restored and transferred (released YAMLs).

Memory for KRT-R: memory.per_class=20 memory.deduplicate=True on COCO, per_class=2 and deduplicate=False on VOC. Token
weights: 100 stands in the released YAML, 300 in its comment for B40 protocols; the recorded runs behind the published
COCO B0-C10 figures had 300 without memory and 80 with it, and those are the rows of published.py. The published runs
are two processes of 64 images; the rates are not scaled to other updates.
"""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="ica", embed_dim=384, num_heads=8)),
    method=dict(type="KRT", token_weight=100.0),
)
_published = dict(published_batch_size=128)
on = {
    "coco": dict(auto_scale_lr=_published),
    "voc": dict(network=dict(head=dict(embed_dim=768)), method=dict(token_weight=80.0), auto_scale_lr=_published),
    ("coco", "B40-C10"): dict(method=dict(token_weight=300.0)),
}
