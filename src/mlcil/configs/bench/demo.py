# Every multi-label method on the embedded digit scenes (B0-C2), three seeds:
# python -m mlcil bench demo
title = "Digit scenes, B0-C2, small TResNet pretrained on rendered letters"
seeds = [1, 2, 3]
jobs = 2

prepare = [dict(config="demo/pretrain")]
overrides = dict(pretrained="saved_models/bench_demo/pretrain/session_0.pth")

_linear, _krt = "finetune data=digits", "demo/krt"
_herding = {"memory.per_class": 20, "memory.selection": "herding"}
_reservoir = {"memory.total": 200, "memory.selection": "reservoir"}
_prototype = {"network.head.type": "prototype"}
_graph = {"network.head.type": "graph"}

runs = [
    dict(label="Joint", config=_linear, overrides={"method.type": "Finetune", "scenario.joint": True}),
    dict(label="Joint, ICA", config=_krt, overrides={"scenario.joint": True}),
    dict(label="Fine-tuning", config=_linear, overrides={"method.type": "Finetune"}),
    dict(label="oEWC", config=_linear, overrides={"method.type": "OEWC"}),
    dict(label="LwF, unknown ignored", config=_linear, overrides={"method.type": "LwF"}),
    dict(label="LwF, unknown absent", config=_linear, overrides={"method.type": "LwF", "method.old_labels": "absent"}),
    dict(label="AGCN", config=_linear, overrides={"method.type": "AGCN", **_graph}),
    dict(label="PODNet", config=_linear, overrides={"method.type": "POD"}),
    dict(label="KRT", config=_krt),
    dict(label="KRT, recall class", config=_krt, overrides={"method.recall": "class"}),
    dict(label="KRT, recall quantile", config=_krt, overrides={"method.recall": "quantile"}),
    dict(label="iCaRL, 20/class", config=_linear, overrides={"method.type": "ICaRL", **_prototype, **_herding}),
    dict(label="BiC, 20/class", config=_linear, overrides={"method.type": "BiC", **_herding}),
    dict(label="TPCIL, 20/class", config=_linear, overrides={"method.type": "TPCIL", **_herding}),
    dict(label="PODNet, 20/class", config=_linear, overrides={"method.type": "POD", **_herding}),
    dict(label="ER, 200", config=_linear, overrides={"method.type": "ER", **_reservoir}),
    dict(label="DER++, 200", config=_linear, overrides={"method.type": "DERpp", **_reservoir}),
    dict(label="PRS, 200", config=_linear, overrides={"method.type": "PRS", **_reservoir, "memory.selection": "prs"}),
    dict(
        label="OCDM, 200", config=_linear, overrides={"method.type": "OCDM", **_reservoir, "memory.selection": "ocdm"}
    ),
    dict(label="KRT-R, 5/class", config=_krt, overrides={**_herding, "memory.per_class": 5}),
    dict(label="KRT-R, 20/class", config=_krt, overrides=_herding),
]
