# Every multi-label method on the embedded digit scenes (B0-C2), three seeds. Each takes the best of three settings on a
# quarter of the training scenes, with another seed: the weight of what keeps old classes, or its rate if it has none.
# python -m mlcil bench demo
title = "Digit scenes, B0-C2, small TResNet pretrained on rendered letters"
seeds = [1, 2, 3]
jobs = 2
trial_seeds = [11]

prepare = [dict(config="demo/pretrain")]
overrides = dict(pretrained="saved_models/bench_demo/pretrain/session_0.pth")

_linear, _krt = "finetune data=digits", "demo/krt"
_herding = {"memory.per_class": 20, "memory.selection": "herding"}
_reservoir = {"memory.total": 200, "memory.selection": "reservoir"}
_prototype = {"network.head.type": "prototype"}
_graph = {"network.head.type": "graph"}


def _three(name, values):
    return [{name: value} for value in values]


_rates = _three("optim_wrapper.optimizer.lr", (3e-4, 1e-3, 3e-3))
_tokens = _three("method.token_weight", (20.0, 50.0, 100.0))
_lwf = _three("method.weight", (1.0, 2.0, 4.0))
_pod = [{"method.spatial": spatial, "method.flat": flat} for spatial, flat in ((0.5, 18.0), (1.5, 60.0), (5.0, 180.0))]


def _row(label, method, choices, config=_linear, **more):
    named = {"method.type": method} if method else {}
    return dict(label=label, config=config, overrides={**named, **more}, choices=choices)


_joint = {"scenario.joint": True}
runs = [
    _row("Joint", "Finetune", _three("train_cfg.base_lr", (3e-4, 1e-3, 3e-3)), **_joint),
    _row("Joint, ICA", None, _three("train_cfg.base_lr", (3e-4, 1e-3, 3e-3)), _krt, **_joint),
    _row("Fine-tuning", "Finetune", _rates),
    _row("oEWC", "OEWC", _three("method.strength", (100.0, 1000.0, 10000.0))),
    _row("LwF, unknown ignored", "LwF", _lwf),
    _row("LwF, unknown absent", "LwF", _lwf, **{"method.old_labels": "absent"}),
    _row("AGCN", "AGCN", _three("method.relation", (100.0, 1000.0, 10000.0)), **_graph),
    _row("PODNet", "POD", _pod),
    _row("KRT", None, _tokens, _krt),
    _row("KRT, recall class", None, _tokens, _krt, **{"method.recall": "class"}),
    _row("KRT, recall quantile", None, _tokens, _krt, **{"method.recall": "quantile"}),
    _row("iCaRL, 20/class", "ICaRL", _rates, **_prototype, **_herding),
    _row("BiC, 20/class", "BiC", _rates, **_herding),
    _row("TPCIL, 20/class", "TPCIL", _three("method.weight", (3.0, 30.0, 300.0)), **_herding),
    _row("PODNet, 20/class", "POD", _pod, **_herding),
    _row("ER, 200", "ER", _rates, **_reservoir),
    _row("DER++, 200", "DERpp", [{"method.alpha": w, "method.beta": w} for w in (0.3, 1.0, 3.0)], **_reservoir),
    _row("PRS, 200", "PRS", _rates, **{**_reservoir, "memory.selection": "prs"}),
    _row("OCDM, 200", "OCDM", _rates, **{**_reservoir, "memory.selection": "ocdm"}),
    _row("KRT-R, 5/class", None, _tokens, _krt, **{**_herding, "memory.per_class": 5}),
    _row("KRT-R, 20/class", None, _tokens, _krt, **_herding),
]
