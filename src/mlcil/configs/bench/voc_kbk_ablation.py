# The ablation of KBK's paper, its rows in their order, on PASCAL VOC 2007 with the paper's network, next to the
# published numbers. FP: features purified by class embeddings, HFP: from two stages, RE: recall by class thresholds,
# URE: and by entropy, CGC: compensated gradients, SPU: semantic features of the unknown.
# Needs the full data set, the ImageNet-21K-P weights and GPUs: python -m mlcil bench voc_kbk_ablation
title = "KBK's ablation, PASCAL VOC 2007, TResNet-M, 224 px"
seeds = [1, 2, 3]
protocols = [
    dict(label="B10-C2", overrides={"scenario.base": 10, "scenario.increment": 2}, published="kbk_voc_b10c2"),
    dict(label="B4-C2", overrides={"scenario.base": 4, "scenario.increment": 2}, published="kbk_voc_b4c2"),
]


def _row(label, purify, recall="off", unknown="off", grad_comp=False):
    switches = {"network.head.purify": purify, "method.recall": recall, "method.unknown": unknown}
    return dict(label=label, config="kbk data=voc", overrides={**switches, "method.grad_comp": grad_comp})


runs = [
    _row("Plain", "off"),
    _row("FP", "flat"),
    _row("FP, RE", "flat", "class"),
    _row("HCP", "flat", "class", "mix"),
    _row("HFP", "hier"),
    _row("HFP, URE", "hier", "class+entropy"),
    _row("HFP, URE, CGC", "hier", "class+entropy", grad_comp=True),
    _row("HFP, URE, SPU", "hier", "class+entropy", "semantic"),
    _row("KBK", "hier", "class+entropy", "semantic", True),
    dict(label="CSC", config="csc data=voc"),
]
