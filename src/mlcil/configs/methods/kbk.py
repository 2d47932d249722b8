"""KBK: purified class features, confident recall of old labels, features of the unknown (full settings need a GPU).

With memory, KBK-R: memory.per_class=20 memory.deduplicate=True on COCO, per_class=2 and deduplicate=False on VOC.
"""

recipes = {"multi_label": "multi_label"}
settings = dict(network=dict(head=dict(type="kbk", depth=1)), method=dict(type="KBK"))
on = {"voc": dict(network=dict(head=dict(depth=3)))}
