# MS-COCO 2014, B0-C10: the methods of KRT's tables, CSC, HCP and KBK with the papers' network, next to the published
# numbers.
# Needs the full data set, the ImageNet-21K-P weights and GPUs: python -m mlcil bench coco_b0c10
title = "MS-COCO 2014, B0-C10, TResNet-M, 224 px"
published = "coco_b0c10"
seeds = [1, 2, 3]
overrides = {"scenario.base": 0, "scenario.increment": 10}

_linear, _krt = "finetune/coco_b0c10", "krt/coco_b0c10"
_deduplicate = {"memory.deduplicate": True}  # as in the released code
_log_replay = {"method.token_weight": 80.0}  # of the authors' log; krt/coco_b0c10 has the other one
_prototype, _graph = {"network.head.type": "prototype"}, {"network.head.type": "graph"}
_herding5 = {"memory.per_class": 5, "memory.selection": "herding"}
_reservoir5 = {"memory.total": 400, "memory.selection": "reservoir"}
_herding20 = {"memory.per_class": 20, "memory.selection": "herding"}
_reservoir20 = {"memory.total": 1600, "memory.selection": "reservoir"}
_online = {"memory.total": 1000}

runs = [
    dict(label="Joint", config="joint/coco"),
    dict(label="Fine-tuning", config=_linear),
    dict(label="oEWC", config=_linear, overrides={"method.type": "OEWC"}),
    dict(label="LwF", config=_linear, overrides={"method.type": "LwF", "method.old_labels": "absent"}),
    dict(label="LwF, unknown ignored", config=_linear, overrides={"method.type": "LwF"}),
    dict(label="AGCN", config=_linear, overrides={"method.type": "AGCN", **_graph}),
    dict(label="PODNet", config=_linear, overrides={"method.type": "POD"}),
    dict(label="KRT", config=_krt),
    dict(label="KRT, recall class", config=_krt, overrides={"method.recall": "class"}),
    dict(label="KRT, recall quantile", config=_krt, overrides={"method.recall": "quantile"}),
    dict(label="CSC", config="csc/coco_b0c10"),
    dict(label="HCP", config="hcp/coco_b0c10"),
    dict(label="KBK", config="kbk/coco_b0c10"),
    dict(label="TPCIL, 5/class", config=_linear, overrides={"method.type": "TPCIL", **_herding5}),
    dict(label="PODNet, 5/class", config=_linear, overrides={"method.type": "POD", **_herding5}),
    dict(label="DER++, 5/class", config=_linear, overrides={"method.type": "DERpp", **_reservoir5}),
    dict(label="KRT-R, 5/class", config=_krt, overrides={**_herding5, **_deduplicate, **_log_replay}),
    dict(label="CSC-R, 5/class", config="csc/coco_b0c10", overrides={**_herding5, **_deduplicate}),
    dict(label="HCP-R, 5/class", config="hcp/coco_b0c10", overrides={**_herding5, **_deduplicate}),
    dict(label="KBK-R, 5/class", config="kbk/coco_b0c10", overrides={**_herding5, **_deduplicate}),
    dict(label="iCaRL, 20/class", config=_linear, overrides={"method.type": "ICaRL", **_prototype, **_herding20}),
    dict(label="BiC, 20/class", config=_linear, overrides={"method.type": "BiC", **_herding20}),
    dict(label="ER, 20/class", config=_linear, overrides={"method.type": "ER", **_reservoir20}),
    dict(label="TPCIL, 20/class", config=_linear, overrides={"method.type": "TPCIL", **_herding20}),
    dict(label="PODNet, 20/class", config=_linear, overrides={"method.type": "POD", **_herding20}),
    dict(label="DER++, 20/class", config=_linear, overrides={"method.type": "DERpp", **_reservoir20}),
    dict(label="KRT-R, 20/class", config=_krt, overrides={**_herding20, **_deduplicate, **_log_replay}),
    dict(label="CSC-R, 20/class", config="csc/coco_b0c10", overrides={**_herding20, **_deduplicate}),
    dict(label="HCP-R, 20/class", config="hcp/coco_b0c10", overrides={**_herding20, **_deduplicate}),
    dict(label="KBK-R, 20/class", config="kbk/coco_b0c10", overrides={**_herding20, **_deduplicate}),
    dict(label="PRS, 1000", config=_linear, overrides={"method.type": "PRS", **_online, "memory.selection": "prs"}),
    dict(label="OCDM, 1000", config=_linear, overrides={"method.type": "OCDM", **_online, "memory.selection": "ocdm"}),
    dict(label="KRT-R, 1000", config=_krt, overrides={**_online, "memory.deduplicate": False, **_log_replay}),
    dict(label="CSC-R, 1000", config="csc/coco_b0c10", overrides={**_online, "memory.deduplicate": False}),
    dict(label="HCP-R, 1000", config="hcp/coco_b0c10", overrides={**_online, "memory.deduplicate": False}),
    dict(label="KBK-R, 1000", config="kbk/coco_b0c10", overrides={**_online, "memory.deduplicate": False}),
]
