# PASCAL VOC 2007, B0-C4: the methods of KRT's tables, CSC, HCP and KBK with the papers' network, next to the published
# numbers.
# Needs the full data set, the ImageNet-21K-P weights and GPUs: python -m mlcil bench voc_b0c4
title = "PASCAL VOC 2007, B0-C4, TResNet-M, 224 px"
published = "voc_b0c4"
seeds = [1, 2, 3]
overrides = {"scenario.base": 0, "scenario.increment": 4}

_linear, _krt = "finetune/voc_b0c4", "krt/voc_b0c4"
_deduplicate = {"memory.deduplicate": False}  # as in the released code
_prototype, _graph = {"network.head.type": "prototype"}, {"network.head.type": "graph"}
_herding2 = {"memory.per_class": 2, "memory.selection": "herding"}
_reservoir2 = {"memory.total": 40, "memory.selection": "reservoir"}

runs = [
    dict(label="Joint", config="joint/voc"),
    dict(label="Fine-tuning", config=_linear),
    dict(label="oEWC", config=_linear, overrides={"method.type": "OEWC"}),
    dict(label="LwF, unknown ignored", config=_linear, overrides={"method.type": "LwF"}),
    dict(label="LwF, unknown absent", config=_linear, overrides={"method.type": "LwF", "method.old_labels": "absent"}),
    dict(label="AGCN", config=_linear, overrides={"method.type": "AGCN", **_graph}),
    dict(label="PODNet", config=_linear, overrides={"method.type": "POD"}),
    dict(label="KRT", config=_krt),
    dict(label="KRT, recall class", config=_krt, overrides={"method.recall": "class"}),
    dict(label="KRT, recall quantile", config=_krt, overrides={"method.recall": "quantile"}),
    dict(label="CSC", config="csc/voc_b0c4"),
    dict(label="HCP", config="hcp/voc_b0c4"),
    dict(label="KBK", config="kbk/voc_b0c4"),
    dict(label="iCaRL, 2/class", config=_linear, overrides={"method.type": "ICaRL", **_prototype, **_herding2}),
    dict(label="BiC, 2/class", config=_linear, overrides={"method.type": "BiC", **_herding2}),
    dict(label="ER, 2/class", config=_linear, overrides={"method.type": "ER", **_reservoir2}),
    dict(label="TPCIL, 2/class", config=_linear, overrides={"method.type": "TPCIL", **_herding2}),
    dict(label="PODNet, 2/class", config=_linear, overrides={"method.type": "POD", **_herding2}),
    dict(label="DER++, 2/class", config=_linear, overrides={"method.type": "DERpp", **_reservoir2}),
    dict(label="KRT-R, 2/class", config=_krt, overrides={**_herding2, **_deduplicate}),
    dict(label="CSC-R, 2/class", config="csc/voc_b0c4", overrides={**_herding2, **_deduplicate}),
    dict(label="HCP-R, 2/class", config="hcp/voc_b0c4", overrides={**_herding2, **_deduplicate}),
    dict(label="KBK-R, 2/class", config="kbk/voc_b0c4", overrides={**_herding2, **_deduplicate}),
]
