"""KRT: dynamic pseudo-labels and knowledge that is restored and transferred (released YAMLs).

Memory for KRT-R: memory.per_class=20 memory.deduplicate=True on COCO, per_class=2 and deduplicate=False on VOC. 300 is
from a comment in the released YAML for B40 protocols.
"""

recipes = {"multi_label": "multi_label"}
settings = dict(
    network=dict(head=dict(type="ica", embed_dim=384, num_heads=8)),
    method=dict(type="KRT", token_weight=100.0),
)
on = {
    "voc": dict(network=dict(head=dict(embed_dim=768)), method=dict(token_weight=80.0)),
    ("coco", "B40-C10"): dict(method=dict(token_weight=300.0)),
}
